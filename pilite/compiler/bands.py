"""A chain with its kernels: what a band needs of the arena, and the call that computes all bands.

The kernels are those of whole values, for layouts of a few rows: equal bits by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tvm import tirx

from pilite.compiler.chains import CONVOLUTIONS, Chain, Reach, reaches
from pilite.compiler.choose import Chosen, choose
from pilite.compiler.cpu import Cpu
from pilite.compiler.entry import ChainCall, Lines, Moving, Part, Pointer
from pilite.compiler.fuse import scratch_bytes, tile_lines, weight_bytes
from pilite.compiler.kernels.emit import Share, emitting
from pilite.compiler.plan import SLACK, align
from pilite.compiler.program import Program, Stage, Value

ALONE = 0.34  # of a shared cache: lines and weights of a band while no other band runs
Functions = dict[str, tirx.PrimFunc]


@dataclass(frozen=True)
class _Memory:
    """Bytes of a chain: the scratch of every band, then the lines of all bands, by inner value."""

    scratch: tuple[tuple[int, ...], ...]  # offsets in a band, by stage
    band: int  # bytes of scratch of one
    lines: tuple[int, ...]  # offsets from the first band
    nbytes: int


@dataclass(frozen=True, eq=False)
class Banded:
    """A chain and the kernels of its stages."""

    chain: Chain
    parts: tuple[Chosen, ...]
    bands: int
    spread: float = 1.0  # most lines of a band, where fewer run, to those that it has among all

    @cached_property
    def _memory(self) -> _Memory:
        at = 0

        def take(nbytes: int) -> int:
            nonlocal at
            start, at = at, at + align(nbytes + SLACK)
            return start

        chain = self.chain
        scratch = tuple(
            tuple(take(n) for n in self.of_rows(i, rows).scratch) for i, rows in enumerate(chain.pieces)
        )
        band, at = at, at * self.bands
        sizes = [n * chain.line_bytes(v) for n, v in zip(chain.lines, chain.inner, strict=True)]
        lines = tuple(take(self.bands * size) for size in sizes)
        return _Memory(scratch, band, lines, at)

    @property
    def nbytes(self) -> int:
        """Of all bands."""
        return self._memory.nbytes

    def of_rows(self, index: int, rows: int) -> Chosen:
        """The kernel of a stage for `rows` rows of its output. Rows of its input are there, border or not."""
        chosen, chain = self.parts[index], self.chain
        stage = chosen.stage
        xs = tuple(
            chain.layout(chain.values[i], reach.end(rows) - reach.first(0))
            for i, reach in zip(stage.inputs, reaches(stage), strict=True)
        )
        y = chain.layout(chain.values[stage.output], rows)
        return replace(chosen, stage=_without_rows_around(stage), xs=xs, y=y)

    def call(
        self,
        arena: int,
        place: Callable[[Value], Pointer],
        constant: Callable[[Any], Pointer],
        functions: Functions,
    ) -> ChainCall:
        """The call, for bands at `arena`; functions that exist are used again."""
        parts = tuple(self._part(i, place, constant, functions) for i in range(len(self.parts)))
        return ChainCall(parts, self.chain.height, self.chain.rows, arena, self._memory.band, self.bands)

    def _part(
        self,
        index: int,
        place: Callable[[Value], Pointer],
        constant: Callable[[Any], Pointer],
        functions: Functions,
    ) -> Part:
        chosen = self.parts[index]
        stage = chosen.stage
        kernels = tuple(self._kernels(index, functions))
        arguments: tuple[Pointer | Moving, ...] = (
            *(self._moving(i, reach, place) for i, reach in zip(stage.inputs, reaches(stage), strict=True)),
            *map(constant, chosen.constants),
            *(Pointer("band", offset) for offset in self._memory.scratch[index]),
            self._moving(stage.output, Reach(), place),
        )
        return Part(kernels, arguments, self._lines(index))

    def _kernels(self, index: int, functions: Functions) -> Iterator[tuple[int, str, tirx.PrimFunc]]:
        for rows in self.heights(index):
            chosen = self.of_rows(index, rows)
            key = f"alone {chosen.key}"
            if key not in functions:
                with emitting(Share.ROWS):
                    functions[key] = chosen.function()
            yield rows, key, functions[key]

    def heights(self, index: int) -> tuple[int, ...]:
        """Rows of a stage's kernels."""
        part = self.parts[index]
        return self.chain.heights(index, tile_lines(part.stage, part.cpu))

    def _moving(self, index: int, reach: Reach, place: Callable[[Value], Pointer]) -> Moving:
        """Where the rows of a value lie that a stage reads or makes for row r of its output."""
        value, inner = self.chain.values[index], self._places.get(index)
        line = self.chain.line_bytes(value)
        if inner is not None:
            return Moving(inner, line, reach.stride, reach.before)
        start = place(value)
        start = replace(start, offset=start.offset + value.halo.top * line)
        return Moving(start, line, reach.stride, reach.before)

    @cached_property
    def _places(self) -> dict[int, int]:
        """Stage that makes each inner value."""
        return {value.index: i for i, value in enumerate(self.chain.inner)}

    def _lines(self, index: int) -> Lines | None:
        if index == len(self.parts) - 1:
            return None
        value = self.chain.inner[index]
        _, _, pixel, _ = self.chain.layout(value, 1).strides
        sides = (value.halo.left * pixel, value.halo.right * pixel)
        border = value.border if value.halo else None
        line, count = self.chain.line_bytes(value), self.chain.lines[index]
        start, most = self._memory.lines[index], int(count * self.spread)
        made = [stage.output for stage in self.chain.stages]
        readers = tuple((reach, made.index(y)) for reach, y in self.chain.readers(value))
        return Lines(start, line, count, most, sides, border, value.shape[1], readers)


def banded(program: Program, chain: Chain, cpu: Cpu) -> Banded:
    """Choose the kernels of a chain for `cpu`."""
    parts = tuple(choose(program, stage, cpu) for stage in chain.stages)
    return Banded(chain, parts, min(cpu.cores, chain.height), _spread(chain, cpu) if cpu.l2_shared else 1.0)


def _spread(chain: Chain, cpu: Cpu) -> float:
    """So many times its lines has a band that has a shared cache for itself."""
    return max((ALONE * cpu.l2_bytes - weight_bytes(chain.stages)) / max(scratch_bytes(chain), 1), 1.0)


def _without_rows_around(stage: Stage) -> Stage:
    """The same stage for an input whose rows above and below are part of it."""
    if not isinstance(stage.spec, CONVOLUTIONS):
        return stage
    window = stage.spec.window
    sides = replace(window, before=(0, window.before[1]), after=(0, window.after[1]))
    return replace(stage, spec=replace(stage.spec, window=sides))
