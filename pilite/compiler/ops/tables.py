"""LOGISTIC, TANH, HARD_SWISH, RELU and others: one value in, one out, so 256 results (or 65,536) say all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.compiler import fixedpoint16, graph
from pilite.compiler.fixedpoint import (
    Int64,
    Multiplier,
    multiply,
    rounding_shift_right,
    shift_right_ties_up,
)
from pilite.compiler.graph import Node, Tensor
from pilite.compiler.ops.common import by_table, centred, clamp, quant
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.roots import inverse_root

F32 = np.float32
Reals = npt.NDArray[np.float32]


Values: TypeAlias = Callable[[Node, Tensor, Tensor], Int64]


def by_values(values: Values, delegated: Values | None = None) -> Callable[[Node, Builder], None]:
    """The lowering of an operator whose results of every stored value are `values(node, x, y)`, not clamped.

    `delegated`: XNNPACK's results, where they are others.
    """

    def lower(node: Node, b: Builder) -> None:
        x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
        chosen = delegated if delegated is not None and b.delegated(node) else values
        by_table(b, b.value(node.inputs[0]), node.outputs[0], chosen(node, x, y))

    return lower


def _function(x: Tensor, y: Tensor, function: Callable[[Reals], Reals]) -> Int64:
    """internal/common.h LUTPopulate, in float32: round_half_away(function(x) / scale) + zero_point."""
    real = function(F32(quant(x).scale) * centred(x).astype(F32))
    scaled = (real * (F32(1) / F32(quant(y).scale))).astype(np.float64)
    rounded = np.where(scaled >= 0, np.floor(scaled + 0.5), np.ceil(scaled - 0.5)).astype(np.int64)
    return rounded + signed_zero_point(y)


def logistic(node: Node, x: Tensor, y: Tensor) -> Int64:
    """1 / (1 + e**-x); the exponential is rounded to float32 once."""
    if x.dtype == "int16":
        return fixedpoint16.interpolated_sigmoid(quant(x).scale)
    return _function(x, y, lambda v: F32(1) / (F32(1) + _exp(-v)))


def _exp(v: Reals) -> Reals:
    with np.errstate(over="ignore"):  # infinity, as TFLite has it
        return np.exp(v.astype(np.float64)).astype(F32)


def exp(node: Node, x: Tensor, y: Tensor) -> Int64:
    """exp.cc; the exponential is rounded to float32 once."""
    return _function(x, y, _exp)


def gelu(node: Node, x: Tensor, y: Tensor) -> Int64:
    """reference/gelu.h, in float32; erfc and tanh are rounded once."""
    assert isinstance(node.options, graph.Gelu)
    return _function(x, y, _gelu_by_tanh if node.options.approximate else _gelu)


def _gelu(v: Reals) -> Reals:
    """x / 2 * erfc(-x / sqrt(2))"""
    places = (v * F32(-math.sqrt(0.5))).astype(np.float64)
    return F32(0.5) * v * np.array([math.erfc(place) for place in places], F32)


def _gelu_by_tanh(v: Reals) -> Reals:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))"""
    place = F32(math.sqrt(2 / math.pi)) * (v + F32(0.044715) * v * v * v)
    return F32(0.5) * v * (F32(1) + np.tanh(place.astype(np.float64)).astype(F32))


ROOT_BITS = 20  # of fraction of an inverse root


def rsqrt(node: Node, x: Tensor, y: Tensor) -> Int64:
    """elementwise.cc RsqrtEvalQuantized. 0 gives the largest value, and so do values below: TFLite fails."""
    to_output = Multiplier.of(1 / (float(np.sqrt(F32(quant(x).scale))) * quant(y).scale))
    results = [_rsqrt(int(n), to_output) + signed_zero_point(y) for n in centred(x)]
    return np.array(results, np.int64)


def _rsqrt(n: int, to_output: Multiplier) -> int:
    if n <= 0:
        return 1 << 16  # saturates
    root = inverse_root(n)
    root = Multiplier(root.mantissa, root.exponent + ROOT_BITS)
    scaled = Multiplier(to_output.mantissa, to_output.exponent - ROOT_BITS)
    return int(multiply(multiply(np.array([1]), root), scaled)[0])


def tanh(node: Node, x: Tensor, y: Tensor) -> Int64:
    if x.dtype == "int16":
        return fixedpoint16.interpolated_tanh(quant(x).scale)
    return _function(x, y, lambda v: np.tanh(v.astype(np.float64)).astype(F32))


def _ratio(x: Tensor, y: Tensor, factor: float = 1.0) -> Multiplier:
    """scale(x) * factor / scale(y), in float32."""
    return Multiplier.of(float(F32(quant(x).scale) * F32(factor) / F32(quant(y).scale)))


ACTIVATIONS = {"RELU": "RELU", "RELU6": "RELU6", "RELU_N1_TO_1": "RELU_N1_TO_1"}


def relu(node: Node, x: Tensor, y: Tensor) -> Int64:
    """activations.cc QuantizedReluX."""
    scaled = multiply(centred(x), _ratio(x, y)) + signed_zero_point(y)
    return np.clip(scaled, *clamp(y, ACTIVATIONS[node.op]))


def leaky_relu(node: Node, x: Tensor, y: Tensor) -> Int64:
    """reference/leaky_relu.h QuantizeLeakyRelu."""
    assert isinstance(node.options, graph.LeakyRelu)
    v = centred(x)
    above, below = multiply(v, _ratio(x, y)), multiply(v, _ratio(x, y, node.options.alpha))
    return np.where(v >= 0, above, below) + signed_zero_point(y)


def leaky_relu_xnnpack(node: Node, x: Tensor, y: Tensor) -> Int64:
    """Multipliers with 8 fractional bits, rounded to even; the product with ties up (qs8-vlrelu)."""
    assert isinstance(node.options, graph.LeakyRelu)
    ratio = F32(quant(x).scale) / F32(quant(y).scale)
    above, below = (round(float(F32(256) * f)) for f in (ratio, F32(ratio * F32(node.options.alpha))))
    v = centred(x)
    return shift_right_ties_up(v * np.where(v >= 0, above, below), 8) + signed_zero_point(y)


def absolute(node: Node, x: Tensor, y: Tensor) -> Int64:
    """elementwise.cc AbsInt8Quantized: not rescaled where the scales are equal."""
    size = np.abs(centred(x))
    scaled = size if quant(x).scale == quant(y).scale else multiply(size, _ratio(x, y))
    return scaled + signed_zero_point(y)


# --- HARD_SWISH: reference/hard_swish.h, in int16 --------------------------------------------------------

HIGH_RESOLUTION_BITS = 7
RELUISH_SCALE = F32(3 / 32768)  # of a value in [-1, 1) that stands for [-3, 3)


def hard_swish(node: Node, x: Tensor, y: Tensor) -> Int64:
    """x * relu6(x + 3) / 6 from two products of 16 bits."""
    fine = centred(x) << HIGH_RESOLUTION_BITS
    scale = F32(F32(1 / (1 << HIGH_RESOLUTION_BITS)) * F32(quant(x).scale))
    to_output = Multiplier.of(float(scale / F32(quant(y).scale)))
    swish = _high_mul_16(fine, _mantissa_16(to_output))
    product = ((_gate(fine, scale) + (1 << 15)) >> 1) * swish
    truncated = np.sign(product) * (np.abs(product) >> 15)
    return rounding_shift_right(truncated, -to_output.exponent) + signed_zero_point(y)


def _gate(fine: Int64, scale: np.float32) -> Int64:
    """clamp(x / 3, -1, 1) as a 16-bit fraction."""
    m = Multiplier.of(float(scale / RELUISH_SCALE))
    value = fine
    if m.exponent > 0:
        value = _saturated_16(value << (m.exponent - 1))
    value = _high_mul_16(value, _mantissa_16(m))
    if m.exponent > 0:
        value = _saturated_16(value << 1)
    return rounding_shift_right(value, m.right)


def _mantissa_16(m: Multiplier) -> int:
    """DownScaleInt32ToInt16Multiplier: rounded, saturated."""
    return min((m.mantissa + (1 << 15)) >> 16, (1 << 15) - 1)


def _high_mul_16(a: Int64, b: int) -> Int64:
    """Doubling high product of 16 bits, ties up."""
    return _saturated_16((a * b + (1 << 14)) >> 15)


def _saturated_16(x: Int64) -> Int64:
    return np.clip(x, -(1 << 15), (1 << 15) - 1)
