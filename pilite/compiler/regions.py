"""Regions: kernels that run one after the other on the same channels, so that one barrier serves them all.

A depthwise convolution or an addition needs of its inputs no other channels than its own. So the thread that
made some channels of an input goes on with them; the row sums that its producer needs are made by every
thread, for itself. Where the rule joins nothing, a kernel launches its own parallel loops.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import lcm, prod
from typing import Any, TypeAlias

from tvm import tirx
from tvm_ffi import structural_walk

from pilite.compiler.bands import Banded
from pilite.compiler.chains import is_border
from pilite.compiler.choose import Chosen
from pilite.compiler.entry import Call, Pointer, RegionCall, SharedPart
from pilite.compiler.fuse import ALL, BARRIER, ELEMENT, OFF, Verdict, longest, reads_by_channel
from pilite.compiler.kernels.emit import Share, emitting
from pilite.compiler.plan import SLACK, align
from pilite.compiler.spec import QConv2D, QDepthwiseConv2D

SUMMED = 2  # elements that row sums add in the time of a multiplication


@dataclass(frozen=True, eq=False)
class Region:
    """Kernels and the number of threads that share their channels."""

    parts: tuple[Chosen, ...]
    cores: int

    @cached_property
    def unit(self) -> int:
        """Channels that are whole blocks of every kernel."""
        return lcm(*(part.kernel.family.share for part in self.parts))

    @property
    def units(self) -> int:
        return self.parts[0].y.shape[-1] // self.unit

    @property
    def bands(self) -> int:
        return min(self.cores, self.units)

    @cached_property
    def _scratch(self) -> tuple[tuple[int, ...], ...]:
        """Bytes of every scratch parameter, by kernel."""
        return tuple(tuple(align(n + SLACK) for n in part.scratch) for part in self.parts)

    @property
    def _band_bytes(self) -> int:
        return sum(map(sum, self._scratch))

    @property
    def nbytes(self) -> int:
        """Scratch of all threads."""
        return self.bands * self._band_bytes

    @property
    def verdict(self) -> Verdict:
        """What `build --explain` says."""
        more = 100 * (longest(self.units, self.cores) * self.cores - 1)
        barriers = max(sum(len(_loops(part)) for part in self.parts) - 1, 0)
        return Verdict(
            tuple(dict.fromkeys(part.stage.node for part in self.parts)),
            f"one region, {self.units} x {self.unit} channels",
            f"saves {barriers} barriers; the longest thread does {more:.1f} % more than an even share",
        )

    @property
    def saving(self) -> float:
        """Multiplications of the longest thread, barriers counted, that kernels of their own do more."""
        share = longest(self.units, self.cores)
        together = BARRIER + sum(_work(p) * share + _sums(p) * (1 - 1 / self.cores) for p in self.parts)
        return sum(_alone(part, self.cores) for part in self.parts) - together

    def call(
        self,
        arena: int,
        place: Callable[[int], Pointer],
        constant: Callable[[Any], Pointer],
        functions: dict[str, tirx.PrimFunc],
    ) -> RegionCall:
        """The call, with scratch at `arena`; functions that exist are used again."""
        at = accumulate((n for one in self._scratch for n in one), initial=0)
        parts = []
        for part, scratch in zip(self.parts, self._scratch, strict=True):
            arguments = (
                *map(place, part.stage.inputs),
                *map(constant, part.constants),
                *(Pointer("band", offset) for _, offset in zip(scratch, at, strict=False)),
                place(part.stage.output),
            )
            blocks = self.unit // part.kernel.family.share
            whole = Call(part.key, _whole(part, functions), arguments)
            parts.append(SharedPart(*_function(part, functions), whole, blocks))
        return RegionCall(tuple(parts), self.units, arena, self._band_bytes, self.bands)


Unit: TypeAlias = Chosen | Banded | Region


def _whole(part: Chosen, functions: dict[str, tirx.PrimFunc]) -> tirx.PrimFunc:
    if part.key not in functions:
        functions[part.key] = part.function()
    return functions[part.key]


def _function(part: Chosen, functions: dict[str, tirx.PrimFunc]) -> tuple[str, tirx.PrimFunc]:
    key = f"shared {part.key}"
    if key not in functions:
        with emitting(Share.BLOCKS):
            functions[key] = part.function()
    return key, functions[key]


# --- the rule ------------------------------------------------------------------------------------------


def joined(units: Sequence[Chosen | Banded], cores: int, mode: str) -> list[Unit]:
    """The units with regions in the place of kernels wherever the longest thread then does less.

    `mode`: of fuse.MODES; "off" joins nothing, "all" whatever can be. Borders inside are written before.
    """
    found: list[Unit] = []
    at = 0
    while at < len(units):
        region, end = _best(units, at, cores, mode)
        found += [unit for unit in units[at:end] if _is_border(unit)] if region else [units[at]]
        found += [region] if region else []
        at = end
    return found


def _best(units: Sequence[Chosen | Banded], first: int, cores: int, mode: str) -> tuple[Region | None, int]:
    """The region that begins at `first` and saves most, if any does, and where it ends."""
    if mode == OFF or cores == 1:
        return None, first + 1
    everything = mode.startswith(ALL)
    candidates = list(_starting(units, first, cores))
    best = max(candidates, key=lambda c: len(c[0].parts) if everything else c[0].saving, default=None)
    return best if best and (everything or best[0].saving > 0) else (None, first + 1)


def _starting(units: Sequence[Chosen | Banded], first: int, cores: int) -> Iterator[tuple[Region, int]]:
    """(region, end) of every region that begins at `first`."""
    parts: list[Chosen] = []
    for position in range(first, len(units)):
        unit = units[position]
        if parts and _is_border(unit, parts[-1].stage.output):
            continue
        if not isinstance(unit, Chosen) or not (_follows(parts[-1], unit) if parts else _begins(unit)):
            return
        parts.append(unit)
        region = Region(tuple(parts), cores)
        if unit.y.shape[-1] % region.unit:
            return
        yield region, position + 1


def _begins(part: Chosen) -> bool:
    return isinstance(part.stage.spec, QConv2D | QDepthwiseConv2D) and part.kernel.family.share > 0


def _follows(before: Chosen, part: Chosen) -> bool:
    """Whether `part` reads the output of `before`, and for a channel of its own no other ones."""
    same = all(x.shape[-1] == part.y.shape[-1] for x in part.xs)
    return reads_by_channel(part.stage, before.stage) and same and part.kernel.family.share > 0


def _is_border(unit: Unit, value: int | None = None) -> bool:
    return isinstance(unit, Chosen) and is_border(unit.stage) and value in (None, unit.stage.output)


def _work(part: Chosen) -> float:
    """In multiplications."""
    if "weight" not in part.stage.arrays:
        return ELEMENT * part.y.elements
    return prod(part.y.shape[:-1]) * part.stage.arrays["weight"].size


def _sums(part: Chosen) -> float:
    """Row sums, in multiplications: one addition for every element under a window."""
    return _work(part) / part.y.shape[-1] / SUMMED if part.scratch else 0.0


@functools.cache
def _loops(part: Chosen) -> tuple[int, ...]:
    """Tasks of the parallel loops of a kernel of its own: row sums and lines that fill no tile have some."""
    found: list[int] = []

    def visit(node: tirx.For) -> None:
        if node.kind == tirx.ForKind.PARALLEL:
            found.append(int(node.extent))

    structural_walk(part.function().body, (tirx.For, visit))
    return tuple(found)


def _alone(part: Chosen, cores: int) -> float:
    """As `Region.saving` counts, for a kernel of its own."""
    loops = _loops(part)
    return len(loops) * BARRIER + _work(part) * (longest(max(loops), cores) if loops else 1)
