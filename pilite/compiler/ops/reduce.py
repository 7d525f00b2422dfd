"""AVERAGE_POOL_2D, MAX_POOL_2D, MEAN, SOFTMAX."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pilite.compiler import graph
from pilite.compiler.fixedpoint import (
    INT8_MIN,
    INT32_MAX,
    Int64,
    Multiplier,
    rounding_doubling_high_mul,
    rounding_shift_right,
    wrap_int32,
)
from pilite.compiler.graph import Node
from pilite.compiler.ops.common import clamp, is_unsigned, plain_requant, quant, window
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import Pool, QMean, Softmax


def average_pool_2d(node: Node, b: Builder) -> None:
    _pool(node, b, "average")


def max_pool_2d(node: Node, b: Builder) -> None:
    _pool(node, b, "max")


def _pool(node: Node, b: Builder, kind: str) -> None:
    """Padding takes no part: windows are cut to the image, and an average divides by the elements inside."""
    options = node.options
    assert isinstance(options, graph.Pool2D)
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    spans = window(options.padding, options.window, options.stride, (1, 1), x.shape[1:3], y.shape[1:3])
    low, high = clamp(y, options.activation)
    spec = Pool(kind, spans, low, high, round_half_up=kind == "average" and is_unsigned(x))
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]))


def mean(node: Node, b: Builder) -> None:
    """reference/reduce.h QuantizedMeanOrSum: the division by n is folded into the multiplier's mantissa.

    k = min(floor(log2(n)), 32, 31 + exponent); mantissa' = (mantissa << k) / n; exponent' = exponent - k.
    """
    options = node.options
    assert isinstance(options, graph.Mean)
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    n = math.prod(x.shape[i] for i in options.axes)
    m = Multiplier.of(quant(x).scale / quant(y).scale)
    k = min(n.bit_length() - 1, 32, 31 + m.exponent)
    scaled = Multiplier((m.mantissa << k) // n, m.exponent - k)
    spec = QMean(options.axes, signed_zero_point(x), scaled, plain_requant(y))
    kept = tuple(1 if i in options.axes else size for i, size in enumerate(x.shape))
    target = b.reshaped(b.value(node.outputs[0]), kept)
    b.emit(spec, (b.value(node.inputs[0]),), target)


# --- softmax -------------------------------------------------------------------------------------------
# reference/softmax.h and gemmlowp's fixed-point exponential.

SCALED_DIFF_INTEGER_BITS = 5


def softmax(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Softmax)
    x = b.tensor(node.inputs[0])
    table = exponentials(quant(x).scale, options.beta)
    b.emit(Softmax(INT8_MIN), (b.value(node.inputs[0]),), b.value(node.outputs[0]), {"exp": table})


def exponentials(scale: float, beta: float) -> npt.NDArray[np.int32]:
    """exp(-beta * scale * d) in Q0.31 for d = 0 .. 255; 0 beyond TFLite's diff_min
    (PreprocessSoftmaxScaling).
    """
    fraction = 31 - SCALED_DIFF_INTEGER_BITS
    m = Multiplier.of(min(beta * scale * (1 << fraction), INT32_MAX))
    furthest = math.floor(((1 << SCALED_DIFF_INTEGER_BITS) - 1) * (1 << fraction) / 2.0**m.left)
    distance = np.arange(256, dtype=np.int64)
    used = distance <= furthest
    scaled = rounding_doubling_high_mul(wrap_int32(-np.where(used, distance, 0) << m.left), m.mantissa)
    return np.where(used, exp_on_negative_values(scaled), 0).astype(np.int32)


def exp_on_negative_values(a: Int64) -> Int64:
    """exp of a Q5.26 value <= 0, as Q0.31: a Taylor step near the next quarter,
    then a product per set bit.
    """
    fraction = 31 - SCALED_DIFF_INTEGER_BITS
    quarter = 1 << (fraction - 2)
    near = (a & (quarter - 1)) - quarter
    result = _exp_near_zero(near << SCALED_DIFF_INTEGER_BITS)
    remainder = near - a
    factors = (
        1672461947,
        1302514674,
        790015084,
        290630308,
        39332535,
        720401,
        242,
    )  # exp(-2**e) in Q0.31, e = -2..4
    for e, factor in zip(range(-2, 5), factors, strict=True):
        bit = (remainder >> (fraction + e)) & 1
        result = np.where(bit == 1, rounding_doubling_high_mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _exp_near_zero(a: Int64) -> Int64:
    """exp of a Q0.31 value in [-1/4, 0): fourth-order Taylor expansion around -1/8."""
    constant, third = 1895147668, 715827883  # exp(-1/8), 1/3
    x = a + (1 << 28)
    x2 = rounding_doubling_high_mul(x, x)
    x3 = rounding_doubling_high_mul(x2, x)
    x4 = rounding_doubling_high_mul(x2, x2)
    tail = rounding_doubling_high_mul(rounding_shift_right(x4, 2) + x3, third) + x2
    polynomial = x + rounding_shift_right(tail, 1)
    return np.minimum(constant + rounding_doubling_high_mul(constant, polynomial), INT32_MAX)
