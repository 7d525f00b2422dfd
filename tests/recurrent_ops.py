"""Random models of one operator with a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.zoo.writer import OpSpec, write
from pilite.compiler.graph import ABSENT, Lstm
from tests.draw import CHANNELS, Array, Draw, OneOp, Shape

OP = "UNIDIRECTIONAL_SEQUENCE_LSTM"


@dataclass(frozen=True)
class Sizes:
    """Of a network."""

    batch: int
    steps: int
    inputs: int
    cells: int
    time_major: bool = False

    @property
    def ends(self) -> tuple[int, int]:
        """The first two dimensions of its input and output."""
        return (self.steps, self.batch) if self.time_major else (self.batch, self.steps)


def lstm(d: Draw, op: str) -> OneOp:
    batch, steps = d.pick((1, 1, 2, 3)), d.pick((1, 2, 3, 7))
    inputs, cells = d.pair(CHANNELS)
    return network(d, Sizes(batch, steps, inputs, cells, d.chance(0.3)), d.values)


def network(d: Draw, sizes: Sizes, values: Callable[[Shape], Array], scale: float = 0.01) -> OneOp:
    """Gates that use their whole range, or saturate; a hidden value with a zero point in half of them.

    `values`: of the weights, whose scale is near `scale`, and of the input. The number of steps changes
    nothing else.
    """
    x = d.activation((*sizes.ends, sizes.inputs), d.near(0.05, 4))
    hidden = (d.near(1 / 128, 2), d.zero_point() if d.chance(0.5) else 0)
    state = d.tensor((sizes.batch, sizes.cells), (hidden[0],), hidden[1], is_variable=True)
    power = 2.0 ** -d.pick(range(9, 16))
    cell = d.tensor((sizes.batch, sizes.cells), (power,), dtype="int16", is_variable=True)
    shapes = [(sizes.cells, count) for count in (sizes.inputs,) * 4 + (sizes.cells,) * 4]
    weights = [d.tensor(shape, (d.near(scale, 4),), data=values(shape)) for shape in shapes]
    biases = [d.tensor(b.shape, (1e-4,), dtype="int32", data=b) for b in (_bias(d, sizes) for _ in range(4))]
    quants = [(2.0**-12, 0)] * 4 + [hidden]
    inner = [d.tensor((0,), (step,), zero, dtype="int8") for step, zero in quants]
    y = d.activation((*sizes.ends, sizes.cells), *hidden)
    operands = (x, *weights, *(ABSENT,) * 3, *biases, ABSENT, ABSENT, state, cell, *(ABSENT,) * 4)
    options = Lstm("TANH", d.pick((0.0, 1.0, 10.0)), sizes.time_major)
    model = write(d.tensors, [OpSpec(OP, operands, (y,), options, intermediates=tuple(inner))], [x], [y])
    return OneOp(OP, model, [values((*sizes.ends, sizes.inputs))])


def _bias(d: Draw, sizes: Sizes) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return d.rng.integers(-20_000, 20_000, sizes.cells).astype(np.int32)


OPS = {OP: lstm}
DTYPES = {OP: ("int8",)}
