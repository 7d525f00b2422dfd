"""GATHER, GATHER_ND, MIRROR_PAD: copies whose places are looked up."""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from pilite.compiler import graph
from pilite.compiler.graph import Node
from pilite.compiler.program import Builder
from pilite.compiler.spec import Gather, Pick


def gather(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Gather)
    shape, axis, batch = b.tensor(node.inputs[0]).shape, options.axis, options.batch_dims
    ends = prod(shape[:batch]), prod(shape[batch:axis]), (shape[axis],), prod(shape[axis + 1 :])
    _looked_up(node, b, *ends)


def gather_nd(node: Node, b: Builder) -> None:
    """The last axis of the indices names one entry of the leading axes."""
    shape = b.tensor(node.inputs[0]).shape
    depth = b.tensor(node.inputs[1]).shape[-1]
    _looked_up(node, b, 1, 1, shape[:depth], prod(shape[depth:]))


def _looked_up(node: Node, b: Builder, batch: int, outer: int, sizes: tuple[int, ...], inner: int) -> None:
    indices = b.tensor(node.inputs[1])
    spec = Gather(batch, outer, sizes, inner, indices.elements // (batch * len(sizes)))
    flat = [b.reshaped(b.value(i), (b.tensor(i).elements,)) for i in (*node.inputs, node.outputs[0])]
    b.emit(spec, flat[:2], flat[2])


def mirror_pad(node: Node, b: Builder) -> None:
    """Position -1 is position 1 (REFLECT) or 0 (SYMMETRIC), and so on outwards."""
    options = node.options
    assert isinstance(options, graph.MirrorPad)
    shape = b.tensor(node.inputs[0]).shape
    borders = list(zip(options.before, options.after, strict=True))
    axes = tuple(axis for axis, pair in enumerate(borders) if any(pair))
    tables = [_mirrored(shape[axis], *borders[axis], options.edge) for axis in axes]
    pick(node, b, axes, tables)


def _mirrored(size: int, before: int, after: int, edge: int) -> npt.NDArray[np.int32]:
    at = np.arange(-before, size + after)
    at = np.where(at < 0, -at - edge, at)
    return np.where(at >= size, 2 * size - 2 + edge - at, at).astype(np.int32)


def pick(node: Node, b: Builder, axes: tuple[int, ...], tables: list[npt.NDArray[np.int32]]) -> None:
    """The output's axis axes[k] takes the input's positions tables[k]."""
    index = np.concatenate([np.zeros(0, np.int32), *tables])
    b.emit(Pick(axes), (b.value(node.inputs[0]),), b.value(node.outputs[0]), {"index": index})
