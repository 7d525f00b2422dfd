"""Program -> kernel calls with addresses: selects kernels, packs constants, plans memory,
shares equal code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pilite.compiler.aot import Call, Pointer
from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels import Constants, Kernel
from pilite.compiler.kernels.isa import ISAS
from pilite.compiler.kernels.tuning import choose, class_of
from pilite.compiler.layout import Layout
from pilite.compiler.plan import Blob, Need, plan
from pilite.compiler.program import ARENA, IO, STATE, WEIGHTS, Program, Stage, Value
from pilite.compiler.prove import bounded, cheaper
from pilite.compiler.spec import QConv2D, QDepthwiseConv2D


@dataclass(frozen=True, eq=False)
class Scheduled:
    """Everything that code generation needs, and what `--explain` and the manifest tell."""

    calls: tuple[Call, ...]
    weights: bytes
    arena_bytes: int
    state_bytes: int  # the first ones of the arena, kept between runs
    kernels: tuple[str, ...]  # by call
    classes: tuple[str, ...]  # by call: what `tune` chooses by; "" where there is nothing to choose


@dataclass(frozen=True, eq=False)
class _Chosen:
    stage: Stage
    kernel: Kernel
    cpu: Cpu  # with the tile that was chosen
    variant: Any
    constants: Constants
    xs: tuple[Layout, ...]
    y: Layout
    scratch: tuple[int, ...]

    @property
    def key(self) -> str:
        return repr((self.kernel.name, self.cpu.tiles, self.stage.spec, self.variant, self.xs, self.y))


def schedule(program: Program, cpu: Cpu) -> Scheduled:
    """Choose and place every stage of `program` for `cpu`."""
    chosen = [_choose(program, stage, cpu) for stage in program.stages]
    blob = Blob()
    places = _Places(program, chosen, blob)
    functions: dict[str, Any] = {}
    calls = []
    for position, c in enumerate(chosen):
        if c.key not in functions:
            functions[c.key] = c.kernel.family.emit("kernel", c.stage.spec, c.variant, c.xs, c.y, c.cpu)
        arguments = (
            *(places.value(i) for i in c.stage.inputs),
            *(Pointer(WEIGHTS, blob.add(np.ascontiguousarray(a).tobytes())) for a in c.constants),
            *places.scratch(position),
            places.value(c.stage.output),
        )
        calls.append(Call(c.key, functions[c.key], arguments))
    names = tuple(c.kernel.name for c in chosen)
    classes = tuple(class_of(c.stage.spec, c.stage.arrays, c.y) for c in chosen)
    return Scheduled(tuple(calls), blob.finish(), places.arena_bytes, places.state_bytes, names, classes)


def layout(value: Value) -> Layout:
    return Layout(value.shape, value.dtype, value.halo)


def _choose(program: Program, stage: Stage, cpu: Cpu) -> _Chosen:
    if isinstance(stage.spec, (QConv2D, QDepthwiseConv2D)) and ISAS[cpu.isa].fuses:
        spec, arrays = cheaper(stage.spec, stage.arrays)
        stage = replace(stage, spec=spec, arrays=arrays)
    elif cpu.unzips and isinstance(stage.spec, (QConv2D, QDepthwiseConv2D)):
        stage = replace(stage, spec=bounded(stage.spec, stage.arrays))
    y = layout(program.values[stage.output])
    kernel, cpu = choose(stage.spec, stage.arrays, y, cpu)
    variant, constants = kernel.family.prepare(stage.spec, stage.arrays)
    xs = tuple(layout(program.values[i]) for i in stage.inputs)
    return _Chosen(stage, kernel, cpu, variant, constants, xs, y, kernel.family.scratch(variant, y))


class _Places:
    """Addresses of values and scratch."""

    def __init__(self, program: Program, chosen: Sequence[_Chosen], blob: Blob) -> None:
        self._program, self._blob = program, blob
        self._io = {value: i for i, value in enumerate((*program.inputs, *program.outputs))}
        lives = _lives(program)
        roots = sorted(lives)
        scratch = [(p, n) for p, c in enumerate(chosen) for n in c.scratch]
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

    def value(self, index: int) -> Pointer:
        v = self._program.values[index]
        if v.place == IO:
            return Pointer(IO, self._io[v.root])
        if v.place == WEIGHTS:
            assert v.data is not None
            return Pointer(WEIGHTS, self._blob.add(np.ascontiguousarray(v.data).tobytes()))
        return Pointer(ARENA, self._offset[v.root] + v.offset * np.dtype(v.dtype).itemsize)

    def scratch(self, position: int) -> list[Pointer]:
        return self._scratch.get(position, [])


def _nbytes(value: Value) -> int:
    return layout(value).size * np.dtype(value.dtype).itemsize


def _lives(program: Program) -> dict[int, tuple[int, int]]:
    """First and last stage that touches each arena buffer, views counted for their root."""
    lives: dict[int, tuple[int, int]] = {}
    for position, stage in enumerate(program.stages):
        for index in (*stage.inputs, stage.output):
            v = program.values[index]
            if v.place == ARENA:
                lives[v.root] = (lives.get(v.root, (position, position))[0], position)
    return lives
