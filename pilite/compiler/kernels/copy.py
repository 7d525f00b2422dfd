"""Copies: places that nested loops reach in fixed steps, and places that are looked up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.emit import PARALLEL_ELEMENTS, Param, function, loop
from pilite.compiler.kernels.pointwise import copy, merge
from pilite.compiler.layout import Layout
from pilite.compiler.spec import Copy, Gather, Pick, Walk


def strided(name: str, spec: Copy, x: Layout, y: Layout) -> tirx.PrimFunc:
    """Merged loops; the innermost is a run of vectors where both sides are contiguous."""
    strides = zip(spec.extents, _steps(spec.source, x), _steps(spec.target, y), strict=True)
    dims = merge(list(strides))
    contiguous = dims[-1][1:] == (1, 1)
    length, outer = (dims[-1][0], dims[:-1]) if contiguous else (1, dims)
    ox, oy = _start(spec.source, x), _start(spec.target, y)

    def body(source: Any, out: Any) -> None:
        with nested([d[0] for d in outer], prod(spec.extents)) as at:
            here, there = (sum((i * d[side] for i, d in zip(at, outer, strict=True)), 0) for side in (1, 2))
            copy(source, out, ox + here, oy + there, length, x.dtype, y.dtype, flip=False)

    return function(name, [Param("x", x.dtype, x.size), Param("y", y.dtype, y.size)], body)


def _steps(walk: Walk, layout: Layout) -> list[int]:
    return [step * layout.strides[axis] for axis, step in zip(walk.axes, walk.steps, strict=True)]


def _start(walk: Walk, layout: Layout) -> int:
    return layout.start + sum(at * stride for at, stride in zip(walk.start, layout.strides, strict=True))


@contextmanager
def nested(extents: Sequence[int], elements: int) -> Iterator[list[Any]]:
    """Loops around a body that moves `elements` in all; threads share the outermost if that pays."""
    with ExitStack() as stack:
        shared = elements >= PARALLEL_ELEMENTS
        at = []
        for extent in extents:
            parallel = shared and extent >= 4
            at.append(stack.enter_context(loop(extent, parallel=parallel)))
            shared = shared and not parallel and extent == 1
        yield at


def pick(name: str, spec: Pick, x: Layout, y: Layout) -> tirx.PrimFunc:
    """The axes behind the last one that is looked up are copied as runs, if nothing separates them."""
    last = max(spec.axes, default=0)
    tail = list(zip(y.shape[last + 1 :], x.strides[last + 1 :], y.strides[last + 1 :], strict=True))
    (length, *steps), *rest = merge(tail)
    run = length if steps == [1, 1] and not rest else 1
    depth = last + 1 if run > 1 or prod(y.shape[last + 1 :]) == 1 else len(y.shape)
    starts = {axis: sum(y.shape[a] for a in spec.axes[:k]) for k, axis in enumerate(spec.axes)}

    def body(source: Any, index: Any, out: Any) -> None:
        with nested(y.shape[:depth], y.elements) as at:
            here: Any = x.start
            there: Any = y.start
            for axis, i in enumerate(at):
                here += (index[starts[axis] + i] if axis in starts else i) * x.strides[axis]
                there += i * y.strides[axis]
            copy(source, out, here, there, run, x.dtype, y.dtype, flip=False)

    table = Param("index", "int32", max(sum(y.shape[a] for a in spec.axes), 1))
    return function(name, [Param("x", x.dtype, x.size), table, Param("y", y.dtype, y.size)], body)


def gather(name: str, spec: Gather, x: Layout, indices: Layout, y: Layout) -> tirx.PrimFunc:
    """Row by row; an index outside takes the nearest one: what a run computes never moves a read out of x."""
    strides = [prod(spec.sizes[k + 1 :]) for k in range(len(spec.sizes))]

    def body(source: Any, index: Any, out: Any) -> None:
        with loop(spec.batch) as b, loop(spec.count) as n:
            row = (b * spec.count + n) * len(spec.sizes)
            place: Any = 0
            for k, (size, stride) in enumerate(zip(spec.sizes, strides, strict=True)):
                place += _inside(index[row + k], size, indices.dtype) * stride
            with loop(spec.outer) as o:
                here = ((b * spec.outer + o) * prod(spec.sizes) + place) * spec.inner
                there = ((b * spec.outer + o) * spec.count + n) * spec.inner
                copy(source, out, here, there, spec.inner, x.dtype, y.dtype, flip=False)

    params = [Param("x", x.dtype, x.size), Param("indices", indices.dtype, indices.size)]
    return function(name, [*params, Param("y", y.dtype, y.size)], body)


def _inside(value: Any, size: int, dtype: str) -> Any:
    low, high = (tirx.IntImm(dtype, limit) for limit in (0, size - 1))
    return T.Cast("int32", tirx.min(tirx.max(value, low), high))
