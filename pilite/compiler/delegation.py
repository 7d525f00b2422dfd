"""Numerics `xnnpack`: which operators LiteRT's default gives to XNNPACK, and which cannot be promised.

    taken(node, graph)    ->  XNNPACK computes the operator; otherwise a builtin kernel of LiteRT does
    refusal(node, graph)  ->  why `xnnpack` cannot be promised for it, or None

An operator that is not in POLICIES is refused. Rules are LiteRT 1.4's and 2.3's (tflite/delegates/xnnpack/
xnnpack_delegate.cc; XNNPACK's subgraph/ and operators/): it refuses a model whose operator XNNPACK takes and
then fails on. Builtin kernels but an LSTM's round sums by shape, channel and CPU: nobody can promise that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pilite.compiler.fixedpoint import INT8_MIN, activation_range, nearest_xnnpack
from pilite.compiler.fixedpoint16 import powers
from pilite.compiler.graph import ABSENT, Graph, Mean, Node, Tensor, TransposeConv
from pilite.compiler.rules import operand
from pilite.compiler.schema import MOVES
from pilite.compiler.shapes import extent
from pilite.compiler.tensors import quoted

Rule: TypeAlias = Callable[[Node, Graph], str | None]

MAX_RANK = 6  # XNN_MAX_TENSOR_DIMS
MOST_SUMMED = 2**16  # values of int16 whose sum 32 bits always hold
REF = "compile with `--numerics ref`"
BUILTIN = f"so LiteRT leaves it to a builtin kernel that rounds by shape and CPU; {REF}"


@dataclass(frozen=True)
class Policy:
    """How `xnnpack` computes one operator."""

    text: str  # for `invoke ops`
    takes: Callable[[Node, Graph], bool] = lambda node, graph: True
    rules: tuple[Rule, ...] = ()


def taken(node: Node, graph: Graph) -> bool:
    return POLICIES[node.op].takes(node, graph)


def refusal(node: Node, graph: Graph) -> str | None:
    if node.op not in POLICIES:
        return f"numerics `xnnpack` promises nothing about it; {REF}"
    reasons = (rule(node, graph) for rule in POLICIES[node.op].rules)
    return next((reason for reason in reasons if reason), None)


def folded_refusal(node: Node, operands: Sequence[Tensor]) -> str | None:
    """XNNPACK takes sizes and axes only where the file has them. `operands`: of `node`, that were folded."""
    if not operands or POLICIES[node.op] in (_SAME, _MOVED):
        return None
    return f"its operand {quoted(operands[0].name)} is computed by operators, {BUILTIN}"


# Facts about an operator.


def _tensors(node: Node, graph: Graph) -> list[Tensor]:
    return [graph.tensors[i] for i in (*node.inputs, *node.outputs) if i != ABSENT]


def _quantized(node: Node, graph: Graph) -> list[Tensor]:
    return [t for t in _tensors(node, graph) if t.quant is not None]


def _scale(tensor: Tensor) -> np.float32:
    assert tensor.quant is not None
    return np.float32(tensor.quant.scale)


def ratios(node: Node, graph: Graph) -> list[float]:
    """float32(input scale / output scale) of every operand."""
    y = graph.tensors[node.outputs[0]]
    return [float(_scale(graph.tensors[i]) / _scale(y)) for i in node.inputs]


# What XNNPACK takes.


def _eight_bit(node: Node, graph: Graph) -> bool:
    return graph.tensors[node.outputs[0]].dtype in ("int8", "uint8")


def _real(node: Node, graph: Graph) -> bool:
    """VisitBinaryNode takes float32. XNNPACK does not keep results finite, as builtin kernels do."""
    small = all(len(t.shape) <= MAX_RANK for t in _tensors(node, graph))
    return small and graph.tensors[node.outputs[0]].dtype == "float32"


def _added(node: Node, graph: Graph) -> bool:
    """xnnpack_delegate.cc VisitBinaryNode: ratios of scales in [2**-10, 2**8)."""
    if not _eight_bit(node, graph):
        return _real(node, graph)
    small = all(len(t.shape) <= MAX_RANK for t in _tensors(node, graph))
    return small and all(2.0**-10 <= ratio < 2.0**8 for ratio in ratios(node, graph))


def _multiplied(node: Node, graph: Graph) -> bool:
    """VisitBinaryNode: ratio of the product of scales in [2**-16, 2**8)."""
    if not _eight_bit(node, graph):
        return _real(node, graph)
    a, b, y = _tensors(node, graph)
    ratio = float(_scale(a) * _scale(b) / _scale(y))
    return all(len(t.shape) <= MAX_RANK for t in (a, b)) and 2.0**-16 <= ratio < 2.0**8


def _leaked(node: Node, graph: Graph) -> bool:
    """VisitUnaryNode: both slopes within the 8 fractional bits of their multipliers."""
    x = graph.tensors[node.inputs[0]]
    slope = float(np.float32(ratios(node, graph)[0]) * np.float32(node.options.alpha))  # type: ignore[union-attr]
    above = _eight_bit(node, graph) and 2.0**-8 <= ratios(node, graph)[0] <= 2.0**7
    return above and len(x.shape) <= MAX_RANK and abs(slope) >= 2.0**-8 and -127.99609375 <= slope <= 128.0


def _converted(node: Node, graph: Graph) -> bool:
    """VisitUnaryNode: from float32, or within one dtype and ratio of scales.

    To int16 LiteRT's builtin kernel for NEON has XNNPACK's formula: optimized_ops.h AffineQuantize.
    """
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    if y.dtype == "int16":
        return x.dtype == "float32"
    if len(x.shape) > MAX_RANK:
        return False
    return x.dtype == "float32" or (x.dtype == y.dtype and 2.0**-8 <= ratios(node, graph)[0] <= 2.0**7)


def _max_pooled(node: Node, graph: Graph) -> bool:
    """CheckPoolingParams: 8 bits, no stride beyond the window, and none of a single pixel."""
    window, stride = node.options.window, node.options.stride  # type: ignore[union-attr]
    return _eight_bit(node, graph) and all(s <= k for s, k in zip(stride, window, strict=True))


def _never(node: Node, graph: Graph) -> bool:
    return False


# What cannot be promised.


def _normal_scales(node: Node, graph: Graph) -> str | None:
    """XNNPACK refuses scales that are not normal float32 numbers."""
    tiny = float(np.finfo(np.float32).tiny)
    for tensor in _quantized(node, graph):
        assert tensor.quant is not None
        if min(tensor.quant.scales) < tiny:
            return f"its tensor {tensor.name!r} has a scale below {tiny:g}, which XNNPACK refuses; {REF}"
    return None


def _biased(node: Node, graph: Graph) -> str | None:
    if node.inputs[2] == ABSENT and graph.tensors[node.inputs[0]].dtype != "int16":
        return f"has no bias, without which LiteRT fails or leaves it to a builtin kernel; {REF}"
    return None


def _bias_scale(node: Node, graph: Graph) -> str | None:
    bias = operand(node, graph, 2)
    if bias is not None and (bias.quant is None or len(bias.shape) != 1):
        return f"its bias {bias.name!r} has {'not one dimension' if bias.quant else 'no scale'}, {BUILTIN}"
    return None


def _weights(node: Node, graph: Graph) -> str | None:
    w = graph.tensors[node.inputs[1]]
    assert w.quant is not None
    if not w.quant.per_axis and w.quant.stored_axis != 0:
        return f"its weights have one scale along dimension {w.quant.stored_axis} instead of 0, {BUILTIN}"
    if w.dtype == "int8" and any(w.quant.zero_points):
        return f"its int8 weights have a zero point, which XNNPACK refuses; {REF}"
    if w.dtype == "int8" and w.data is not None and np.any(w.data == INT8_MIN):
        return f"its int8 weights hold -128, which overflows in XNNPACK's kernels for some cores; {REF}"
    return None


def _convolved_back(node: Node, graph: Graph) -> str | None:
    """Newer kernels take a TRANSPOSE_CONV only if a convolution of its output has the size of its input."""
    o = node.options
    assert isinstance(o, TransposeConv)
    x, w, y = (graph.tensors[i].shape for i in (*node.inputs[:2], node.outputs[0]))
    sizes = zip(y[1:3], w[1:3], o.stride, strict=True)
    back = tuple(extent(size, window, stride, 1, o.padding) for size, window, stride in sizes)
    if back == x[1:3]:
        return None
    return f"its output {y[1:3]} convolved back is {back}, not its input {x[1:3]}; LiteRT refuses it; {REF}"


def _one_scale(tensor: Tensor) -> str | None:
    count = len(tensor.quant.scales) if tensor.quant else 0
    if count == 1:
        return None
    name = quoted(tensor.name)
    return f"its {tensor.dtype} tensor {name} has {count} scales, of which LiteRT needs one here; {REF}"


def _small_scales(node: Node, graph: Graph) -> str | None:
    """LiteRT compares int16 values as it does those of 8 bits."""
    operands = [graph.tensors[i] for i in node.inputs]
    if operands[0].dtype != "int16":
        return None
    several = next(filter(None, map(_one_scale, operands)), None)
    if several:
        return several
    scales = [float(_scale(t)) for t in operands]
    if all(0 < scale < 1 - 2**-32 for scale in scales):
        return None
    return (
        f"compares int16 values of scales {scales[0]:g} and {scales[1]:g}; LiteRT takes those below 1; {REF}"
    )


def _wide_sum(node: Node, graph: Graph) -> str | None:
    """LiteRT makes sums of int16 in 32 bits and scales them."""
    x = graph.tensors[node.inputs[0]]
    if x.dtype != "int16":
        return None
    assert isinstance(node.options, Mean)
    count = math.prod(x.shape[axis] for axis in node.options.axes)
    if count > MOST_SUMMED:
        return f"sums {count} values, more than the 32 bits of LiteRT's sum hold; {REF}"
    return _one_scale(x)


def _narrow(node: Node, graph: Graph) -> str | None:
    """LiteRT asks an option of the operator, not its bias, how wide sums are; it rounds 32 bits by CPU."""
    bias = operand(node, graph, 2)
    said = getattr(node.options, "bias_type", "") == "int32"
    if graph.tensors[node.inputs[0]].dtype != "int16" or not (said or (bias and bias.dtype == "int32")):
        return None
    return f"has 16-bit values and 32-bit sums, which LiteRT rounds otherwise; {REF}"


def _near_powers(*exponents: int) -> Rule:
    """For these powers of two as scale of int16 LiteRT's default has kernels that use no table."""

    def rule(node: Node, graph: Graph) -> str | None:
        x = graph.tensors[node.inputs[0]]
        found = powers(float(_scale(x))) if x.dtype == "int16" else None
        if found is None or found[0] not in exponents:
            return None
        scale = f"its int16 input scale {float(_scale(x)):g}"
        return f"{scale} is a power of two, which LiteRT computes otherwise; {REF}"

    return rule


def _covered(node: Node, graph: Graph) -> str | None:
    """CalculateTransposeConvPaddings: no SAME with gaps between windows. In VALID, outputs that are a bias
    alone are rounded by rndnu also where a core rounds all others by rndnu16.
    """
    o = node.options
    assert isinstance(o, TransposeConv)
    x, w = (graph.tensors[i] for i in node.inputs[:2])
    window = w.shape[1:3]
    if x.dtype == "int16" or all(size >= stride for size, stride in zip(window, o.stride, strict=True)):
        return None
    gaps = f"its window {window} is smaller than its stride {o.stride}"
    if o.padding == "SAME":
        return f"{gaps}, {BUILTIN}"
    return f"{gaps}, where cores round otherwise; {REF}" if x.dtype == "uint8" else None


def multipliers(node: Node, graph: Graph) -> Sequence[float]:
    x, w, y = (graph.tensors[i] for i in (*node.inputs[:2], node.outputs[0]))
    assert w.quant is not None
    return [float(_scale(x) * np.float32(scale) / _scale(y)) for scale in w.quant.scales]


def _multiplier(node: Node, graph: Graph) -> str | None:
    """XNNPACK refuses requantization scales of 256; rndnu (uint8) shifts by 31 bits at most."""
    scales = multipliers(node, graph)
    least = 2.0**-32 if graph.tensors[node.inputs[0]].dtype == "uint8" else 0.0
    if max(scales) >= 256 or min(scales) < least:
        return f"its multipliers ({min(scales):g} to {max(scales):g}) leave XNNPACK's {least:g} to 256; {REF}"
    return None


def _range(node: Node, graph: Graph) -> str | None:
    """An activation must leave XNNPACK two values at least."""
    y = graph.tensors[node.outputs[0]]
    assert y.quant is not None
    limits = np.iinfo(y.dtype)
    ends = y.quant.scale, y.quant.zero_point, int(limits.min), int(limits.max)
    activation: str = node.options.activation  # type: ignore[union-attr]
    low, high = activation_range(activation, *ends, nearest_xnnpack)
    if low >= high:
        return f"its activation {activation} leaves one output value, which XNNPACK refuses; {REF}"
    return None


def _no_float(node: Node, graph: Graph) -> str | None:
    real = graph.tensors[node.outputs[0]].dtype == "float32"
    return f"sums float32 numbers, in an order that is XNNPACK's own; {REF}" if real else None


def _range_if_taken(node: Node, graph: Graph) -> str | None:
    return _range(node, graph) if _eight_bit(node, graph) and taken(node, graph) else None


def _same_quantization(node: Node, graph: Graph) -> str | None:
    found = {t.quant for t in _tensors(node, graph) if t.dtype in ("int8", "uint8")}
    if len(found) > 1:
        return f"its operand and output differ in scale or zero point, which XNNPACK refuses; {REF}"
    return None


def _flipped(node: Node, graph: Graph) -> str | None:
    """Between int8 and uint8 only the sign bit is known to move alike in every version of LiteRT."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    if x.quant is None or y.quant is None or x.dtype in (y.dtype, "int16"):
        return None
    distance = y.quant.zero_point - x.quant.zero_point
    if x.quant.scales == y.quant.scales and distance == (128 if y.dtype == "uint8" else -128):
        return None
    return f"turns {x.dtype} into {y.dtype} of another scale or range, {BUILTIN}"


def _eights(node: Node, graph: Graph) -> str | None:
    """Behind the last eight LiteRT divides in double, and rounds ties away from zero."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    if (x.dtype, y.dtype) != ("float32", "int16") or y.elements % 8 == 0:
        return None
    last = f"the last {y.elements % 8} of {y.elements} floats"
    return f"turns floats into int16, of which LiteRT rounds {last} otherwise; {REF}"


def _softmax(node: Node, graph: Graph) -> str | None:
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    if y.dtype != "int16" and (x.shape[-1] > 2**15 or _scale(y) < 2.0**-14):
        return f"has more than 32,768 classes or an output scale below 2**-14; {REF}"
    return None


_SUMS = (_narrow, _normal_scales, _bias_scale, _weights, _multiplier, _range)
_ROUNDED = "XNNPACK: int8 fp32, uint8 rndnu, on Cortex-A53 rndnu16"
_WIDE_SUMS = "int16 builtin, with 64-bit bias or none"
_MOVED = Policy("moves bytes")
_SAME = Policy("builtin, equal to ref", _never)
_UNCHANGED = ("CONCATENATION", "EXPAND_DIMS", "PADV2", "RESHAPE", "SQUEEZE")

POLICIES: dict[str, Policy] = {
    **dict.fromkeys((*MOVES, *_UNCHANGED), _MOVED),
    **dict.fromkeys(("ABS", "ARG_MAX", "ARG_MIN", "CAST", "FLOOR_DIV", "HARD_SWISH", "NEG", "SQRT"), _SAME),
    **dict.fromkeys(("GELU", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL", "SELECT"), _SAME),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "SELECT_V2", "AVERAGE_POOL_2D"), _SAME),
    **dict.fromkeys(("EXP", "MAXIMUM", "MINIMUM", "REDUCE_MAX", "REDUCE_MIN", "L2_NORMALIZATION"), _SAME),
    **dict.fromkeys(("PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "RESIZE_NEAREST_NEIGHBOR", "RSQRT"), _SAME),
    "SQUARED_DIFFERENCE": _SAME,
    "DIV": Policy("XNNPACK; integers builtin", _real),
    "EQUAL": Policy("builtin, equal to ref; int16 by scale", _never, (_small_scales,)),
    "LEAKY_RELU": Policy("XNNPACK; int16 and beyond its scales builtin", _leaked, (_normal_scales,)),
    "LOGISTIC": Policy(
        "XNNPACK, equal to ref; int16 builtin, not of scale 2**-12",
        _eight_bit,
        (_near_powers(-12), _normal_scales),
    ),
    "MUL": Policy(
        "XNNPACK: rndnu; int16 and beyond its scales builtin", _multiplied, (_normal_scales, _range_if_taken)
    ),
    "RESIZE_BILINEAR": Policy(
        "XNNPACK: 11 bits; int16 builtin", _eight_bit, rules=(_normal_scales, _same_quantization)
    ),
    "SUB": Policy("XNNPACK; int16 and beyond its scales builtin", _added, (_normal_scales, _range_if_taken)),
    "TANH": Policy(
        "XNNPACK, equal to ref; int16 builtin, not of scale 2**-12 or 2**-11",
        _eight_bit,
        (_near_powers(-12, -11), _normal_scales),
    ),
    "ADD": Policy("XNNPACK; int16 and beyond its scales builtin", _added, (_normal_scales, _range_if_taken)),
    "CONV_2D": Policy(f"{_ROUNDED}; int16 builtin, with 64-bit bias", rules=(_biased, *_SUMS)),
    "DEPTHWISE_CONV_2D": Policy(f"{_ROUNDED} beyond 25 taps; {_WIDE_SUMS}", rules=(_biased, *_SUMS)),
    "CUSTOM:TFLite_Detection_PostProcess": Policy("builtin, as ref", _never),
    "DEQUANTIZE": Policy("XNNPACK", rules=(_normal_scales,)),
    "FULLY_CONNECTED": Policy(f"{_ROUNDED}; {_WIDE_SUMS}", rules=_SUMS),
    "MAX_POOL_2D": Policy("XNNPACK; int16 builtin", _max_pooled, (_same_quantization, _range_if_taken)),
    "MEAN": Policy("XNNPACK: fp32; int16 builtin", _eight_bit, (_normal_scales,)),
    "PAD": Policy("XNNPACK moves bytes", rules=(_same_quantization,)),
    "QUANTIZE": Policy("XNNPACK; sign flips, int16 builtin", _converted, (_normal_scales, _flipped, _eights)),
    "SOFTMAX": Policy("builtin of aarch64", _never, (_softmax,)),
    "SUM": Policy(
        "XNNPACK: fp32; integers builtin, int16 saturates", _eight_bit, (_wide_sum, _no_float, _normal_scales)
    ),
    "TRANSPOSE_CONV": Policy(f"{_ROUNDED}; {_WIDE_SUMS}", rules=(_convolved_back, _covered, *_SUMS)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Policy("builtin of aarch64, products in pairs of 16 bits", _never),
}
