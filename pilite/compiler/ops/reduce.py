"""AVERAGE_POOL_2D, MAX_POOL_2D, MEAN, SUM, REDUCE_MAX, REDUCE_MIN, SOFTMAX."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler import fixedpoint16, graph
from pilite.compiler.fixedpoint import (
    INT8_MIN,
    INT32_MAX,
    Int64,
    Multiplier,
    fma32,
    nearest_tflite,
    nearest_xnnpack,
    rounding_doubling_high_mul,
    rounding_shift_right,
    wrap_int32,
)
from pilite.compiler.graph import Node, Tensor
from pilite.compiler.ops.common import clamp, is_unsigned, plain_requant, quant, window
from pilite.compiler.program import Builder, signed_zero_point, storage
from pilite.compiler.spec import Pool, QMean, QMeanFloat, Reduce, Softmax, SoftmaxTable, Spec, Table
from pilite.compiler.spec16 import QMean16, Softmax16


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
    nearest = nearest_xnnpack if b.delegated(node) else nearest_tflite
    low, high = clamp(y, options.activation, nearest)
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
    spec: Spec = QMean(options.axes, signed_zero_point(x), scaled, plain_requant(y))
    if y.dtype == "int16":
        spec = QMean16(options.axes, scaled, *clamp(y, "NONE"))
    elif b.delegated(node):
        spec = _float_mean(x, y, options.axes, n, n)
    b.emit(spec, (b.value(node.inputs[0]),), _kept(node, b, b.value(node.outputs[0])))


def _kept(node: Node, b: Builder, value: int) -> int:
    """`value` of the output's shape seen with the reduced axes, of extent 1."""
    options = node.options
    assert isinstance(options, graph.Mean)
    sizes = enumerate(b.tensor(node.inputs[0]).shape)
    return b.reshaped(value, [1 if i in options.axes else size for i, size in sizes])


def _float_mean(x: Tensor, y: Tensor, axes: tuple[int, ...], n: int, divisor: int) -> QMeanFloat:
    """XNNPACK on aarch64 (operators/reduce-nd.c): s = si / so * (1 / divisor), all in float32;
    y = round_half_even(fma(sum, s, fma(-n * zi, s, zo))). Zero points and sum are the model's own, not moved.
    """
    factor = np.float32(quant(x).scale) / np.float32(quant(y).scale) * (np.float32(1) / np.float32(divisor))
    offset = fma32(-n * quant(x).zero_point, float(factor), quant(y).zero_point)
    shift = 128 if is_unsigned(x) else 0
    return QMeanFloat(axes, shift * n, float(factor), offset, shift)


def total(node: Node, b: Builder) -> None:
    """SUM: QuantizedMeanOrSum without the division, or a plain sum that starts at 0."""
    options = node.options
    assert isinstance(options, graph.Mean)
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    if y.dtype == "int16" and b.numerics.is_xnnpack:
        saturated = QMean16(options.axes, Multiplier.of(1.0), *clamp(y, "NONE"))
        b.emit(saturated, (b.value(node.inputs[0]),), _kept(node, b, b.value(node.outputs[0])))
    elif y.dtype not in ("int8", "uint8"):
        _plain(node, b, "add", 0)
    elif b.delegated(node):
        n = math.prod(x.shape[i] for i in options.axes)
        spec = _float_mean(x, y, options.axes, n, 1)
        b.emit(spec, (b.value(node.inputs[0]),), _kept(node, b, b.value(node.outputs[0])))
    else:
        _scaled_total(node, b, flips=x.dtype == "int8")


def _scaled_total(node: Node, b: Builder, flips: bool) -> None:
    """The reference kernel reads and writes the bytes of int8 tensors as if they were uint8 (LiteRT's issue
    4079), with the zero points of the int8 ones: `flips` does the same.
    """
    options = node.options
    assert isinstance(options, graph.Mean)
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    source, target = b.value(node.inputs[0]), b.value(node.outputs[0])
    m = Multiplier.of(quant(x).scale / quant(y).scale)
    zero_points = quant(x).zero_point - 128, quant(y).zero_point - 128
    requant = replace(plain_requant(y), zero_point=zero_points[1])
    result = b.new(y.shape) if flips else target
    if flips:
        source = _flipped(b, source, b.new(x.shape))
    b.emit(QMean(options.axes, zero_points[0], m, requant), (source,), _kept(node, b, result))
    if flips:
        _flipped(b, result, target)


def _flipped(b: Builder, source: int, target: int) -> int:
    b.emit(Table(), (source,), target, {"table": (np.arange(-128, 128) ^ -128).astype(np.int8)})
    return target


def extreme(kind: str) -> Callable[[Node, Builder], None]:
    """REDUCE_MAX and REDUCE_MIN; a NaN is never taken, and an infinity counts as the largest float."""

    def lower(node: Node, b: Builder) -> None:
        dtype = np.dtype(storage(b.tensor(node.outputs[0]).dtype))
        limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        furthest = limits.min if kind == "maximum" else limits.max
        _plain(node, b, kind, float(furthest) if dtype.kind == "f" else int(furthest))

    return lower


def _plain(node: Node, b: Builder, kind: str, start: float) -> None:
    options = node.options
    assert isinstance(options, graph.Mean)
    target = _kept(node, b, b.value(node.outputs[0]))
    b.emit(Reduce(kind, options.axes, start), (b.value(node.inputs[0]),), target)


# --- softmax -------------------------------------------------------------------------------------------
# reference/softmax.h and gemmlowp's fixed-point exponential.

SCALED_DIFF_INTEGER_BITS = 5


def softmax(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Softmax)
    x = b.tensor(node.inputs[0])
    if x.dtype == "int16":
        softmax_wide(node, b, options.beta)
        return
    if b.numerics.is_xnnpack:
        softmax_by_table(node, b, options.beta)
        return
    table = exponentials(quant(x).scale, options.beta)
    b.emit(Softmax(INT8_MIN), (b.value(node.inputs[0]),), b.value(node.outputs[0]), {"exp": table})


def softmax_by_table(node: Node, b: Builder, beta: float) -> None:
    """aarch64's builtin kernel, optimized_ops.h SoftmaxInt8LUT: 16-bit exponentials, a float32 reciprocal."""
    y = b.tensor(node.outputs[0])
    table = exponentials16(quant(b.tensor(node.inputs[0])).scale, beta)
    spec = SoftmaxTable(quant(y).scale, signed_zero_point(y))
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]), {"exp": table})


def softmax_wide(node: Node, b: Builder, beta: float) -> None:
    """A distance of 65,535 steps of the table is one of `fixedpoint16.RANGE`; beta is a float32."""
    scale = float(np.float32(quant(b.tensor(node.inputs[0])).scale) * np.float32(beta))
    spec = Softmax16(Multiplier.of(scale / (fixedpoint16.RANGE / 65535)))
    arrays = {"exp": fixedpoint16.exponentials(), "reciprocal": fixedpoint16.reciprocals()}
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]), arrays)


def exponentials16(scale: float, beta: float) -> npt.NDArray[np.int32]:
    """65535 * exp(-beta * scale * d), rounded, for d = 0 .. 255 (PopulateSoftmaxUInt8LookupTable)."""
    factor = np.float32(scale) * np.float32(beta)
    powers = np.exp((factor * -np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
    scaled = (powers * np.float32(65535)).astype(np.float64) + 0.5
    return np.minimum(scaled.astype(np.int32), 65535).astype(np.int32)


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
