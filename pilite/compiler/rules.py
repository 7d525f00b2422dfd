"""Rules that several operators share: what TFLite's kernels demand of dtypes, quantization, weights and bias.

    rule(node, graph)  ->  the reason why the operator cannot be compiled and the next step, or None

A reason says nothing about file and operator; the importer adds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pilite.compiler.graph import ABSENT, Graph, Lstm, Node, Quant, Tensor
from pilite.compiler.tensors import FULL_INTEGER, quoted

Rule: TypeAlias = Callable[[Node, Graph], str | None]

EIGHT_BIT = ("int8", "uint8")
# What QUANTIZE makes of each dtype.
QUANTIZED_FROM = {
    "float32": ("int8", "uint8", "int16"),
    "int8": ("int8", "uint8"),
    "uint8": ("int8", "uint8"),
    "int16": ("int8", "int16"),
}
SIXTEEN_BIT = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
AGAIN = "convert the model again"
FLOAT = f"computes in float32; {FULL_INTEGER}"
HYBRID = (
    "has 8-bit weights and float32 activations (dynamic-range quantization); give the converter a "
    "representative_dataset, so that activations become 8-bit, too (full-integer quantization)"
)

# The dimension of the weights that scales may differ along: the output channels.
WEIGHTS_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
# The largest value that each fused activation lets through, by what has to be representable: |limit / scale|.
ACTIVATION_LIMITS = {"NONE": 0.0, "RELU": 0.0, "RELU6": 6.0, "RELU_N1_TO_1": 1.0}


def activations(node: Node, graph: Graph) -> list[Tensor]:
    """The operands that are values of the model, in contrast to weights and bias."""
    count = 1 if node.op in WEIGHTS_AXIS or isinstance(node.options, Lstm) else len(node.inputs)
    return [graph.tensors[i] for i in node.inputs[:count]]


def output(node: Node, graph: Graph) -> Tensor:
    return graph.tensors[node.outputs[0]]


def quant(tensor: Tensor) -> Quant:
    assert tensor.quant is not None  # rule eight_bit comes before
    return tensor.quant


# Rules for dtypes and quantization.


def eight_bit(node: Node, graph: Graph) -> str | None:
    """Operands and output are quantized per tensor, all int8 or all uint8."""
    tensors = [*activations(node, graph), output(node, graph)]
    dtypes = sorted({tensor.dtype for tensor in tensors})
    if "float32" in dtypes:
        return HYBRID if has_eight_bit_weights(node, graph) else FLOAT
    if len(dtypes) > 1 or dtypes[0] not in EIGHT_BIT:
        found = " and ".join(dtypes)
        return f"works on {found}; operands and output must all be int8 or all uint8; {AGAIN}"
    return next((reason for reason in map(per_tensor, tensors) if reason), None)


def quantized(node: Node, graph: Graph) -> str | None:
    """As eight_bit, or all int16."""
    tensors = [*activations(node, graph), output(node, graph)]
    if any(tensor.dtype != "int16" for tensor in tensors):
        return eight_bit(node, graph)
    return next((reason for reason in map(per_tensor, tensors) if reason), None)


def sums_of_bytes(node: Node, graph: Graph) -> str | None:
    """As eight_bit, or 16-bit values with 8-bit weights, for the operators that have such a kernel."""
    x, y = activations(node, graph)[0], output(node, graph)
    if "int16" not in (x.dtype, y.dtype) or node.op not in SIXTEEN_BIT:
        return eight_bit(node, graph)
    if x.dtype != y.dtype:
        return f"works on {x.dtype} and {y.dtype}; operands and output must be of one dtype; {AGAIN}"
    if node.inputs[2] == ABSENT and node.op == "CONV_2D":
        return f"has 16-bit values and no bias, which TFLite refuses; {AGAIN}"
    return per_tensor(x) or per_tensor(y)


def operand(node: Node, graph: Graph, i: int) -> Tensor | None:
    """Its operand i; None if it has none there."""
    index = node.inputs[i] if i < len(node.inputs) else ABSENT
    return None if index == ABSENT else graph.tensors[index]


def has_narrow_sums(node: Node, graph: Graph) -> bool:
    """TFLite sums products of int16 in 32 bits where the bias has those. Without a bias only
    DEPTHWISE_CONV_2D sums in 64.
    """
    bias = operand(node, graph, 2)
    return node.op != "DEPTHWISE_CONV_2D" and (bias is None or bias.dtype == "int32")


def has_eight_bit_weights(node: Node, graph: Graph) -> bool:
    return node.op in WEIGHTS_AXIS and graph.tensors[node.inputs[1]].dtype in EIGHT_BIT


def per_tensor(tensor: Tensor) -> str | None:
    if tensor.quant is None:
        return f"its {tensor.dtype} tensor {quoted(tensor.name)} has no scale; {FULL_INTEGER}"
    count = len(tensor.quant.scales)
    if count > 1:
        return f"its tensor {quoted(tensor.name)} has {count} scales; only weights may; {AGAIN}"
    return None


def to_quantized(node: Node, graph: Graph) -> str | None:
    x, y = activations(node, graph)[0], output(node, graph)
    if x.dtype not in QUANTIZED_FROM:
        return f"turns {x.dtype} into {y.dtype}; it takes {', '.join(QUANTIZED_FROM)}; {AGAIN}"
    if y.dtype not in QUANTIZED_FROM[x.dtype]:
        return f"turns {x.dtype} into {y.dtype}; TFLite makes {' or '.join(QUANTIZED_FROM[x.dtype])}; {AGAIN}"
    return per_tensor(y) or (None if x.dtype == "float32" else per_tensor(x))


def to_float(node: Node, graph: Graph) -> str | None:
    x, y = activations(node, graph)[0], output(node, graph)
    if x.dtype not in (*EIGHT_BIT, "int16") or y.dtype != "float32":
        return (
            f"turns {x.dtype} into {y.dtype}; only int8, uint8 or int16 into float32 can be compiled; {AGAIN}"
        )
    return per_tensor(x)


def equal_quant(node: Node, graph: Graph) -> str | None:
    outputs = (graph.tensors[i] for i in node.outputs)
    quants = {tensor.quant for tensor in (*activations(node, graph), *outputs)}
    return None if len(quants) == 1 else f"its operands and output differ in scale or zero point; {AGAIN}"


# Rules for options.


def fused_activation(node: Node, graph: Graph) -> str | None:
    activation: str = node.options.activation  # type: ignore[union-attr]  # only in CHECKS of those that have it
    if activation not in ACTIVATION_LIMITS:
        return f"has the fused activation {activation}; TFLite ignores it in quantized models; {AGAIN}"
    if output(node, graph).dtype not in (*EIGHT_BIT, "int16"):
        return None
    scale = quant(output(node, graph)).scale
    if ACTIVATION_LIMITS[activation] / scale >= 2**31 - 256:
        return f"its output scale {scale:g} is too small for {activation}; {AGAIN}"
    return None


# Rules for weights and bias.


def weights(node: Node, graph: Graph) -> str | None:
    x, w = (graph.tensors[i] for i in node.inputs[:2])
    wanted = "int8" if x.dtype == "int16" else x.dtype
    if not w.is_constant or w.dtype != wanted or w.quant is None:
        return f"its weights {quoted(w.name)} must be a constant, quantized {wanted} tensor; {FULL_INTEGER}"
    if w.quant.per_axis and w.dtype == "uint8":
        return (
            f"its uint8 weights have {len(w.quant.scales)} scales; only int8 weights may; {AGAIN} with int8"
        )
    if w.quant.per_axis and w.quant.axis != WEIGHTS_AXIS[node.op]:
        return f"its weights have scales along axis {w.quant.axis}, not {WEIGHTS_AXIS[node.op]}; {AGAIN}"
    shifted = any(w.quant.zero_points)
    plain = node.op == "FULLY_CONNECTED" and x.dtype != "int16"
    if shifted and (w.quant.per_axis or (w.dtype == "int8" and not plain)):
        return f"its int8 weights have zero points other than 0, which TFLite ignores or refuses; {AGAIN}"
    return None


def bias(node: Node, graph: Graph) -> str | None:
    if node.inputs[2] == ABSENT:
        return None
    w, b = graph.tensors[node.inputs[1]], graph.tensors[node.inputs[2]]
    wanted = ("int64", "int32") if graph.tensors[node.inputs[0]].dtype == "int16" else ("int32",)
    wanted = wanted[:1] if node.op == "DEPTHWISE_CONV_2D" else wanted
    if not b.is_constant or b.dtype not in wanted:
        return f"its bias {quoted(b.name)} ({b.dtype}) must be an {' or '.join(wanted)} constant; {AGAIN}"
    channels = w.shape[WEIGHTS_AXIS[node.op]] if w.shape else 0
    any_shape = node.op != "DEPTHWISE_CONV_2D"  # whose kernel demands one dimension; others count values
    if b.shape != (channels,) and not (any_shape and b.elements == channels):
        return f"its bias has shape {list(b.shape)}, but there are {channels} output channels; {AGAIN}"
    if b.quant is not None and any(b.quant.zero_points):
        return f"its bias has a zero point other than 0; {AGAIN}"
    return bias_scale(node, graph, b)


def bias_scale(node: Node, graph: Graph, b: Tensor) -> str | None:
    """TFLite's gate, where it has one: bias scale and product of scales agree to 0.02 steps of the output."""
    x, w, y = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], output(node, graph)
    if x.dtype in ("int8", "int16") and (node.op != "FULLY_CONNECTED" or quant(w).per_axis):
        return None
    product = float(np.float32(quant(x).scale) * np.float32(quant(w).scale))
    scale = 0.0 if b.quant is None or b.quant.per_axis else b.quant.scale
    if abs(product - scale) / quant(y).scale > 0.02:
        return f"its bias has scale {scale:g} where input and weights make {product:g}; {AGAIN}"
    return None


# Rules against overflow: what TFLite computes then is undefined in C++.


def overflows(largest: float, ratio: float) -> bool:
    """Does an integer up to `largest` leave int32 when a multiplier `ratio` >= 1 shifts it to the left?"""
    return largest * 2.0 ** max(math.frexp(ratio)[1], 0) >= 2**31


def reach(tensor: Tensor) -> int:
    """The largest |q - zero_point|."""
    limits, zero_point = np.iinfo(tensor.dtype), quant(tensor).zero_point
    return max(int(limits.max) - zero_point, zero_point - int(limits.min))


TOO_SMALL = f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}"


def accumulator(node: Node, graph: Graph) -> str | None:
    x, w, y = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], output(node, graph)
    ratio = quant(x).scale * max(quant(w).scales) / quant(y).scale
    if x.dtype == "int16" and not has_narrow_sums(node, graph):
        return TOO_SMALL if ratio >= 2**7 or largest_bias(node, graph) >= 2**46 else None
    if ratio < 1:
        return None
    assert w.data is not None
    taps = np.abs(w.data.astype(np.int64) - quant(w).zero_point)
    others = tuple(i for i in range(taps.ndim) if i != WEIGHTS_AXIS[node.op])
    largest = reach(x) * int(taps.sum(others).max()) + largest_bias(node, graph)
    return TOO_SMALL if overflows(largest, ratio) else None


def largest_bias(node: Node, graph: Graph) -> int:
    bias = operand(node, graph, 2)
    return 0 if bias is None or bias.data is None else int(np.abs(bias.data.astype(np.int64)).max())


def rescale(node: Node, graph: Graph) -> str | None:
    x, y = activations(node, graph)[0], output(node, graph)
    if x.dtype == "float32":
        return None
    return TOO_SMALL if overflows(reach(x), quant(x).scale / quant(y).scale) else None
