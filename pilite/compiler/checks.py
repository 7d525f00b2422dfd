"""What may be compiled: for each operator, the rules under which TFLite's arithmetic is known and promised.

    refusal(node, graph, numerics)  ->  the reason and the next step, or None

The rules are those of TFLite's kernels, plus those cases where a kernel computes something that nobody means
(ignored zero points, overflow). Rules that operators share are in rules.py.
"""

from __future__ import annotations

import math

from pilite.compiler import detection, elements, images, moves, recurrent, shapes
from pilite.compiler.fixedpoint16 import RANGE
from pilite.compiler.graph import (
    ABSENT,
    Concatenation,
    Graph,
    Mean,
    Node,
    Normalization,
    Pool2D,
    Softmax,
    Tensor,
)
from pilite.compiler.operands import Mismatch
from pilite.compiler.rules import (
    AGAIN,
    EIGHT_BIT,
    TOO_SMALL,
    Rule,
    accumulator,
    activations,
    bias,
    eight_bit,
    equal_quant,
    fused_activation,
    output,
    overflows,
    quant,
    quantized,
    reach,
    rescale,
    sums_of_bytes,
    to_float,
    to_quantized,
    weights,
)
from pilite.compiler.tensors import quoted

MAX_PAD_RANK = 5
MAX_NORMALIZED_RANK = 4
MOST_CLASSES = 2**16  # of SOFTMAX on 16-bit values: its sum has 16 bits and 15 of fraction


def refusal(node: Node, graph: Graph, numerics: str = "ref", *, may_be_constant: bool = False) -> str | None:
    """The first rule that the operator breaks. `may_be_constant`: all its operands, that is."""
    own = (*CHECKS[node.op], *(OF_REF.get(node.op, ()) if numerics == "ref" else ()))
    last = (_shape,) if may_be_constant else (_shape, _computed)
    reasons = (rule(node, graph) for rule in (_stateless, _symmetric, *own, *last))
    return next((reason for reason in reasons if reason), None)


# Rules for all operators.


def _stateless(node: Node, graph: Graph) -> str | None:
    tensors = [graph.tensors[i] for i in (*node.inputs, *node.outputs) if i != ABSENT]
    state = next((t for t in tensors if t.is_variable), None)
    if state is None or node.op == recurrent.OP:
        return None
    return f"tensor {state.index} {quoted(state.name)} keeps a state between runs; only {recurrent.OP} may"


def _computed(node: Node, graph: Graph) -> str | None:
    if all(tensor.is_constant for tensor in activations(node, graph)):
        return f"all its operands are constant; {AGAIN} with constant folding"
    return None


def _symmetric(node: Node, graph: Graph) -> str | None:
    """TFLite's 16-bit kernels demand zero points of 0, or ignore others."""
    tensors = [*activations(node, graph), *(graph.tensors[i] for i in node.outputs)]
    shifted = any(t.dtype == "int16" and t.quant is not None and any(t.quant.zero_points) for t in tensors)
    return f"its int16 values have a zero point other than 0; {AGAIN}" if shifted else None


def _shape(node: Node, graph: Graph) -> str | None:
    try:
        expected = shapes.outputs(node, graph)
    except Mismatch as e:
        return f"{e}; {AGAIN}"
    found = [graph.tensors[i].shape for i in node.outputs]
    if len(found) != len(expected):
        return f"it has {len(found)} outputs where {len(expected)} follow from its operands; {AGAIN}"
    wrong = next((pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]), None)
    if wrong is None:
        return None
    given, right = map(list, wrong)
    return f"its output has shape {given} where {right} follows from its operands; {AGAIN}"


# Rules of one operator.


def _concatenation(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Concatenation)
    if node.options.activation != "NONE":
        return f"has the fused activation {node.options.activation}, which TFLite refuses; {AGAIN}"
    if output(node, graph).dtype in ("int8", "int16"):
        return equal_quant(node, graph)
    return _rescaled(node, graph) if output(node, graph).dtype == "uint8" else None


def _rescaled(node: Node, graph: Graph) -> str | None:
    """TFLite scales uint8 operands in float32 and rounds them to int32."""
    scale = quant(output(node, graph)).scale
    ratios = (reach(x) * (quant(x).scale / scale) for x in activations(node, graph))
    return TOO_SMALL if max(ratios) >= 2**30 else None


def _quantized_if_bytes(node: Node, graph: Graph) -> str | None:
    """Values of other dtypes move as they are."""
    if output(node, graph).dtype in EIGHT_BIT:
        return eight_bit(node, graph)
    return moves.movable(node, graph)


def _softmax(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Softmax)
    x, y = activations(node, graph)[0], output(node, graph)
    scale = node.options.beta * quant(x).scale
    if not x.shape or not scale * 2**26 > 1:
        return f"its input is a scalar or beta times input scale is too small ({scale:g}); {AGAIN}"
    if y.dtype == "int16":
        return _wide_softmax(x, y, scale)
    if y.dtype == "int8" and (quant(y).zero_point != -128 or abs(quant(y).scale * 256 - 1) > 0.001):
        return f"its output must have scale 1/256 and zero point -128, as TFLite's kernel demands; {AGAIN}"
    return None


def _wide_softmax(x: Tensor, y: Tensor, scale: float) -> str | None:
    """`scale`: beta times that of the input."""
    if abs(quant(y).scale * 32768 - 1) > 0.001:
        return f"its output must have scale 1/32768, as TFLite's kernel demands; {AGAIN}"
    if x.shape[-1] > MOST_CLASSES:
        return f"has {x.shape[-1]} classes, more than the {MOST_CLASSES} of TFLite's 32-bit sum; use less"
    if overflows(2**16, scale / (RANGE / 65535)):
        return f"beta times its input scale ({scale:g}) is so large that TFLite's 32 bits overflow; {AGAIN}"
    return None


def _total(node: Node, graph: Graph) -> str | None:
    """Quantized sums are scaled, sums of numbers are as they come."""
    if output(node, graph).dtype in EIGHT_BIT:
        return eight_bit(node, graph) or _sum(node, graph)
    wrapping = output(node, graph).dtype == "int16"  # as numbers are
    return moves.movable(node, graph) or (equal_quant(node, graph) if wrapping else None)


def _pad_rank(node: Node, graph: Graph) -> str | None:
    rank = len(output(node, graph).shape)
    return f"pads {rank} dimensions, more than TFLite's {MAX_PAD_RANK}" if rank > MAX_PAD_RANK else None


def _sum(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Mean)
    x, y = activations(node, graph)[0], output(node, graph)
    count = math.prod(x.shape[axis] for axis in node.options.axes)
    if (2**15 if x.dtype == "int16" else 2**8) * count >= 2**31:
        return f"sums {count} values, more than TFLite's 32-bit sum holds; pool in two steps"
    # TFLite divides the multiplier by the count, but its exponent only by the power of two below.
    divisor = 1 if node.op == "SUM" else 2 ** (count.bit_length() - 1)
    ratio = quant(x).scale / quant(y).scale / divisor
    return TOO_SMALL if overflows(reach(x) * count, ratio) else None


def _window_sum(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Pool2D)
    count = math.prod(node.options.window)
    if output(node, graph).dtype != "int16" or count < 2**16:
        return None
    return f"sums {count} values, more than TFLite's 32-bit sum holds; pool in two steps"


def _per_channel_rank(node: Node, graph: Graph) -> str | None:
    """TFLite 2.14 takes the output's first two dimensions for rows and channels, the rest stays unwritten."""
    w, rank = graph.tensors[node.inputs[1]], len(output(node, graph).shape)
    if quant(w).per_axis and rank != 2:
        return (
            f"has scales per channel and {rank} output dimensions, TFLite 2.14 computes 2; "
            "use `--numerics xnnpack`"
        )
    return None


def _normalization(node: Node, graph: Graph) -> str | None:
    x, y = activations(node, graph)[0], output(node, graph)
    assert isinstance(node.options, Normalization)
    if node.options.activation != "NONE":
        return f"has the fused activation {node.options.activation}, which TFLite refuses; {AGAIN}"
    if not 1 <= len(x.shape) <= MAX_NORMALIZED_RANK:
        return f"has {len(x.shape)} dimensions; TFLite's kernel takes 1 to {MAX_NORMALIZED_RANK}"
    if reach(x) ** 2 * x.shape[-1] >= 2**31:
        return f"sums {x.shape[-1]} squares, more than TFLite's 32-bit sum holds; use a shorter last axis"
    middle = 128 if y.dtype == "uint8" else 0
    if (quant(y).scale, quant(y).zero_point) != (1 / 128, middle):
        return (
            f"its output must have scale 1/128 and zero point {middle}, as TFLite's kernel demands; {AGAIN}"
        )
    return None


WEIGHTED: tuple[Rule, ...] = (sums_of_bytes, weights, bias, fused_activation, accumulator)
CHECKS: dict[str, tuple[Rule, ...]] = {
    **elements.CHECKS,
    **images.CHECKS,
    **moves.CHECKS,
    detection.OP: detection.CHECKS,
    recurrent.OP: recurrent.CHECKS,
    "AVERAGE_POOL_2D": (quantized, fused_activation, _window_sum),
    "CONCATENATION": (_quantized_if_bytes, _concatenation),
    "CONV_2D": WEIGHTED,
    "DEPTHWISE_CONV_2D": WEIGHTED,
    "DEQUANTIZE": (to_float,),
    "EXPAND_DIMS": (moves.movable, equal_quant),
    "FULLY_CONNECTED": WEIGHTED,
    "L2_NORMALIZATION": (eight_bit, _normalization),
    "MAX_POOL_2D": (quantized, fused_activation),
    "MEAN": (quantized, _sum),
    "PAD": (_quantized_if_bytes, _pad_rank),
    "PADV2": (_quantized_if_bytes, _pad_rank),
    "QUANTIZE": (to_quantized, rescale),
    "REDUCE_MAX": (moves.movable, equal_quant),
    "REDUCE_MIN": (moves.movable, equal_quant),
    "RESHAPE": (moves.movable,),
    "SOFTMAX": (quantized, _softmax),
    "SQUEEZE": (moves.movable,),
    "SUM": (_total,),
    "TRANSPOSE_CONV": WEIGHTED,
}
# Where older kernels, which numerics ref promises, compute nothing that is meant.
OF_REF: dict[str, tuple[Rule, ...]] = {"FULLY_CONNECTED": (_per_channel_rank,)}
