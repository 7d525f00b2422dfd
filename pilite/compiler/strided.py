"""The options of STRIDED_SLICE: begin, end, step and five masks become positions along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import Tensor
from pilite.compiler.operands import Operands, Refused, Unfit, constant, number, operand
from pilite.compiler.schema import MOVES, StridedSliceOptions


def strided_slice(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    """What the masks leave of begin, end and step; the arithmetic is that of Python's slices."""
    x = operand(operands, 0)
    given = [constant(operands, i, what) for i, what in ((1, "begin"), (2, "end"), (3, "strides"))]
    if len({len(values) for values in given}) > 1 or 0 in given[2]:
        raise Unfit(f"its begin, end and strides are {given}: of different lengths, or with a step of 0")
    if number(stored, StridedSliceOptions.offset, "bool"):
        raise Refused(
            "its end counts from its begin (option offset); convert the model with an older converter"
        )
    masks = [number(stored, f.slots[0], "int32") for f in MOVES["STRIDED_SLICE"].fields]
    entries = _entries(x, list(zip(*given, strict=True)), masks[2], masks[3])
    begin, step, count, shape = [], [], [], []
    for axis, bit, values in entries:
        if axis < 0:  # a new axis
            shape.append(1)
            continue
        span, shrunk = _span(x.shape[axis], values, bit, masks)
        begin.append(span.start)
        step.append(span.step)
        count.append(len(span))
        shape += [] if shrunk else [len(span)]
    lists = {"begin": begin, "step": step, "count": count, "shape": shape}
    return {name: tuple(values) for name, values in lists.items()}


Entry = tuple[int, int, tuple[int, ...]]  # axis of the input or -1, bit in the masks, (begin, end, step)
WHOLE = (0, 0, 1)  # with the bits below set in the masks


def _entries(x: Tensor, given: Sequence[tuple[int, ...]], ellipsis: int, new: int) -> list[Entry]:
    """One entry per axis of the input and per new axis; an ellipsis, and the end, take what is not named."""
    rank = len(x.shape)
    dots = [i for i in range(len(given)) if ellipsis >> i & 1]
    named = sum(not (new >> i & 1) for i in range(len(given)) if i not in dots)
    if len(dots) > 1 or named > rank:
        raise Unfit(f"it names {named} of {rank} dimensions with {len(dots)} ellipses")
    entries: list[Entry] = []
    axis = 0
    for i, values in enumerate(given):
        if i in dots:
            entries += [(axis + k, -1, WHOLE) for k in range(rank - named)]
            axis += rank - named
        elif new >> i & 1:
            entries.append((-1, i, values))
        else:
            entries.append((axis, i, values))
            axis += 1
    return entries + [(k, -1, WHOLE) for k in range(axis, rank)]


def _span(size: int, values: tuple[int, ...], bit: int, masks: Sequence[int]) -> tuple[range, bool]:
    """The positions along one axis, and whether it is dropped from the output's shape."""
    begin, end, step = values
    if bit < 0:
        return range(size), False
    open_begin, open_end, shrunk = (mask >> bit & 1 for mask in (masks[0], masks[1], masks[4]))
    span = range(*slice(None if open_begin else begin, None if open_end else end, step).indices(size))
    if not shrunk:
        return span, False
    if step < 1 or not 0 <= span.start < size:
        raise Unfit(f"it takes entry {begin} with step {step} of an axis of {size}")
    return range(span.start, span.start + 1), True
