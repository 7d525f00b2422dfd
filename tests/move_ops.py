"""Random models of one operator that moves data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pilite.compiler import graph, moves
from tests.draw import CHANNELS, Draw, OneOp, Shape

NO_INT64 = ("uint8", "int8", "int16", "int32", "float32")  # TFLite 2.14 refuses the others
NO_INT16 = ("uint8", "int8", "int32", "int64", "float32")  # it does here, too
SIDES = (1, 2, 3, 4, 5, 6, 7)


def _axis(d: Draw, shape: Shape) -> int:
    return int(d.rng.integers(len(shape)))


def _stored(d: Draw, axis: int, rank: int) -> int:
    """The same axis, in one of three from the end."""
    return axis - rank if d.chance(0.3) else axis


def _split(d: Draw, op: str) -> OneOp:
    shape, count = d.shape(), d.pick((1, 2, 3, 4))
    axis = _axis(d, shape)
    parts = [d.pick((1, 2, 3, 8)) for _ in range(count)]
    sizes = parts if op == "SPLIT_V" else parts[:1] * count
    x = d.value((*shape[:axis], sum(sizes), *shape[axis + 1 :]))
    ys = [d.value((*shape[:axis], size, *shape[axis + 1 :]), like=x) for size in sizes]
    place = d.integers(_stored(d, axis, len(shape)))
    if op == "SPLIT":
        return d.finish(op, (place, x), ys, graph.Split(count))
    rest = d.pick(range(count)) if d.chance(0.3) else -1
    given = d.integers([-1 if i == rest else size for i, size in enumerate(sizes)])
    return d.finish(op, (x, given, place), ys, graph.Split(count))


def _pack(d: Draw, op: str) -> OneOp:
    shape, count = d.shape(most=4), d.pick((1, 2, 3, 5))
    first = d.value(shape)
    xs = [first, *(d.value(shape, like=first) for _ in range(count - 1))]
    axis = int(d.rng.integers(len(shape) + 1))
    y = d.value((*shape[:axis], count, *shape[axis:]), like=first)
    return d.finish(op, xs, y, graph.Stack(_stored(d, axis, len(shape) + 1), count))


def _unpack(d: Draw, op: str) -> OneOp:
    shape = d.shape(least=2)
    axis = _axis(d, shape)
    shape = (*shape[:axis], d.pick((1, 2, 3, 5)), *shape[axis + 1 :])
    x = d.value(shape)
    ys = [d.value((*shape[:axis], *shape[axis + 1 :]), like=x) for _ in range(shape[axis])]
    return d.finish(op, (x,), ys, graph.Stack(_stored(d, axis, len(shape)), shape[axis]))


def _slice(d: Draw, op: str) -> OneOp:
    x = d.value(d.shape())
    spans = [sorted(d.rng.choice(n + 1, 2, replace=False)) for n in d.tensors[x].shape]
    size = [b - a for a, b in spans]
    given = [
        -1 if b == n and d.chance(0.3) else b - a for (a, b), n in zip(spans, d.tensors[x].shape, strict=True)
    ]
    operands = (x, d.integers([a for a, _ in spans]), d.integers(given))
    return d.finish(op, operands, d.value(tuple(map(int, size)), like=x), graph.Slice((), ()))


def _strided_slice(d: Draw, op: str) -> OneOp:
    """An entry per axis, forwards or backwards, open or closed; some shrunk, new, or under an ellipsis."""
    x = d.value(d.shape(most=4))
    shape: list[int] = []
    masks, entries = [0] * 5, list[tuple[int, int, int]]()
    dots = _axis(d, d.tensors[x].shape) if d.chance(0.2) else -1
    for axis, size in enumerate(d.tensors[x].shape):
        if d.chance(0.1) and len(shape) + len(d.tensors[x].shape) - axis < 5:
            masks[3] |= 1 << len(entries)
            entries.append((0, 0, 1))
            shape.append(1)
        bit = 1 << len(entries)
        if axis == dots:
            masks[2] |= bit
            entries.append((0, 0, 1))
            shape.append(size)
            continue
        begin, end = (int(d.rng.integers(-size - 1, size + 2)) for _ in range(2))
        step = d.pick((1, 1, 1, 2, 3, -1, -2))
        if d.chance(0.2):
            masks[4] |= bit
            entries.append((d.pick(range(-size, size)), 0, 1))
            continue
        opens = [d.chance(0.4), d.chance(0.4)]
        limits = slice(None if opens[0] else begin, None if opens[1] else end, step)
        found = range(size)[limits]
        if not found:
            opens, found = [True, True], range(size)[::step]
        masks[0] |= bit * opens[0]
        masks[1] |= bit * opens[1]
        entries.append((begin, end, step))
        shape.append(len(found))
    operands = (x, *(d.integers(list(column)) for column in zip(*entries, strict=True)))
    return d.finish(
        op,
        operands,
        d.value(tuple(shape), like=x),
        graph.StridedSlice(
            begin_mask=masks[0],
            end_mask=masks[1],
            ellipsis_mask=masks[2],
            new_axis_mask=masks[3],
            shrink_axis_mask=masks[4],
        ),
    )


def _transpose(d: Draw, op: str) -> OneOp:
    x = d.value(d.shape())
    shape = d.tensors[x].shape
    order = [int(axis) for axis in d.rng.permutation(len(shape))]
    y = d.value(tuple(shape[axis] for axis in order), like=x)
    return d.finish(op, (x, d.integers(order)), y, graph.Transpose(()))


def _tile(d: Draw, op: str) -> OneOp:
    x = d.value(d.shape(most=4))
    times = [d.pick((1, 1, 2, 3)) for _ in d.tensors[x].shape]
    shape = tuple(n * t for n, t in zip(d.tensors[x].shape, times, strict=True))
    given = d.integers(times, d.pick(("int32", "int64")))
    return d.finish(op, (x, given), d.value(shape, like=x), graph.Tile(()))


def _gather(d: Draw, op: str) -> OneOp:
    x = d.value(d.shape(most=4))
    shape = d.tensors[x].shape
    axis = _axis(d, shape)
    batch = d.pick(range(axis + 1)) if d.chance(0.4) else 0
    picked = tuple(d.pick((1, 2, 3, 5)) for _ in range(d.pick((0, 1, 1, 2))))
    data = d.rng.integers(0, shape[axis], (*shape[:batch], *picked))
    indices = d.integers(data, d.pick(("int32", "int64")))
    y = d.value((*shape[:axis], *picked, *shape[axis + 1 :]), like=x)
    return d.finish(op, (x, indices), y, graph.Gather(_stored(d, axis, len(shape)), batch))


def _gather_nd(d: Draw, op: str) -> OneOp:
    x = d.value(d.shape(most=4))
    shape = d.tensors[x].shape
    depth = int(d.rng.integers(1, len(shape) + 1))
    picked = tuple(d.pick((1, 2, 3, 5)) for _ in range(d.pick((0, 1, 2))))
    data = np.stack([d.rng.integers(0, n, picked) for n in shape[:depth]], -1)
    indices = d.integers(data, d.pick(("int32", "int64")))
    return d.finish(op, (x, indices), d.value((*picked, *shape[depth:]), like=x))


def _blocks(d: Draw, op: str) -> OneOp:
    """BATCH_TO_SPACE_ND and SPACE_TO_BATCH_ND: one is the other backwards."""
    spatial, batch, channels = d.pick((1, 2, 2, 2)), d.pick((1, 2)), d.pick(CHANNELS)
    block = [d.pick((1, 2, 3, 4)) for _ in range(spatial)]
    parts = [d.pick((1, 2, 3, 4)) for _ in range(spatial)]
    edges = []
    for k, n in zip(block, parts, strict=True):
        before = d.pick(range(min(k * n, 4)))
        edges.append((before, d.pick(range(min(k * n - before, 4)))))
    image = [k * n - sum(pair) for k, n, pair in zip(block, parts, edges, strict=True)]
    small = (batch * math.prod(block), *parts, channels)
    shapes = ((batch, *image, channels), small)[:: 1 if op == "SPACE_TO_BATCH_ND" else -1]
    x = d.value(shapes[0])
    y = d.value(shapes[1], like=x)
    return d.finish(op, (x, d.integers(block), d.integers(edges)), y, graph.Batches((), (), ()))


def _depth(d: Draw, op: str) -> OneOp:
    block, channels = d.pick((1, 2, 3, 4)), d.pick(CHANNELS)
    n, h, w = d.pick((1, 2)), *d.pair((1, 2, 3, 4))
    shapes = ((n, h * block, w * block, channels), (n, h, w, channels * block**2))
    x_shape, y_shape = shapes[:: 1 if op == "SPACE_TO_DEPTH" else -1]
    x = d.value(x_shape)
    return d.finish(op, (x,), d.value(y_shape, like=x), graph.Depth(block))


def _mirror_pad(d: Draw, op: str) -> OneOp:
    x, edge = d.value(d.shape(most=4)), d.pick((0, 1))
    shape = d.tensors[x].shape
    edges = [d.pair(range(min(n - 1 + edge, 4) + 1)) for n in shape]
    y = d.value(tuple(n + sum(pair) for n, pair in zip(shape, edges, strict=True)), like=x)
    return d.finish(op, (x, d.integers(edges)), y, graph.MirrorPad(edge))


def _shape(d: Draw, op: str) -> OneOp:
    x = d.value(d.shape())
    to = d.pick(("int32", "int64"))
    y = d.tensor((len(d.tensors[x].shape),), dtype=to)
    return d.finish(op, (x,), y, graph.Shape(to))


OPS: dict[str, Callable[[Draw, str], OneOp]] = {
    "BATCH_TO_SPACE_ND": _blocks,
    "DEPTH_TO_SPACE": _depth,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPACE_TO_BATCH_ND": _blocks,
    "SPACE_TO_DEPTH": _depth,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
DTYPES = {
    **dict.fromkeys(OPS, moves.DTYPES),
    **dict.fromkeys(("SPLIT", "UNPACK"), NO_INT64),
    **dict.fromkeys(("DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "TILE"), NO_INT16),
}
