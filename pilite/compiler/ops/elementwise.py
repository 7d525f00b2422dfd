"""ADD, SUB, QUANTIZE, DEQUANTIZE and rescaling by table."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pilite.compiler import fixedpoint16, graph
from pilite.compiler.fixedpoint import (
    Int64,
    Multiplier,
    every,
    multiply,
    nearest_xnnpack,
    shift_right_ties_up,
)
from pilite.compiler.graph import Node, Tensor
from pilite.compiler.ops.broadcasting import plain, widened
from pilite.compiler.ops.common import by_table, centred, clamp, plain_requant, quant
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import (
    Broadcast,
    DequantizeFloat,
    QAdd,
    QuantizeFloat,
    QuantizeFloatEven,
    QWeightedAdd,
    Spec,
)
from pilite.compiler.spec16 import QAdd16

ADD_LEFT_SHIFT = {"int8": 20, "uint8": 20, "int16": 15}

EVERY_INT8 = every("int8")


def add(node: Node, b: Builder) -> None:
    """ADD and SUB. Both operands to a scale of twice the larger one, 20 (15) bits up, then to the output's.

    TFLite add.cc, sub.cc.
    t = 2 * max(s1, s2); y = zo + mo * (m1 * ((a - z1) << 20) +- m2 * ((b - z2) << 20))
    with m1 = s1 / t, m2 = s2 / t, mo = t / (2**20 * so).
    """
    options = node.options
    assert isinstance(options, graph.Add)
    left, right = (b.tensor(i) for i in node.inputs)
    y, subtract = b.tensor(node.outputs[0]), node.op == "SUB"
    if y.dtype not in ("int8", "uint8"):
        (wide_add if y.dtype == "int16" else plain(node.op.lower()))(node, b)
        return
    if b.delegated(node):
        weighted_add(node, b, -1 if subtract else 1, options.activation)
        return
    scaled = _sum_multipliers(left, right, y)
    zero_points = signed_zero_point(left), signed_zero_point(right)
    spec = QAdd(ADD_LEFT_SHIFT["int8"], zero_points, *scaled, plain_requant(y, options.activation), subtract)
    inputs = [_expanded(b, i, y.shape) for i in node.inputs]
    b.emit(spec, inputs, b.value(node.outputs[0]))


def _sum_multipliers(a: Tensor, b: Tensor, y: Tensor) -> tuple[tuple[Multiplier, Multiplier], Multiplier]:
    """Of both operands and of their sum."""
    s1, s2 = quant(a).scale, quant(b).scale
    twice, shift = 2.0 * max(s1, s2), ADD_LEFT_SHIFT[y.dtype]
    multipliers = Multiplier.of(s1 / twice), Multiplier.of(s2 / twice)
    return multipliers, Multiplier.of(twice / ((1 << shift) * quant(y).scale))


SQUARE_LEFT_SHIFT = 7


def squared_difference(node: Node, b: Builder) -> None:
    """Both operands as of SUB, 7 bits up; the square of the difference to the output's scale.

    TFLite squared_difference.cc. With t = 2 * max(s1, s2): mo = t**2 / (2**14 * so).
    """
    left, right = (b.tensor(i) for i in node.inputs)
    y = b.tensor(node.outputs[0])
    if y.dtype != "int8":
        plain("squared_difference")(node, b)
        return
    s1, s2 = quant(left).scale, quant(right).scale
    twice = 2.0 * max(s1, s2)
    scaled = Multiplier.of(s1 / twice), Multiplier.of(s2 / twice)
    output = Multiplier.of(twice * twice / ((1 << 2 * SQUARE_LEFT_SHIFT) * quant(y).scale))
    zero_points = signed_zero_point(left), signed_zero_point(right)
    spec = QAdd(SQUARE_LEFT_SHIFT, zero_points, scaled, output, plain_requant(y), subtract=True, square=True)
    b.emit(spec, [_expanded(b, i, y.shape) for i in node.inputs], b.value(node.outputs[0]))


def wide_add(node: Node, b: Builder) -> None:
    """ADD and SUB of int16. Where TFLite shifts, y = a +- b / 2**n or a / 2**n +- b, ties away from zero:
    15 bits up, half of that, and 14 + n bits down, which rounds once.
    """
    options = node.options
    assert isinstance(options, graph.Add)
    tensors = [b.tensor(i) for i in (*node.inputs, node.outputs[0])]
    scaled, y = _sum_multipliers(*tensors), tensors[2]
    found = fixedpoint16.powers(*(quant(t).scale for t in tensors)) if options.pot_scale_int16 else None
    if found is not None:
        first, second = (Multiplier(1 << 30, power - found[2] - 14) for power in found[:2])
        scaled = (first, second), Multiplier(1 << 30, 1)
    limits = clamp(y, options.activation)
    spec = QAdd16(ADD_LEFT_SHIFT["int16"], *scaled, *limits, subtract=node.op == "SUB")
    b.emit(spec, widened(node, b), b.value(node.outputs[0]))


def weighted_add(node: Node, b: Builder, sign: int, activation: str) -> None:
    """XNNPACK's addition, or subtraction for `sign` -1 (microparams-init.c, xnn_init_qs8_add_minmax_params).

    r_i = float32(s_i / so); the shift gives the larger weight round_half_even(|r_i| * 2**shift) 21 bits.
    """
    y = b.tensor(node.outputs[0])
    tensors = [b.tensor(i) for i in node.inputs]
    ratios = [float(np.float32(quant(t).scale) / np.float32(quant(y).scale)) for t in tensors]
    shift = 21 - math.frexp(max(ratios))[1]
    first, second = (round(ratio * 2.0**shift) for ratio in ratios)
    zero_points = signed_zero_point(tensors[0]), signed_zero_point(tensors[1])
    requant = plain_requant(y, activation, nearest_xnnpack)
    spec = QWeightedAdd(zero_points, (first, sign * second), shift, requant)
    b.emit(spec, [_expanded(b, i, y.shape) for i in node.inputs], b.value(node.outputs[0]))


def _expanded(b: Builder, tensor: int, shape: tuple[int, ...]) -> int:
    """The operand with the output's shape."""
    t, value = b.tensor(tensor), b.value(tensor)
    if t.shape == shape:
        return value
    source = (1,) * (len(shape) - len(t.shape)) + t.shape
    wide = b.new(shape, border=b.values[value].border)
    b.emit(Broadcast(source, shape), (b.reshaped(value, source),), wide)
    return wide


def quantize(node: Node, b: Builder) -> None:
    """From float32, or between quantized dtypes by requantize.h: y = zo + (x - zi) * (si / so)."""
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    source = b.value(node.inputs[0])
    if x.dtype == "float32":
        spec: Spec = QuantizeFloat(quant(y).scale, signed_zero_point(y))
        if b.delegated(node):
            inverse = float(np.float32(1) / np.float32(quant(y).scale))
            spec = QuantizeFloatEven(inverse, signed_zero_point(y))
        b.emit(spec, (source,), b.value(node.outputs[0]))
        return
    if b.delegated(node):
        by_table(b, source, node.outputs[0], _converted(x, y))
        return
    m = Multiplier.of(quant(x).scale / quant(y).scale)
    by_table(b, source, node.outputs[0], multiply(centred(x), m) + signed_zero_point(y))


def _converted(x: Tensor, y: Tensor) -> Int64:
    """XNNPACK's conversion by a multiplier with 8 fractional bits (xnn_init_qs8_cvt_scalar_params)."""
    multiplier = round(float(np.float32(256) * (np.float32(quant(x).scale) / np.float32(quant(y).scale))))
    return shift_right_ties_up(centred(x) * multiplier, 8) + signed_zero_point(y)


def dequantize(node: Node, b: Builder) -> None:
    x = b.tensor(node.inputs[0])
    spec = DequantizeFloat(quant(x).scale, signed_zero_point(x))
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]))


def rescaled_for_concatenation(x: Tensor, y: Tensor) -> npt.NDArray[np.int64]:
    """reference/concatenation.h ConcatenationWithScaling, in float32, for every stored value of x."""
    inverse = np.float32(1) / np.float32(quant(y).scale)
    scale = np.float32(np.float32(quant(x).scale) * inverse)
    bias = np.float32(np.float32(-quant(x).zero_point) * scale)
    real = (np.arange(256, dtype=np.float32) * scale + bias).astype(np.float64)
    rounded = np.where(real >= 0, np.floor(real + 0.5), np.ceil(real - 0.5)).astype(np.int64)
    return np.clip(rounded + quant(y).zero_point, 0, 255) - 128
