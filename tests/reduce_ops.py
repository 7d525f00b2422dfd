"""Random models of one operator that reduces or normalizes along axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from models.zoo.writer import TensorSpec
from pilite.compiler import moves
from pilite.compiler.graph import Mean, Normalization, Softmax
from tests.draw import CHANNELS, DEPTHS, SIDES, Draw, OneOp, Shape

EIGHT_BIT = ("uint8", "int8")


def _mean(d: Draw, op: str) -> OneOp:
    x = d.activation(d.shape() if d.chance(0.5) else (d.pick((1, 2)), *d.pair(SIDES), d.pick(CHANNELS)))
    shape = d.tensors[x].shape
    rank, keep = len(shape), d.chance(0.5)
    axes = (1, 2) if rank == 4 and d.chance(0.6) else d.rng.permutation(rank)[: d.rng.integers(1, rank + 1)]
    reduced = {int(axis) for axis in axes}
    result = tuple(1 if i in reduced else n for i, n in enumerate(shape) if keep or i not in reduced)
    y = _mean_of(d, d.tensors[x], result)
    return _reduction(d, op, x, y, [int(axis) for axis in axes], keep)


def _reduction(d: Draw, op: str, x: int, y: int, axes: list[int], keep: bool) -> OneOp:
    """The axes in order, or in any order and from both ends."""
    reduced, rank = set(axes), len(d.tensors[x].shape)
    if d.chance(0.7):
        return d.finish(op, (x,), y, Mean(tuple(sorted(reduced)), keep))
    given = np.array([axis - rank if d.chance(0.5) else axis for axis in axes], np.int32)
    operand = d.tensor(given.shape, dtype="int32", data=given)
    return d.finish(op, (x, operand), y, Mean(tuple(sorted(reduced)), keep))


def _reduce(d: Draw, op: str) -> OneOp:
    """SUM, REDUCE_MAX, REDUCE_MIN."""
    shape, keep = d.shape(), d.chance(0.5)
    rank = len(shape)
    count = 0 if d.chance(0.1) else int(d.rng.integers(1, rank + 1))
    axes = [int(axis) for axis in d.rng.permutation(rank)[:count]]
    x = d.value(shape)
    result = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
    y = d.value(result, like=x)
    if op == "SUM" and d.dtype in EIGHT_BIT and d.chance(0.7):
        y = d.activation(result, d.near(d.tensors[x].scales[0] * math.prod(shape[i] for i in axes) / 4, 6))
    return _reduction(d, op, x, y, axes, keep)


def _mean_of(d: Draw, x: TensorSpec, shape: Shape) -> int:
    """The input's quantization, or one that has the mean of random inputs in or near its range."""
    if d.chance(0.2):
        return d.activation(shape, x.scales[0], x.zero_points[0])
    scale = d.near(x.scales[0] / 2, 6)
    if d.dtype == "int16":
        return d.activation(shape, scale)
    return d.activation(shape, scale, d.centred((d.middle - x.zero_points[0]) * x.scales[0] / scale))


def _l2_normalization(d: Draw, op: str) -> OneOp:
    """Rows of zeros, of one step, and of the ends of the range are among them."""
    shape = (*d.shape(most=4)[:-1], d.pick(DEPTHS))
    x = d.activation(shape)
    case = d.finish(op, (x,), d.activation(shape, 1 / 128, d.middle), Normalization("NONE"))
    zero_point = d.tensors[x].zero_points[0]
    flat = np.clip(zero_point + d.rng.integers(0, 2, shape), *_ends(d.dtype)).astype(d.dtype)
    return OneOp(op, case.model, [flat if d.chance(0.2) else case.inputs[0]])


def _ends(dtype: str) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _softmax(d: Draw, op: str) -> OneOp:
    """At most 511 values: with 512 nearly equal ones TFLite shifts by 32 bits or more, which is undefined."""
    if d.dtype == "int16":
        return _wide_softmax(d, op)
    shape = (*d.shape(most=3)[:-1], d.pick((1, 2, 5, 10, 33, 100, 511)))
    x = d.activation(shape, d.near(0.1, 16))
    y = d.activation(shape, 1 / 256, int(np.iinfo(d.dtype).min))
    beta = d.pick((1.0, 1.0, 0.5, 2.0, d.near(1.0, 30)))
    return d.finish(op, (x,), y, Softmax(beta))


def _wide_softmax(d: Draw, op: str) -> OneOp:
    """Values close to each other, all equal, or so far apart that one is all of the sum."""
    shape = (*d.shape(most=3)[:-1], d.pick((1, 2, 5, 10, 33, 511, 600, 5000)))
    x = d.activation(shape, d.near(2.0 ** -d.pick((3, 10, 12, 15, 20)), 2))
    beta = d.pick((1.0, 1.0, 0.5, 2.0, d.near(1.0, 8)))
    return d.finish(op, (x,), d.activation(shape, d.near(2.0**-15, 1.0005)), Softmax(beta))


OPS: dict[str, Callable[[Draw, str], OneOp]] = {
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "SUM"), _reduce),
    "L2_NORMALIZATION": _l2_normalization,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
}
DTYPES = {
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN"), moves.DTYPES),
    "SUM": ("uint8", "int8", "int16", "int32", "int64", "float32"),
    **dict.fromkeys(("MEAN", "SOFTMAX"), (*EIGHT_BIT, "int16")),
}
