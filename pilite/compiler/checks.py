"""What may be compiled: for each operator, the rules under which TFLite's arithmetic is known and promised.

    refusal(node, graph)  ->  the reason and the next step, or None

The rules are those of TFLite's kernels, plus those cases where a kernel computes something that nobody means
(ignored zero points, overflow). A reason says nothing about file and operator; the importer adds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pilite.compiler.graph import ABSENT, Concatenation, Graph, Mean, Node, Quant, Softmax, Tensor
from pilite.compiler.shapes import SHAPES, Mismatch
from pilite.compiler.tensors import FULL_INTEGER, quoted

Rule: TypeAlias = Callable[[Node, Graph], str | None]

EIGHT_BIT = ("int8", "uint8")
MAX_PAD_RANK = 5
AGAIN = "convert the model again"
FLOAT = f"computes in float32; {FULL_INTEGER}"
HYBRID = f"has 8-bit weights and float32 activations (dynamic-range quantization); {FULL_INTEGER}"

# The dimension of the weights that scales may differ along: the output channels.
WEIGHTS_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
# The largest value that each fused activation lets through, by what has to be representable: |limit / scale|.
ACTIVATION_LIMITS = {"NONE": 0.0, "RELU": 0.0, "RELU6": 6.0, "RELU_N1_TO_1": 1.0}


def refusal(node: Node, graph: Graph) -> str | None:
    """The first rule that the operator breaks."""
    reasons = (rule(node, graph) for rule in (_computed, *CHECKS[node.op], _shape))
    return next((reason for reason in reasons if reason), None)


def _activations(node: Node, graph: Graph) -> list[Tensor]:
    """The operands that are values of the model, in contrast to weights and bias."""
    count = 1 if node.op in WEIGHTS_AXIS else len(node.inputs)
    return [graph.tensors[i] for i in node.inputs[:count]]


def _output(node: Node, graph: Graph) -> Tensor:
    return graph.tensors[node.outputs[0]]


def _quant(tensor: Tensor) -> Quant:
    assert tensor.quant is not None  # rule _eight_bit comes before
    return tensor.quant


# Rules for all operators.


def _computed(node: Node, graph: Graph) -> str | None:
    if all(tensor.is_constant for tensor in _activations(node, graph)):
        return f"all its operands are constant; {AGAIN} with constant folding"
    return None


def _shape(node: Node, graph: Graph) -> str | None:
    try:
        expected = SHAPES[node.op](node, graph)
    except Mismatch as e:
        return f"{e}; {AGAIN}"
    y = _output(node, graph)
    if y.shape != expected:
        return (
            f"its output has shape {list(y.shape)} where {list(expected)} follows from its operands; {AGAIN}"
        )
    return None


# Rules for dtypes and quantization.


def _eight_bit(node: Node, graph: Graph) -> str | None:
    """Operands and output are quantized per tensor, all int8 or all uint8."""
    tensors = [*_activations(node, graph), _output(node, graph)]
    dtypes = sorted({tensor.dtype for tensor in tensors})
    if "float32" in dtypes:
        return HYBRID if _has_eight_bit_weights(node, graph) else FLOAT
    if len(dtypes) > 1 or dtypes[0] not in EIGHT_BIT:
        return f"works on {' and '.join(dtypes)}; operands and output must all be int8 or all uint8"
    return next((reason for reason in map(_per_tensor, tensors) if reason), None)


def _has_eight_bit_weights(node: Node, graph: Graph) -> bool:
    return node.op in WEIGHTS_AXIS and graph.tensors[node.inputs[1]].dtype in EIGHT_BIT


def _per_tensor(tensor: Tensor) -> str | None:
    if tensor.quant is None:
        return f"its {tensor.dtype} tensor {quoted(tensor.name)} has no scale; {FULL_INTEGER}"
    count = len(tensor.quant.scales)
    if count > 1:
        return f"its tensor {quoted(tensor.name)} has {count} scales; only weights may; {AGAIN}"
    return None


def _to_eight_bit(node: Node, graph: Graph) -> str | None:
    x, y = _activations(node, graph)[0], _output(node, graph)
    if x.dtype not in (*EIGHT_BIT, "float32") or y.dtype not in EIGHT_BIT:
        return (
            f"turns {x.dtype} into {y.dtype}; only float32, int8 and uint8 into int8 or uint8 can be compiled"
        )
    return _per_tensor(y) or (None if x.dtype == "float32" else _per_tensor(x))


def _to_float(node: Node, graph: Graph) -> str | None:
    x, y = _activations(node, graph)[0], _output(node, graph)
    if x.dtype not in EIGHT_BIT or y.dtype != "float32":
        return f"turns {x.dtype} into {y.dtype}; only int8 or uint8 into float32 can be compiled"
    return _per_tensor(x)


def _view(node: Node, graph: Graph) -> str | None:
    x, y = _activations(node, graph)[0], _output(node, graph)
    if x.dtype != y.dtype or x.dtype not in (*EIGHT_BIT, "float32"):
        return f"shows {x.dtype} as {y.dtype}; only views of int8, uint8 or float32 can be compiled"
    return None


def _equal_quant(node: Node, graph: Graph) -> str | None:
    quants = {tensor.quant for tensor in (*_activations(node, graph), _output(node, graph))}
    return None if len(quants) == 1 else f"its operands and output differ in scale or zero point; {AGAIN}"


# Rules for options.


def _fused_activation(node: Node, graph: Graph) -> str | None:
    activation: str = node.options.activation  # type: ignore[union-attr]  # only in CHECKS of those that have it
    if activation not in ACTIVATION_LIMITS:
        return f"has the fused activation {activation}; TFLite ignores it in quantized models; {AGAIN}"
    scale = _quant(_output(node, graph)).scale
    if ACTIVATION_LIMITS[activation] / scale >= 2**31 - 256:
        return f"its output scale {scale:g} is too small for {activation}; {AGAIN}"
    return None


def _concatenation(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Concatenation)
    if node.options.activation != "NONE":
        return f"has the fused activation {node.options.activation}, which TFLite refuses; {AGAIN}"
    return _equal_quant(node, graph) if _output(node, graph).dtype == "int8" else None


def _softmax(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Softmax)
    x, y = _activations(node, graph)[0], _output(node, graph)
    scale = node.options.beta * _quant(x).scale
    if not x.shape or not scale * 2**26 > 1:
        return f"its input is a scalar or beta times input scale is too small ({scale:g}); {AGAIN}"
    if y.dtype == "int8" and (_quant(y).zero_point != -128 or abs(_quant(y).scale * 256 - 1) > 0.001):
        return f"its output must have scale 1/256 and zero point -128, as TFLite's kernel demands; {AGAIN}"
    return None


def _pad_rank(node: Node, graph: Graph) -> str | None:
    rank = len(_output(node, graph).shape)
    return f"pads {rank} dimensions, more than TFLite's {MAX_PAD_RANK}" if rank > MAX_PAD_RANK else None


# Rules for weights and bias.


def _weights(node: Node, graph: Graph) -> str | None:
    x, w = (graph.tensors[i] for i in node.inputs[:2])
    if not w.is_constant or w.dtype != x.dtype or w.quant is None:
        return f"its weights {quoted(w.name)} must be a constant, quantized {x.dtype} tensor; {FULL_INTEGER}"
    if w.quant.per_axis and w.dtype == "uint8":
        return (
            f"its uint8 weights have {len(w.quant.scales)} scales; only int8 weights may; {AGAIN} with int8"
        )
    if w.quant.per_axis and w.quant.axis != WEIGHTS_AXIS[node.op]:
        return f"its weights have scales along axis {w.quant.axis}, not {WEIGHTS_AXIS[node.op]}; {AGAIN}"
    shifted = any(w.quant.zero_points)
    if shifted and (w.quant.per_axis or (w.dtype == "int8" and node.op != "FULLY_CONNECTED")):
        return f"its int8 weights have zero points other than 0, which TFLite ignores or refuses; {AGAIN}"
    return None


def _bias(node: Node, graph: Graph) -> str | None:
    if node.inputs[2] == ABSENT:
        return None
    w, b = graph.tensors[node.inputs[1]], graph.tensors[node.inputs[2]]
    if not b.is_constant or b.dtype != "int32":
        return f"its bias {quoted(b.name)} ({b.dtype}) must be an int32 constant; {AGAIN}"
    channels = w.shape[WEIGHTS_AXIS[node.op]] if w.shape else 0
    if b.shape != (channels,):
        return f"its bias has shape {list(b.shape)}, but there are {channels} output channels; {AGAIN}"
    if b.quant is not None and any(b.quant.zero_points):
        return f"its bias has a zero point other than 0; {AGAIN}"
    return _bias_scale(node, graph, b)


def _bias_scale(node: Node, graph: Graph, b: Tensor) -> str | None:
    """TFLite's gate, where it has one: bias scale and product of scales agree to 0.02 steps of the output."""
    x, w, y = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], _output(node, graph)
    if x.dtype == "int8" and (node.op != "FULLY_CONNECTED" or _quant(w).per_axis):
        return None
    product = float(np.float32(_quant(x).scale) * np.float32(_quant(w).scale))
    scale = 0.0 if b.quant is None or b.quant.per_axis else b.quant.scale
    if abs(product - scale) / _quant(y).scale > 0.02:
        return f"its bias has scale {scale:g} where input and weights make {product:g}; {AGAIN}"
    return None


# Rules against overflow: what TFLite computes then is undefined in C++.


def _overflows(largest: float, ratio: float) -> bool:
    """Does an integer up to `largest` leave int32 when a multiplier `ratio` >= 1 shifts it to the left?"""
    return largest * 2.0 ** max(math.frexp(ratio)[1], 0) >= 2**31


def _reach(tensor: Tensor) -> int:
    """The largest |q - zero_point|."""
    limits, zero_point = np.iinfo(tensor.dtype), _quant(tensor).zero_point
    return max(int(limits.max) - zero_point, zero_point - int(limits.min))


TOO_SMALL = f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}"


def _accumulator(node: Node, graph: Graph) -> str | None:
    x, w, y = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], _output(node, graph)
    ratio = _quant(x).scale * max(_quant(w).scales) / _quant(y).scale
    if ratio < 1:
        return None
    assert w.data is not None
    taps = np.abs(w.data.astype(np.int64) - _quant(w).zero_point)
    others = tuple(i for i in range(taps.ndim) if i != WEIGHTS_AXIS[node.op])
    largest = _reach(x) * int(taps.sum(others).max()) + _largest_bias(node, graph)
    return TOO_SMALL if _overflows(largest, ratio) else None


def _largest_bias(node: Node, graph: Graph) -> int:
    data = None if node.inputs[2] == ABSENT else graph.tensors[node.inputs[2]].data
    return 0 if data is None else int(np.abs(data.astype(np.int64)).max())


def _sum(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Mean)
    x, y = _activations(node, graph)[0], _output(node, graph)
    count = math.prod(x.shape[axis] for axis in node.options.axes)
    if 256 * count >= 2**31:
        return f"sums {count} values, more than TFLite's 32-bit sum holds; pool in two steps"
    # TFLite divides the multiplier by the count, but its exponent only by the power of two below.
    ratio = _quant(x).scale / _quant(y).scale / 2 ** (count.bit_length() - 1)
    return TOO_SMALL if _overflows(_reach(x) * count, ratio) else None


def _rescale(node: Node, graph: Graph) -> str | None:
    x, y = _activations(node, graph)[0], _output(node, graph)
    if x.dtype == "float32":
        return None
    return TOO_SMALL if _overflows(_reach(x), _quant(x).scale / _quant(y).scale) else None


def _add_scales(node: Node, graph: Graph) -> str | None:
    largest = max(_quant(tensor).scale for tensor in _activations(node, graph))
    scale = float(np.float32(2**20) * np.float32(_quant(_output(node, graph)).scale))
    return TOO_SMALL if 2 * largest / scale >= 1 - 2**-32 else None


def _per_channel_rank(node: Node, graph: Graph) -> str | None:
    """TFLite 2.14 takes the output's first two dimensions for rows and channels, the rest stays unwritten."""
    w, rank = graph.tensors[node.inputs[1]], len(_output(node, graph).shape)
    if _quant(w).per_axis and rank != 2:
        return f"has a scale per channel and {rank} output dimensions; TFLite 2.14 computes only 2; {AGAIN}"
    return None


WEIGHTED: tuple[Rule, ...] = (_eight_bit, _weights, _bias, _fused_activation, _accumulator)
CHECKS: dict[str, tuple[Rule, ...]] = {
    "ADD": (_eight_bit, _fused_activation, _add_scales),
    "AVERAGE_POOL_2D": (_eight_bit, _fused_activation),
    "CONCATENATION": (_eight_bit, _concatenation),
    "CONV_2D": WEIGHTED,
    "DEPTHWISE_CONV_2D": WEIGHTED,
    "DEQUANTIZE": (_to_float,),
    "EXPAND_DIMS": (_view, _equal_quant),
    "FULLY_CONNECTED": (*WEIGHTED, _per_channel_rank),
    "MAX_POOL_2D": (_eight_bit, _fused_activation),
    "MEAN": (_eight_bit, _sum),
    "PAD": (_eight_bit, _pad_rank),
    "PADV2": (_eight_bit, _pad_rank),
    "QUANTIZE": (_to_eight_bit, _rescale),
    "RESHAPE": (_view,),
    "SOFTMAX": (_eight_bit, _softmax),
    "SQUEEZE": (_view,),
}
