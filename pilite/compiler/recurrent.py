"""The door of UNIDIRECTIONAL_SEQUENCE_LSTM: int8 values, int16 cells, a state that is kept between runs.

What can be compiled is the plain network: four gates, no peepholes, no projection, no layer normalization.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pilite.compiler.fixedpoint16 import GATE_INTEGER_BITS
from pilite.compiler.graph import Graph, Lstm, Node, Tensor
from pilite.compiler.operands import Mismatch
from pilite.compiler.rules import (
    AGAIN,
    EIGHT_BIT,
    HYBRID,
    Rule,
    operand,
    output,
    overflows,
    per_tensor,
    quant,
    reach,
)
from pilite.compiler.tensors import FULL_INTEGER

OP = "UNIDIRECTIONAL_SEQUENCE_LSTM"
Shape = tuple[int, ...]
# Operands by position; gates are input, forget, cell, output.
X, INPUT_WEIGHTS, RECURRENT_WEIGHTS, BIASES = 0, range(1, 5), range(5, 9), range(12, 16)
OUTPUT_STATE, CELL_STATE = 18, 19
STATES = (OUTPUT_STATE, CELL_STATE)
ABSENT_ONES = {9: "peepholes", 10: "peepholes", 11: "peepholes", 16: "a projection", 17: "a projection"}
ABSENT_ONES |= dict.fromkeys(range(20, 24), "layer normalization")
GATE_SCALE = 2.0 ** (GATE_INTEGER_BITS - 15)  # of a gate before its function
HIDDEN_BITS = 30  # behind the point of gate times cell
MOST_INTEGER_BITS = 6  # of a cell: TFLite's tanh knows no more


def tensor(node: Node, graph: Graph, i: int) -> Tensor:
    return graph.tensors[node.inputs[i]]


def shape(node: Node, graph: Graph) -> Shape:
    x, state = tensor(node, graph, X), tensor(node, graph, OUTPUT_STATE)
    if len(x.shape) != 3 or len(state.shape) != 2:
        raise Mismatch(f"its input has shape {list(x.shape)} and its state {list(state.shape)}")
    return *x.shape[:2], state.shape[1]


# Rules.


def _hybrid(node: Node, graph: Graph) -> str | None:
    """Float values with 8-bit weights."""
    weights = [operand(node, graph, i) for i in (*INPUT_WEIGHTS, *RECURRENT_WEIGHTS)]
    bytes_ = any(w is not None and w.dtype in EIGHT_BIT for w in weights)
    return HYBRID if bytes_ and tensor(node, graph, X).dtype == "float32" else None


def _kind(node: Node, graph: Graph) -> str | None:
    """Only the plain network, and all of its operands."""
    for i, what in ABSENT_ONES.items():
        if operand(node, graph, i) is not None:
            return f"has {what}, which cannot be compiled; {AGAIN} with a plain LSTM"
    if any(operand(node, graph, i) is None for i in (*INPUT_WEIGHTS, *RECURRENT_WEIGHTS, *BIASES, *STATES)):
        return f"has no weights or bias for some gate (a coupled gate); {AGAIN} with a plain LSTM"
    return None


def _dtypes(node: Node, graph: Graph) -> str | None:
    x, y = tensor(node, graph, X), output(node, graph)
    state, cell = (tensor(node, graph, i) for i in STATES)
    weights = [tensor(node, graph, i) for i in (*INPUT_WEIGHTS, *RECURRENT_WEIGHTS)]
    biases = [tensor(node, graph, i) for i in BIASES]
    if {t.dtype for t in (x, y, state, *weights)} != {"int8"} or cell.dtype != "int16":
        return f"is no int8 network with int16 cells; {FULL_INTEGER}"
    if {t.dtype for t in biases} != {"int32"} or not all(t.is_constant for t in (*weights, *biases)):
        return f"has weights or biases that are computed or of another dtype; {AGAIN}"
    if not (state.is_variable and cell.is_variable):
        return f"has a state that is no variable tensor; {AGAIN}"
    reasons = map(per_tensor, (x, y, state, cell, *weights))
    return next((reason for reason in reasons if reason), None)


def _sizes(node: Node, graph: Graph) -> str | None:
    o, x = _options(node), tensor(node, graph, X)
    if len(x.shape) != 3:
        return None  # the rule of shapes says so
    batch, inputs = x.shape[1 if o.time_major else 0], x.shape[2]
    cells = tensor(node, graph, CELL_STATE).shape[-1]
    expected = {
        **dict.fromkeys(INPUT_WEIGHTS, (cells, inputs)),
        **dict.fromkeys(RECURRENT_WEIGHTS, (cells, cells)),
        **dict.fromkeys(BIASES, (cells,)),
        **dict.fromkeys(STATES, (batch, cells)),
    }
    for i, wanted in expected.items():
        found = tensor(node, graph, i).shape
        if found != wanted:
            expected_shape = f"{list(wanted)} follows from the others"
            return f"its operand {i} has shape {list(found)} where {expected_shape}; {AGAIN}"
    return None


def _options(node: Node) -> Lstm:
    assert isinstance(node.options, Lstm)
    return node.options


def _arithmetic(node: Node, graph: Graph) -> str | None:
    o = _options(node)
    if o.activation != "TANH":
        return f"has the activation {o.activation}; TFLite's integer kernel computes TANH; {AGAIN}"
    if not o.cell_clip >= 0:
        return f"clips its cells at {o.cell_clip:g}, which TFLite refuses; {AGAIN}"
    if o.hidden is None:
        return f"has no quantization of its hidden value (intermediate tensor 4); {AGAIN}"
    weights = [tensor(node, graph, i) for i in (*INPUT_WEIGHTS, *RECURRENT_WEIGHTS)]
    if any(quant(w).zero_point for w in weights):
        return f"has weights with a zero point other than 0, which TFLite ignores; {AGAIN}"
    scale = quant(tensor(node, graph, CELL_STATE)).scale
    mantissa, exponent = math.frexp(scale)
    bits = 15 + exponent - 1
    if mantissa != 0.5 or exponent - 1 > -9 or not 0 <= bits <= MOST_INTEGER_BITS:
        return f"its cell state has scale {scale:g}, no power of two that TFLite's kernel takes; {AGAIN}"
    return None


def _overflow(node: Node, graph: Graph) -> str | None:
    """No sum leaves 32 bits when its multiplier, above one, shifts it to the left."""
    hidden = _options(node).hidden
    assert hidden is not None
    if overflows(2.0**HIDDEN_BITS, 2.0**-HIDDEN_BITS / hidden.scale):
        return (
            f"its hidden value has scale {hidden.scale:g}, too small for TFLite's 32-bit arithmetic; {AGAIN}"
        )
    for weights, source in ((INPUT_WEIGHTS, X), (RECURRENT_WEIGHTS, OUTPUT_STATE)):
        x = tensor(node, graph, source)
        for i, bias in zip(weights, BIASES, strict=True):
            w = tensor(node, graph, i)
            sums = reach(x) * np.abs(_data(w)).sum(-1) + np.abs(_data(tensor(node, graph, bias)))
            ratio = quant(w).scale * quant(x).scale / GATE_SCALE
            if overflows(float(sums.max()), ratio):
                what = f"its operand {i} has scale {quant(w).scale:g}, with which"
                return f"{what} TFLite's 32-bit arithmetic overflows; {AGAIN}"
    return None


def _data(constant: Tensor) -> npt.NDArray[np.int64]:
    assert constant.data is not None
    return constant.data.astype(np.int64)


CHECKS: tuple[Rule, ...] = (_hybrid, _kind, _dtypes, _sizes, _arithmetic, _overflow)
