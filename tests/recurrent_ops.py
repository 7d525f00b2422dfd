"""Random models of one operator with a state."""

from __future__ import annotations

import numpy as np

from models.zoo.writer import OpSpec, write
from pilite.compiler.graph import ABSENT, Lstm
from tests.draw import CHANNELS, Draw, OneOp


def lstm(d: Draw, op: str) -> OneOp:
    """Gates that use their whole range, or saturate; a hidden value with a zero point in half of them."""
    batch, steps = d.pick((1, 1, 2, 3)), d.pick((1, 2, 3, 7))
    inputs, cells = d.pair(CHANNELS)
    time_major = d.chance(0.3)
    ends = (steps, batch) if time_major else (batch, steps)
    x = d.activation((*ends, inputs), d.near(0.05, 4))
    hidden = (d.near(1 / 128, 2), d.zero_point() if d.chance(0.5) else 0)
    state = d.tensor((batch, cells), (hidden[0],), hidden[1], is_variable=True)
    cell = d.tensor((batch, cells), (2.0 ** -d.pick(range(9, 16)),), dtype="int16", is_variable=True)
    weights = [_weights(d, cells, n) for n in (inputs,) * 4 + (cells,) * 4]
    biases = [d.tensor((cells,), (1e-4,), dtype="int32", data=_bias(d, cells)) for _ in range(4)]
    quants = [(2.0**-12, 0)] * 4 + [hidden]
    inner = [d.tensor((0,), (scale,), zero, dtype="int8") for scale, zero in quants]
    y = d.activation((*ends, cells), *hidden)
    operands = (x, *weights, *(ABSENT,) * 3, *biases, ABSENT, ABSENT, state, cell, *(ABSENT,) * 4)
    options = Lstm("TANH", d.pick((0.0, 1.0, 10.0)), time_major)
    model = write(d.tensors, [OpSpec(op, operands, (y,), options, intermediates=tuple(inner))], [x], [y])
    return OneOp(op, model, [d.values((*ends, inputs))])


def _weights(d: Draw, cells: int, count: int) -> int:
    return d.tensor((cells, count), (d.near(0.01, 4),), data=d.values((cells, count)))


def _bias(d: Draw, cells: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return d.rng.integers(-20_000, 20_000, cells).astype(np.int32)


OPS = {"UNIDIRECTIONAL_SEQUENCE_LSTM": lstm}
DTYPES = {"UNIDIRECTIONAL_SEQUENCE_LSTM": ("int8",)}
