"""Program -> kernel calls with addresses: cuts it into units, selects kernels, packs constants, plans memory,
shares equal code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from pilite.compiler import fuse, regions
from pilite.compiler.bands import Banded, banded
from pilite.compiler.chains import Chain
from pilite.compiler.choose import Chosen, choose, layout
from pilite.compiler.cpu import Cpu
from pilite.compiler.entry import AnyCall, Call, Pointer
from pilite.compiler.plan import Blob, Need, plan
from pilite.compiler.program import ARENA, IO, STATE, WEIGHTS, Program, Value
from pilite.compiler.regions import Region, Unit

__all__ = ["Row", "Scheduled", "layout", "schedule"]


@dataclass(frozen=True)
class Row:
    """What the manifest tells about a call: its operators, their kernels, and what `tune` chooses by."""

    operators: tuple[int, ...]
    kernels: tuple[str, ...]
    tuned_by: str


@dataclass(frozen=True, eq=False)
class Scheduled:
    """Everything that code generation needs, and what `--explain` and the manifest tell."""

    calls: tuple[AnyCall, ...]
    weights: bytes
    arena_bytes: int
    state_bytes: int  # the first ones of the arena, kept between runs
    rows: tuple[Row, ...]  # by call
    verdicts: tuple[fuse.Verdict, ...]


def schedule(program: Program, cpu: Cpu, mode: str = fuse.OFF) -> Scheduled:
    """Choose and place every stage of `program` for `cpu`. `mode`: which stages become chains (fuse.py)."""
    cut = fuse.plan(program, cpu, mode)
    chosen = [
        banded(program, unit, cpu) if isinstance(unit, Chain) else choose(program, unit, cpu)
        for unit in cut.units
    ]
    units = regions.joined(chosen, cpu.cores, mode)
    places = _Places(program, units, Blob())
    functions: dict[str, tirx.PrimFunc] = {}
    calls = tuple(_call(places, position, unit, functions) for position, unit in enumerate(units))
    rows = tuple(map(_row, units))
    verdicts = (*cut.verdicts, *(unit.verdict for unit in units if isinstance(unit, Region)))
    return Scheduled(calls, places.blob.finish(), places.arena_bytes, places.state_bytes, rows, verdicts)


def _call(places: _Places, position: int, unit: Unit, functions: dict[str, tirx.PrimFunc]) -> AnyCall:
    if isinstance(unit, Banded):
        (bands,) = places.scratch(position)
        return unit.call(bands.offset, places.value, places.constant, functions)
    if isinstance(unit, Region):
        offset = next((p.offset for p in places.scratch(position)), 0)
        return unit.call(offset, places.of, places.constant, functions)
    if unit.key not in functions:
        functions[unit.key] = unit.function()
    arguments = (
        *(places.of(i) for i in unit.stage.inputs),
        *map(places.constant, unit.constants),
        *places.scratch(position),
        places.of(unit.stage.output),
    )
    return Call(unit.key, functions[unit.key], arguments)


def _row(unit: Unit) -> Row:
    if isinstance(unit, Chosen):
        return Row((unit.stage.node,), (unit.kernel.name,), unit.tuned_by)
    nodes = dict.fromkeys(part.stage.node for part in unit.parts)
    return Row(tuple(nodes), tuple(part.kernel.name for part in unit.parts), "")


class _Places:
    """Addresses of values, constants and scratch."""

    def __init__(self, program: Program, units: Sequence[Unit], blob: Blob) -> None:
        self._program, self.blob = program, blob
        self._io = {value: i for i, value in enumerate((*program.inputs, *program.outputs))}
        lives = _lives(program, units)
        roots = sorted(lives)
        scratch = [(p, n) for p, unit in enumerate(units) for n in _scratch(unit)]
        needs = [Need(_nbytes(program.values[r]), *lives[r]) for r in roots]
        needs += [Need(n, p, p) for p, n in scratch]
        arena = plan(needs)
        states = sorted(v.index for v in program.values if v.place == STATE and v.root == v.index)
        kept = plan([Need(_nbytes(program.values[s]), 0, 0) for s in states])
        self.state_bytes = kept.nbytes
        self.arena_bytes = kept.nbytes + arena.nbytes
        self._offset = dict(zip(states, kept.offsets, strict=True))
        self._offset |= {root: kept.nbytes + at for root, at in zip(roots, arena.offsets, strict=False)}
        self._scratch: dict[int, list[Pointer]] = {}
        for (p, _), offset in zip(scratch, arena.offsets[len(roots) :], strict=True):
            self._scratch.setdefault(p, []).append(Pointer(ARENA, kept.nbytes + offset))

    def of(self, index: int) -> Pointer:
        return self.value(self._program.values[index])

    def value(self, v: Value) -> Pointer:
        if v.place == IO:
            return Pointer(IO, self._io[v.root])
        if v.place == WEIGHTS:
            assert v.data is not None
            return self.constant(v.data)
        return Pointer(ARENA, self._offset[v.root] + v.offset * np.dtype(v.dtype).itemsize)

    def constant(self, data: Any) -> Pointer:
        return Pointer(WEIGHTS, self.blob.add(np.ascontiguousarray(data).tobytes()))

    def scratch(self, position: int) -> list[Pointer]:
        return self._scratch.get(position, [])


def _nbytes(value: Value) -> int:
    return layout(value).size * np.dtype(value.dtype).itemsize


def _scratch(unit: Unit) -> tuple[int, ...]:
    if isinstance(unit, Chosen):
        return unit.scratch
    return (unit.nbytes,) if unit.nbytes else ()


def _touched(unit: Unit) -> Iterable[int]:
    """Values outside of a unit that it reads or writes."""
    if isinstance(unit, Banded):
        return (*unit.chain.outer, unit.chain.output.index)
    stages = [part.stage for part in unit.parts] if isinstance(unit, Region) else [unit.stage]
    return [i for stage in stages for i in (*stage.inputs, stage.output)]


def _lives(program: Program, units: Sequence[Unit]) -> dict[int, tuple[int, int]]:
    """First and last unit that touches each arena buffer, views counted for their root."""
    lives: dict[int, tuple[int, int]] = {}
    for position, unit in enumerate(units):
        for index in _touched(unit):
            v = program.values[index]
            if v.place == ARENA:
                lives[v.root] = (lives.get(v.root, (position, position))[0], position)
    return lives
