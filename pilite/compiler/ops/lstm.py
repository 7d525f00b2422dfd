"""UNIDIRECTIONAL_SEQUENCE_LSTM in integers: int8 values, int16 gates and cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler import fixedpoint16, recurrent
from pilite.compiler.fixedpoint import INT8_MIN, Multiplier
from pilite.compiler.fixedpoint16 import GATE_INTEGER_BITS, INT16_MAX
from pilite.compiler.graph import Lstm, Node, Tensor
from pilite.compiler.ops.common import quant
from pilite.compiler.program import Builder
from pilite.compiler.spec import Gate, QLstm

F32 = np.float32
GATE_SCALE = F32(recurrent.GATE_SCALE)
LANES = 8  # products of one multiplication of bytes on NEON


def lstm(node: Node, b: Builder) -> None:
    """lstm_eval.cc EvalInteger8x8_16 with the parameters of PopulateQuantizedLstmParams8x8_16.

    In numerics `xnnpack` it is LiteRT's form for NEON: it differs where 16 bits cannot hold two products.
    """
    o = node.options
    assert isinstance(o, Lstm)
    assert o.hidden is not None
    x, state, cell = (recurrent.tensor(node, b.graph, i) for i in (recurrent.X, *recurrent.STATES))
    exponent = math.frexp(quant(cell).scale)[1] - 1
    clip = min(int(F32(o.cell_clip) / F32(quant(cell).scale)), INT16_MAX) if o.cell_clip > 0 else 0
    hidden = F32(2.0**-30 / o.hidden.scale)
    weights = [*_gates(node, b), *_recurrent(node, b)]
    spec = QLstm(
        time_major=o.time_major,
        gates=tuple(
            Gate(_effective(w, x), _effective(r, state))
            for w, r in zip(_gates(node, b), _recurrent(node, b), strict=True)
        ),
        cell_shift=30 + exponent,
        cell_clip=clip,
        hidden=Multiplier.of(float(hidden)),
        hidden_zero_point=o.hidden.zero_point,
        state_zero_point=quant(state).zero_point,
        paired=LANES if b.numerics.is_xnnpack and any(map(_wraps, weights)) else 0,
    )
    arrays = {
        "input_weight": _stacked(_gates(node, b)),
        "recurrent_weight": _stacked(_recurrent(node, b)),
        "input_bias": _folded(_gates(node, b), quant(x).zero_point) + _stacked(_biases(node, b)),
        "recurrent_bias": _folded(_recurrent(node, b), quant(state).zero_point),
        "sigmoid": fixedpoint16.sigmoid(GATE_INTEGER_BITS).astype(np.int16),
        "gate_tanh": fixedpoint16.tanh(GATE_INTEGER_BITS).astype(np.int16),
        "cell_tanh": fixedpoint16.tanh(15 + exponent).astype(np.int16),
    }
    states = [b.value(node.inputs[i]) for i in recurrent.STATES]
    b.emit(spec, (b.value(node.inputs[recurrent.X]), *states), b.value(node.outputs[0]), arrays)


def _operands(node: Node, b: Builder, places: range) -> list[Tensor]:
    return [recurrent.tensor(node, b.graph, i) for i in places]


def _gates(node: Node, b: Builder) -> list[Tensor]:
    return _operands(node, b, recurrent.INPUT_WEIGHTS)


def _recurrent(node: Node, b: Builder) -> list[Tensor]:
    return _operands(node, b, recurrent.RECURRENT_WEIGHTS)


def _biases(node: Node, b: Builder) -> list[Tensor]:
    return _operands(node, b, recurrent.BIASES)


def _effective(w: Tensor, x: Tensor) -> Multiplier:
    """scale(w) * scale(x) / 2**-12, in float32."""
    return Multiplier.of(float(F32(quant(w).scale) * F32(quant(x).scale) / GATE_SCALE))


def _stacked(tensors: list[Tensor]) -> npt.NDArray[Any]:
    return np.stack([np.asarray(t.data) for t in tensors])


def _wraps(weights: Tensor) -> bool:
    """Whether 16 bits cannot hold some pair of products: -128 * -128 twice is one more than they do.

    neon_tensor_utils.cc NeonMatrixBatchVectorMultiplyImpl: of sixteen products vmlal_s8 adds k + 8 to k.
    """
    rows = np.asarray(weights.data)
    whole = rows[:, : rows.shape[1] // (2 * LANES) * (2 * LANES)]
    pairs = whole.reshape(len(rows), -1, 2, LANES)
    return bool((pairs == INT8_MIN).all(2).any())


def _folded(weights: list[Tensor], zero_point: int) -> npt.NDArray[np.int32]:
    """-zero_point * the sum of each row."""
    sums: npt.NDArray[np.int32] = _stacked(weights).sum(-1, dtype=np.int32)
    return sums * np.int32(-zero_point)
