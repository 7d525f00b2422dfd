"""Chains: stages computed together, a few rows at a time, so that what lies between them stays in the cache.

A step makes `rows` rows of the last value of a chain. Going backwards, each value in between needs some rows
for that; it keeps those in lines of a small buffer. What is new is made behind what the step before has left;
where the buffer ends, what is needed again moves to its front: nothing is computed twice. Lines above and
below the image hold the border. A band, the share of one thread, is a range of rows that it walks in steps of
its own; its first step makes all rows that it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from pilite.compiler.layout import Halo, Layout
from pilite.compiler.program import ARENA, WEIGHTS, Program, Stage, Value
from pilite.compiler.spec import Fill, QAdd, QConv2D, QDepthwiseConv2D, QWeightedAdd

CONVOLUTIONS = (QConv2D, QDepthwiseConv2D)
ADDITIONS = (QAdd, QWeightedAdd)


@dataclass(frozen=True)
class Reach:
    """The input rows that an output row is made of: `size` from row * stride - before on."""

    size: int = 1
    stride: int = 1
    before: int = 0

    def first(self, row: int) -> int:
        return row * self.stride - self.before

    def end(self, row: int) -> int:
        """Behind the last input row of the output rows that end before `row`."""
        return self.first(row - 1) + self.size


@dataclass(frozen=True)
class Rows:
    """Rows of a value that a step holds: [first, end) of the image, and border up to `need`.

    `again`: the first one that is needed behind the step before, whose rows need not be made anew.
    Both are negative above the image.
    """

    first: int
    again: int
    end: int
    need: int

    @property
    def count(self) -> int:
        return self.need - self.first

    @property
    def below(self) -> int:
        """Where the border below the image begins, or what is needed of it if all rows were used."""
        return max(self.end, self.again)


@dataclass(frozen=True, eq=False)
class Chain:
    """Consecutive stages of a program, the borders between them left out, and the rows of a step.

    `room`: how many steps can add their rows to a buffer before rows move. `known`: what `band` found for
    these `rows`, whatever the room.
    """

    stages: tuple[Stage, ...]
    values: tuple[Value, ...]  # of the program
    rows: int
    room: int = 1
    known: dict[tuple[int, int], tuple[tuple[Rows, ...], ...]] = field(default_factory=dict, repr=False)

    @property
    def output(self) -> Value:
        return self.values[self.stages[-1].output]

    @property
    def inner(self) -> tuple[Value, ...]:
        """What lies between the stages, in the order of the stages that make it."""
        return tuple(self.values[stage.output] for stage in self.stages[:-1])

    @property
    def outer(self) -> frozenset[int]:
        """Values outside that the chain reads."""
        inner = {v.index for v in self.inner}
        return frozenset(i for stage in self.stages for i in stage.inputs if i not in inner)

    @property
    def height(self) -> int:
        """Rows of the output."""
        return self.output.shape[1]

    def band(self, first: int, end: int) -> tuple[tuple[Rows, ...], ...]:
        """The rows of every value, by step and stage, in a band that makes these rows of the output."""
        if (first, end) not in self.known:
            found: list[tuple[Rows, ...]] = []
            for row in range(first, end, self.rows):
                found.append(self._step(row, min(row + self.rows, end), found[-1] if found else ()))
            self.known[first, end] = tuple(found)
        return self.known[first, end]

    def _step(self, first: int, need: int, before: Sequence[Rows] = ()) -> tuple[Rows, ...]:
        """What entry.py computes in C."""
        made = {stage.output: rows.end for stage, rows in zip(self.stages, before, strict=False)}
        found = {self.output.index: Rows(first, first, need, need)}
        for value in reversed(self.inner):
            readers = self.readers(value)
            need = max(reach.end(found[y].end) for reach, y in readers)
            first = min(reach.first(found[y].first) for reach, y in readers)
            again = min(reach.first(max(made.get(y, found[y].first), found[y].again)) for reach, y in readers)
            found[value.index] = Rows(first, again, min(need, value.shape[1]), need)
        return tuple(found[stage.output] for stage in self.stages)

    def readers(self, value: Value) -> list[tuple[Reach, int]]:
        """The reaches into an inner value, and what is made from it."""
        return [(reach, s.output) for s in self.stages for reach in reaches_of(s, value.index)]

    @cached_property
    def lines(self) -> tuple[int, ...]:
        """Lines that the buffer of each inner value has: what any step holds, and room if rows are kept."""
        columns = self._columns(0, self.height)
        return tuple(_lines(c, piece, self.room) for c, piece in zip(columns, self.pieces, strict=False))

    def _columns(self, first: int, end: int) -> Sequence[Sequence[Rows]]:
        """The rows of all steps of a band, by inner value."""
        return list(zip(*self.band(first, end), strict=True))[:-1]

    def copied(self, first: int, end: int) -> int:
        """Bytes that a band moves over all steps, in lines of its own."""
        values = zip(self._columns(first, end), self.lines, self.inner, strict=True)
        return sum(_moved(column, count) * self.line_bytes(v) for column, count, v in values)

    @cached_property
    def pieces(self) -> tuple[int, ...]:
        """Rows that one call of each stage makes where there are as many: what a step adds."""
        strides = [1] * len(self.stages)
        place = {stage.output: i for i, stage in enumerate(self.stages)}
        for i in range(len(self.stages) - 1, -1, -1):
            for value, reach in zip(self.stages[i].inputs, reaches(self.stages[i]), strict=True):
                if value in place:
                    strides[place[value]] = strides[i] * reach.stride
        heights = [self.values[stage.output].shape[1] for stage in self.stages]
        return tuple(min(self.rows * s, h) for s, h in zip(strides, heights, strict=True))

    def made_by_step(self, first: int, end: int) -> list[list[int]]:
        """Rows that each stage makes in every step of a band; strides beyond their windows skip some."""
        columns = zip(*self.band(first, end), strict=True)
        return [
            [_made(column[0]), *(max(b.end - max(a.end, b.again), 0) for a, b in pairwise(column))]
            for column in columns
        ]

    def heights(self, index: int, tile: int) -> tuple[int, ...]:
        """Rows of the kernels of a stage, the most first: those of a step, those of the last step of a band
        alone, those of a register tile that wants several, and one.
        """
        piece = self.pieces[index]
        return tuple(sorted({piece, self._last[index] % piece or 1, min(piece, tile), 1}, reverse=True))

    @cached_property
    def _last(self) -> list[int]:
        """Rows that each stage makes in the last step in which it makes any, of a band alone."""
        return [next(n for n in reversed(made) if n) for made in self.made_by_step(0, self.height)]

    def layout(self, value: Value, rows: int) -> Layout:
        """`rows` lines of a value, with the border at their ends."""
        _, _, width, channels = value.shape
        sides = Halo(0, value.halo.left, 0, value.halo.right)
        return Layout((1, rows, width, channels), value.dtype, sides)

    def line_bytes(self, value: Value) -> int:
        return self.layout(value, 1).size

    def made(self, bands: int) -> tuple[int, ...]:
        """Rows that each stage makes if so many bands share the rows of the output."""
        steps = [self._step(first, end) for first, end in self.bands(min(bands, self.height))]
        return tuple(sum(map(_made, column)) for column in zip(*steps, strict=True))

    def bands(self, count: int) -> list[tuple[int, int]]:
        """The rows of the output that each of so many bands makes."""
        edges = [self.height * band // count for band in range(count + 1)]
        return list(pairwise(edges))


def _made(rows: Rows) -> int:
    """Rows that a band makes that begins with these."""
    return max(rows.end - max(rows.first, 0), 0)


def calls(rows: int, heights: Sequence[int]) -> Iterator[int]:
    """The rows of each call that makes so many: the most first."""
    for height in heights:
        yield from [height] * (rows // height)
        rows %= height


def _lines(column: Sequence[Rows], piece: int, room: int) -> int:
    most = max(rows.count for rows in column)
    keeps = any(after.again < rows.end for rows, after in pairwise(column))
    return most + piece * (room - 1) if keeps else most


def _moved(column: Sequence[Rows], lines: int) -> int:
    """Rows that move to the front, over all steps."""
    return sum(moved for _, moved in placed(column, lines))


def placed(column: Sequence[Rows], lines: int) -> Iterator[tuple[int, int]]:
    """The line of row 0 in each step of one band, and the rows that move: what `kept` of entry.py does."""
    at = -column[0].first
    yield at, 0
    for rows, after in pairwise(column):
        again = max(rows.end - after.again, 0)
        ends = not again or at + after.need > lines
        at = -after.again if ends else at
        yield at, again if ends else 0


def reaches(stage: Stage) -> tuple[Reach, ...]:
    """The reach of a stage into each of its inputs."""
    if not isinstance(stage.spec, CONVOLUTIONS):
        return (Reach(),) * len(stage.inputs)
    window = stage.spec.window
    size = (window.kernel[0] - 1) * window.dilation[0] + 1
    return (Reach(size, window.stride[0], window.before[0]),)


def reaches_of(stage: Stage, value: int) -> Iterator[Reach]:
    """The reaches of a stage into one value."""
    return (reach for i, reach in zip(stage.inputs, reaches(stage), strict=True) if i == value)


# --- which stages can be a chain -----------------------------------------------------------------------


def by_rows(program: Program, stage: Stage) -> bool:
    """Whether rows of the output depend on a few rows of the inputs, and kernels can be given those alone."""
    y = program.values[stage.output]
    if not _image(y) or y.place != ARENA or y.root != y.index or y.shape[1] < 2:
        return False
    xs = [program.values[i] for i in stage.inputs]
    if isinstance(stage.spec, CONVOLUTIONS):
        return _image(xs[0]) and xs[0].place == ARENA
    same = all(x.shape == y.shape and x.place in (ARENA, WEIGHTS) for x in xs)
    return isinstance(stage.spec, ADDITIONS) and same


def _image(value: Value) -> bool:
    return len(value.shape) == 4 and value.shape[0] == 1 and value.dtype == "int8"


class Candidates:
    """Every part of a program that can be a chain."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._by_rows = [by_rows(program, stage) for stage in program.stages]
        self._last_reader: dict[int, int] = {}
        for position, stage in enumerate(program.stages):
            for index in stage.inputs:
                self._last_reader[program.values[index].root] = position
        self._shared = {v.root for v in program.values if v.root != v.index}

    def starting(self, first: int) -> Iterator[tuple[int, tuple[Stage, ...]]]:
        """(end, stages) of every chain of two or more that begins at stage `first`, the shortest first."""
        stages: list[Stage] = []
        inner: set[int] = set()
        for position in range(first, len(self._program.stages)):
            stage = self._program.stages[position]
            if is_border(stage):
                if stage.output not in inner:
                    return
                continue
            if not self._by_rows[position] or (stages and inner.isdisjoint(stage.inputs)):
                return
            stages.append(stage)
            if len(stages) > 1 and all(self._last_reader[i] <= position for i in inner):
                yield position + 1, tuple(stages)
            if stage.output in self._shared or stage.output not in self._last_reader:
                return
            inner.add(stage.output)


def is_border(stage: Stage) -> bool:
    """Whether it writes only the border of a value."""
    return isinstance(stage.spec, Fill) and not stage.spec.whole


def chain(program: Program, stages: Sequence[Stage], rows: int, room: int = 1) -> Chain:
    """The chain of these stages whose steps make so many rows."""
    height = program.values[stages[-1].output].shape[1]
    return Chain(tuple(stages), program.values, min(rows, height), room)
