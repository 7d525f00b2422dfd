"""The door of the operators that compute element by element: their output shapes and rules.

Operands broadcast as in numpy. A dtype is allowed where TFLite's reference kernel gives the same bits on
every machine; float32 only where each result is one IEEE operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np

from pilite.compiler.fixedpoint import Multiplier
from pilite.compiler.fixedpoint16 import CLOSE, LOGF, from_power, powers
from pilite.compiler.graph import Add, Graph, LeakyRelu, Node, Tensor
from pilite.compiler.operands import Mismatch
from pilite.compiler.rules import (
    AGAIN,
    EIGHT_BIT,
    FLOAT,
    TOO_SMALL,
    Rule,
    activations,
    eight_bit,
    fused_activation,
    output,
    overflows,
    per_tensor,
    quant,
    quantized,
    reach,
    rescale,
)

Shape = tuple[int, ...]
# Dimensions that TFLite's broadcasting kernels take.
MOST_BROADCAST = 4
MORE_BROADCAST = {"ADD": 6, **dict.fromkeys(("DIV", "MAXIMUM", "MINIMUM", "SELECT_V2", "SUB"), 5)}
MOST_SHIFTED = 15  # bits that an int16 value moves down to be added
COMPARISONS = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL")
SELECTIONS = ("SELECT", "SELECT_V2")
# What an operator computes in besides quantized int8 and uint8.
NUMBERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ADD", "MUL", "SUB"), ("int16", "int32", "float32")),
    **dict.fromkeys(("DIV", "FLOOR_DIV", "NEG"), ("int32", "float32")),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), ("int16", "int32", "int64", "float32")),
    **dict.fromkeys(SELECTIONS, ("bool", "int16", "int32", "int64", "float32")),
    **dict.fromkeys(COMPARISONS, ("int32", "int64", "float32")),
    **dict.fromkeys(("GREATER_EQUAL", "LESS"), ("int16", "int32", "int64", "float32")),
    "EQUAL": ("bool", "int16", "int32", "int64", "float32"),
    "NOT_EQUAL": ("bool", "int32", "int64", "float32"),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT"), ("bool",)),
    "SQRT": ("float32",),
    "SQUARED_DIFFERENCE": ("int32", "float32"),
}
NOT_QUANTIZED = ("DIV", "FLOOR_DIV", "LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR", "NEG", "SQRT")
CASTABLE = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")


# Shapes.


def broadcast(node: Node, graph: Graph) -> Shape:
    shapes = [graph.tensors[i].shape for i in node.inputs]
    sizes = []
    for column in zip_longest(*map(reversed, shapes), fillvalue=1):
        size = max(column)
        if any(n not in (1, size) for n in column):
            raise Mismatch(f"its operands have shapes {' and '.join(str(list(s)) for s in shapes)}")
        sizes.append(size)
    return tuple(reversed(sizes))


def _same(node: Node, graph: Graph) -> Shape:
    return graph.tensors[node.inputs[0]].shape


def _sloped(node: Node, graph: Graph) -> Shape:
    """PRELU: slopes broadcast to the values, not the other way round."""
    x, slopes = (list(graph.tensors[i].shape) for i in node.inputs)
    if list(broadcast(node, graph)) != x:
        raise Mismatch(f"its slopes have shape {slopes}, which is larger than its input's {x}")
    return tuple(x)


def _selected(node: Node, graph: Graph) -> Shape:
    """SELECT: a condition per element, one for all, or one per row."""
    condition, x, y = (graph.tensors[i].shape for i in node.inputs)
    if x != y or condition not in (x, (), x[:1]):
        raise Mismatch(f"its operands have shapes {list(condition)}, {list(x)} and {list(y)}")
    return x


UNARY = (
    "ABS",
    "CAST",
    "EXP",
    "GELU",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGICAL_NOT",
    "LOGISTIC",
    "NEG",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "RSQRT",
    "SQRT",
    "TANH",
)
BROADCASTING = (
    "ADD",
    "DIV",
    "FLOOR_DIV",
    "LOGICAL_AND",
    "LOGICAL_OR",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "SELECT_V2",
    "SQUARED_DIFFERENCE",
    "SUB",
    *COMPARISONS,
)
SHAPES: dict[str, Callable[[Node, Graph], Shape]] = {
    **dict.fromkeys(UNARY, _same),
    **dict.fromkeys(BROADCASTING, broadcast),
    "PRELU": _sloped,
    "SELECT": _selected,
}


# Rules.


def numbers(node: Node, graph: Graph) -> str | None:
    """Operands and output have one dtype of NUMBERS, or are quantized."""
    return _one_kind(node, [*activations(node, graph), output(node, graph)]) or _quantized(node, graph)


def _one_kind(node: Node, tensors: list[Tensor]) -> str | None:
    plain = NUMBERS.get(node.op, ())
    allowed = plain if node.op in NOT_QUANTIZED else (*EIGHT_BIT, *plain)
    dtypes = sorted({tensor.dtype for tensor in tensors})
    if dtypes == ["float32"] and "float32" not in allowed:
        return FLOAT
    if len(dtypes) > 1 or dtypes[0] not in allowed:
        found, wanted = " and ".join(dtypes), ", ".join(allowed)
        return f"works on {found}; operands and output must have one dtype of {wanted}; {AGAIN}"
    return None


def _quantized(node: Node, graph: Graph) -> str | None:
    return eight_bit(node, graph) if output(node, graph).dtype in EIGHT_BIT else None


def _few_dimensions(node: Node, graph: Graph) -> str | None:
    shapes = {graph.tensors[i].shape for i in node.inputs}
    rank = max(map(len, shapes))
    most = most_broadcast(node.op)
    if len(shapes) > 1 and rank > most:
        return f"broadcasts {rank} dimensions, more than TFLite's {most}; reshape its operands"
    return None


def most_broadcast(op: str) -> int:
    return MORE_BROADCAST.get(op, MOST_BROADCAST)


def _sum_scales(node: Node, graph: Graph) -> str | None:
    """TFLite's kernel takes output multipliers below one only."""
    if output(node, graph).dtype not in (*EIGHT_BIT, "int16"):
        return None
    largest = max(quant(tensor).scale for tensor in activations(node, graph))
    shift = 15 if output(node, graph).dtype == "int16" else 20
    scale = float(np.float32(2**shift) * np.float32(quant(output(node, graph)).scale))
    return TOO_SMALL if 2 * largest / scale >= 1 - 2**-32 else None


def _square_scale(node: Node, graph: Graph) -> str | None:
    """As _sum_scales, of a square: 14 bits up."""
    if output(node, graph).dtype != "int8":
        return None
    largest = max(quant(tensor).scale for tensor in activations(node, graph))
    ratio = (2 * largest) ** 2 / (2**14 * quant(output(node, graph)).scale)
    return TOO_SMALL if ratio >= 1 - 2**-32 else None


def _words(node: Node, graph: Graph) -> str | None:
    """Of int16 numbers without a scale TFLite's kernels compute nothing."""
    return quantized(node, graph) if output(node, graph).dtype == "int16" else None


def _powers(node: Node, graph: Graph) -> str | None:
    """TFLite shifts instead of multiplying where all scales are nearly powers of two and options allow it."""
    assert isinstance(node.options, Add)
    tensors = [*activations(node, graph), output(node, graph)]
    if tensors[0].dtype != "int16" or not node.options.pot_scale_int16:
        return None
    scales = [quant(tensor).scale for tensor in tensors]
    if CLOSE - LOGF <= max(map(from_power, scales)) < CLOSE + LOGF:
        where = "are where machines disagree whether they are powers of two"
        return f"its int16 scales {_listed(scales)} {where}; {AGAIN} with other data"
    found = powers(*scales)
    if found is None:
        return None
    if max(found[:2]) != found[2] or min(found[:2]) < found[2] - MOST_SHIFTED:
        demanded = f"one operand with the output's and the other with 1 to 2**-{MOST_SHIFTED} of it"
        return (
            f"its int16 scales {_listed(scales)} are powers of two, which TFLite adds as {demanded}; {AGAIN}"
        )
    if node.op == "ADD" and tensors[0].shape != tensors[1].shape:
        return f"broadcasts int16 values whose scales are powers of two, which TFLite cannot; {AGAIN}"
    return None


def _listed(scales: Sequence[float]) -> str:
    return " and ".join(f"{scale:g}" for scale in scales)


def _clear_of_powers(node: Node, graph: Graph) -> str | None:
    """LOGISTIC and TANH of int16 go another way close to a power of two; the machine's logf decides where."""
    x = activations(node, graph)[0]
    if x.dtype != "int16" or abs(from_power(quant(x).scale) - CLOSE) >= LOGF:
        return None
    scale = f"its input scale {quant(x).scale:g} is where machines disagree whether it is a power of two"
    return f"{scale}; {AGAIN} with other data"


def _product(node: Node, graph: Graph) -> str | None:
    if output(node, graph).dtype not in (*EIGHT_BIT, "int16"):
        return None
    a, b = activations(node, graph)
    ratio = quant(a).scale * quant(b).scale / quant(output(node, graph)).scale
    return TOO_SMALL if overflows(reach(a) * reach(b), ratio) else None


def _leaky(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, LeakyRelu)
    x, alpha = activations(node, graph)[0], node.options.alpha
    if not math.isfinite(alpha):
        return f"has the slope {alpha:g}, which TFLite's fixed point cannot hold; use a finite one"
    ratio = quant(x).scale * abs(alpha) / quant(output(node, graph)).scale
    return TOO_SMALL if overflows(reach(x), ratio) else None


def _swish(node: Node, graph: Graph) -> str | None:
    """TFLite's 16-bit arithmetic shifts its product to the right by 0 to 15 bits."""
    x, y = activations(node, graph)[0], output(node, graph)
    ratio = float(np.float32(np.float32(quant(x).scale) / 128) / np.float32(quant(y).scale))
    if 0 <= -Multiplier.of(ratio).exponent <= 15:
        return None
    scales = f"{quant(x).scale:g} and {quant(y).scale:g}"
    return f"its scales {scales} are too far apart for TFLite's 16 bits; {AGAIN}"


def _exponential(node: Node, graph: Graph) -> str | None:
    """TFLite turns the result in steps of the output into int32."""
    x, y = activations(node, graph)[0], output(node, graph)
    largest = quant(x).scale * (int(np.iinfo(x.dtype).max) - quant(x).zero_point)
    return TOO_SMALL if largest - math.log(quant(y).scale) >= 31 * math.log(2) - 0.01 else None


def _inverse_root(node: Node, graph: Graph) -> str | None:
    """TFLite scales an inverse root with 20 bits of fraction."""
    scale = quant(activations(node, graph)[0]).scale
    ratio = 1 / (math.sqrt(scale) * quant(output(node, graph)).scale)
    return TOO_SMALL if overflows(2**20, ratio / 2**20) else None


def _fixed_output(scale: float, offset: int) -> Rule:
    """TFLite demands the output's scale and its zero point, counted from the smallest value; 1/32768 and 0 of
    int16.
    """

    def rule(node: Node, graph: Graph) -> str | None:
        y = output(node, graph)
        demanded = (scale, offset + int(np.iinfo(y.dtype).min)) if y.dtype in EIGHT_BIT else (1 / 32768, 0)
        if (quant(y).scale, quant(y).zero_point) != demanded:
            wanted = f"scale 1/{round(1 / demanded[0])} and zero point {demanded[1]}"
            return f"its output must have {wanted}, as TFLite's kernel demands; {AGAIN}"
        return None

    return rule


def _in_table(node: Node, graph: Graph) -> str | None:
    """TFLite's multiplier of an int16 value in steps of its table has 15 bits, shifted by up to 31."""
    x = activations(node, graph)[0]
    if x.dtype != "int16" or 2.0**-42 < quant(x).scale < 1:
        return None
    return f"its input scale {quant(x).scale:g} is outside of what TFLite's 16-bit table holds; {AGAIN}"


def _signed(node: Node, graph: Graph) -> str | None:
    dtype = output(node, graph).dtype
    return f"works on {dtype}, which TFLite's kernel refuses; {AGAIN} with int8" if dtype == "uint8" else None


def _compared(node: Node, graph: Graph) -> str | None:
    """Two operands of one dtype; quantized ones have scales below one, as TFLite's kernel demands."""
    operands, y = activations(node, graph), output(node, graph)
    if y.dtype != "bool":
        return f"gives {y.dtype} instead of bool; {AGAIN}"
    reason = _one_kind(node, operands)
    if reason or operands[0].dtype not in EIGHT_BIT:
        return reason
    reason = next((reason for reason in map(per_tensor, operands) if reason), None)
    if reason:
        return reason
    large = max(quant(tensor).scale for tensor in operands)
    return f"compares values of scale {large:g}; TFLite takes scales below 1" if large >= 1 - 2**-32 else None


def _chosen(node: Node, graph: Graph) -> str | None:
    """A condition, and two operands of the output's dtype."""
    condition, *operands = activations(node, graph)
    if condition.dtype != "bool":
        return f"chooses by {condition.dtype} instead of bool; {AGAIN}"
    return _one_kind(node, [*operands, output(node, graph)])


def _castable(node: Node, graph: Graph) -> str | None:
    dtypes = (activations(node, graph)[0].dtype, output(node, graph).dtype)
    wrong = next((dtype for dtype in dtypes if dtype not in CASTABLE), None)
    return wrong and f"turns {dtypes[0]} into {dtypes[1]}; it takes {', '.join(CASTABLE)}; {AGAIN}"


PAIR: tuple[Rule, ...] = (numbers, _few_dimensions)
CHECKS: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(COMPARISONS, (_compared, _few_dimensions)),
    "SELECT": (_chosen,),
    "SELECT_V2": (_chosen, _few_dimensions),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR", "FLOOR_DIV", "MAXIMUM", "MINIMUM"), PAIR),
    **dict.fromkeys(("LOGICAL_NOT", "NEG", "SQRT"), (numbers,)),
    **dict.fromkeys(("RELU", "RELU6"), (quantized, rescale)),
    "RELU_N1_TO_1": (eight_bit, rescale),
    "ABS": (quantized, _signed, rescale),
    "ADD": (*PAIR, _words, fused_activation, _sum_scales, _powers),
    "CAST": (_castable,),
    "DIV": (*PAIR, fused_activation),
    "EXP": (eight_bit, _signed, _exponential),
    "GELU": (eight_bit, rescale),
    "HARD_SWISH": (eight_bit, rescale, _swish),
    "LEAKY_RELU": (quantized, rescale, _leaky),
    "LOGISTIC": (quantized, _clear_of_powers, _fixed_output(1 / 256, 0), _in_table),
    "MUL": (*PAIR, _words, fused_activation, _product),
    "PRELU": (eight_bit, _few_dimensions, rescale, _product),
    "RSQRT": (eight_bit, _signed, _inverse_root),
    "SQUARED_DIFFERENCE": (*PAIR, _signed, _square_scale),
    "SUB": (*PAIR, _words, fused_activation, _sum_scales, _powers),
    "TANH": (quantized, _clear_of_powers, _fixed_output(1 / 128, 128), _in_table),
}
