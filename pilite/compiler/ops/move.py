"""SPLIT, PACK, SLICE, TRANSPOSE, TILE, blocks to and from batches or channels: copies with affine places.

Where the wanted part is contiguous, it is a view of its source and no bytes move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from pilite.compiler import graph
from pilite.compiler.graph import Node
from pilite.compiler.program import ARENA, Builder, signed_zero_point
from pilite.compiler.spec import Copy, Fill, Walk

Shape = tuple[int, ...]


def plain(rank: int) -> Walk:
    """Loop k runs along axis k."""
    return Walk((0,) * rank, tuple(range(rank)), (1,) * rank)


def _box(begin: Sequence[int], steps: Sequence[int] | None = None) -> Walk:
    """Loop k runs along axis k from begin[k] on."""
    return Walk(tuple(begin), tuple(range(len(begin))), tuple(steps or (1,) * len(begin)))


def take(b: Builder, source: int, tensor: int, begin: Shape, steps: Shape, count: Shape) -> None:
    """`tensor` = the values of `source` at begin + i * steps; axes of extent 1 may differ between them."""
    value = b.values[source]
    if value.place == ARENA and is_contiguous(value.shape, steps, count):
        b.view(tensor, source, sum(at * prod(value.shape[i + 1 :]) for i, at in enumerate(begin)))
        return
    target = b.reshaped(b.value(tensor), count)
    b.emit(Copy(count, _box(begin, steps), plain(len(count))), (source,), target)


def is_contiguous(shape: Shape, steps: Shape, count: Shape) -> bool:
    """Whether a box of `count` values is one run: whole behind its last cut axis, one value before."""
    cut = max((i for i, (n, size) in enumerate(zip(count, shape, strict=True)) if n != size), default=0)
    forwards = all(step == 1 or n == 1 for step, n in zip(steps, count, strict=True))
    return forwards and prod(count[:cut]) == 1


def split(node: Node, b: Builder) -> None:
    """SPLIT, SPLIT_V."""
    options = node.options
    assert isinstance(options, graph.Split)
    source = b.value(node.inputs[0])
    shape = b.tensor(node.inputs[0]).shape
    at = [0] * len(shape)
    for tensor, size in zip(node.outputs, options.sizes, strict=True):
        take(b, source, tensor, tuple(at), (1,) * len(shape), b.tensor(tensor).shape)
        at[options.axis] += size


def unpack(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Stack)
    source, shape = b.value(node.inputs[0]), b.tensor(node.inputs[0]).shape
    count = tuple(1 if i == options.axis else n for i, n in enumerate(shape))
    for position, tensor in enumerate(node.outputs):
        begin = tuple(position if i == options.axis else 0 for i in range(len(shape)))
        take(b, source, tensor, begin, (1,) * len(shape), count)


def pack(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Stack)
    y = b.tensor(node.outputs[0])
    axes = tuple(i for i in range(len(y.shape)) if i != options.axis)
    for position, tensor in enumerate(node.inputs):
        start = tuple(position if i == options.axis else 0 for i in range(len(y.shape)))
        shape = b.tensor(tensor).shape
        place = Walk(start, axes, (1,) * len(axes))
        b.emit(Copy(shape, plain(len(shape)), place), (b.value(tensor),), b.value(node.outputs[0]))


def shape(node: Node, b: Builder) -> None:
    """Only an output of the model is left here: fold.py has the values of all others."""
    y = b.tensor(node.outputs[0])
    sizes = np.array(b.tensor(node.inputs[0]).shape, y.dtype)
    source = b.constant(replace(y, data=sizes))
    b.emit(Copy(y.shape, plain(1), plain(1)), (source,), b.value(node.outputs[0]))


def slice_(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Slice)
    take(
        b,
        b.value(node.inputs[0]),
        node.outputs[0],
        options.begin,
        (1,) * len(options.begin),
        options.count,
    )


def strided_slice(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.StridedSlice)
    take(b, b.value(node.inputs[0]), node.outputs[0], options.begin, options.step, options.count)


def transpose(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Transpose)
    shape, order = b.tensor(node.outputs[0]).shape, options.permutation
    source = Walk((0,) * len(shape), order, (1,) * len(shape))
    b.emit(Copy(shape, source, plain(len(shape))), (b.value(node.inputs[0]),), b.value(node.outputs[0]))


def tile(node: Node, b: Builder) -> None:
    """Two loops per axis: over the repetitions and inside of one."""
    options = node.options
    assert isinstance(options, graph.Tile)
    shape = b.tensor(node.inputs[0]).shape
    extents = tuple(n for pair in zip(options.times, shape, strict=True) for n in pair)
    axes = tuple(axis for axis in range(len(shape)) for _ in range(2))
    start = (0,) * len(shape)
    source = Walk(start, axes, (0, 1) * len(shape))
    target = Walk(start, axes, tuple(step for n in shape for step in (n, 1)))
    b.emit(Copy(extents, source, target), (b.value(node.inputs[0]),), b.value(node.outputs[0]))


def depth(node: Node, b: Builder) -> None:
    """Pixel (h * k + i, w * k + j), channel c of the image is channel (i * k + j) * C + c of pixel (h, w)."""
    options = node.options
    assert isinstance(options, graph.Depth)
    k = options.block
    image, blocks = (b.tensor(i).shape for i in (node.inputs[0], node.outputs[0]))
    if node.op == "DEPTH_TO_SPACE":
        image, blocks = blocks, image
    channels = image[3]
    extents = (blocks[0], blocks[1], k, blocks[2], k, channels)
    wide = Walk((0, 0, 0, 0), (0, 1, 1, 2, 2, 3), (1, k, 1, k, 1, 1))
    deep = Walk((0, 0, 0, 0), (0, 1, 3, 2, 3, 3), (1, 1, k * channels, 1, channels, 1))
    ends = (wide, deep) if node.op == "SPACE_TO_DEPTH" else (deep, wide)
    b.emit(Copy(extents, *ends), (b.value(node.inputs[0]),), b.value(node.outputs[0]))


def batches(node: Node, b: Builder) -> None:
    """One copy per position in the block: every block-th pixel of an image is another batch entry.

    Batch entry (i * kw + j) * N + n has the pixels (h * kh + i - top, w * kw + j - left) of image n; those
    outside the image are the zero point.
    """
    options = node.options
    assert isinstance(options, graph.Batches)
    gathers = node.op == "SPACE_TO_BATCH_ND"
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    image, parts = (x.shape, y.shape) if gathers else (y.shape, x.shape)
    source, target = b.value(node.inputs[0]), b.value(node.outputs[0])
    if gathers:
        b.emit(Fill(0 if y.quant is None else signed_zero_point(y), whole=True), (), target)
    for number, place in enumerate(product(*map(range, options.block))):
        extents, whole, part = _positions(options, image, parts, number, place)
        if min(extents) > 0:
            ends = (whole, part) if gathers else (part, whole)
            b.emit(Copy(extents, *ends), (source,), target)


def _positions(
    o: graph.Batches, image: Shape, parts: Shape, number: int, place: Sequence[int]
) -> tuple[Shape, Walk, Walk]:
    """Extents and both places of the pixels in batch entries number * N to (number + 1) * N."""
    first, counts, starts = [], [], []
    spatial = zip(o.block, place, o.before, image[1:-1], parts[1:-1], strict=True)
    for k, i, before, size, part in spatial:
        low = max(-((i - before) // k), 0)  # the first h with h * k + i - before >= 0
        high = min(-((i - before - size) // k), part)  # past the last one inside the image
        first.append(low)
        counts.append(high - low)
        starts.append(low * k + i - before)
    extents = (image[0], *counts, image[-1])
    rank = len(extents)
    whole = Walk((0, *starts, 0), tuple(range(rank)), (1, *o.block, 1))
    return extents, whole, _box((number * image[0], *first, 0))
