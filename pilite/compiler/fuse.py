"""Which stages become chains: a rule on bytes and caches, the same for every model.

A value between two stages that does not fit SURVIVES of the second-level cache, together with what is
made from it, is gone before it is read: it costs three times its bytes of memory traffic (allocated, written
back, read). Of all ways to cut the program into chains, the one with the least such traffic is chosen, among
equals the one whose threads idle least (barriers, uneven shares, rows computed twice), then the one that
chains fewest stages. A chain fits if the lines of all bands that share a cache and its weights take at most
half of it (of a cache of their own as much as survives there), its weights, which every step reads, a
quarter, and if bands compute little twice. Without saving traffic it must cost one thread little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import TypeAlias

from pilite.compiler.chains import ADDITIONS, CONVOLUTIONS, Candidates, Chain, calls, chain, is_border
from pilite.compiler.choose import layout
from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels import tuning
from pilite.compiler.kernels.emit import PARALLEL_ELEMENTS, PARALLEL_MACS
from pilite.compiler.layout import Layout
from pilite.compiler.program import ARENA, Program, Stage, Value
from pilite.compiler.spec import QDepthwiseConv2D
from pilite.errors import PiliteError

OFF, AUTO, ALL = "off", "auto", "all"
MODES = (OFF, AUTO, ALL)
DEFAULT = AUTO
MOST_ROWS = 14  # of a step
ROOMS = (1, 2, 3, 4, 6, 8, 12, 16)  # steps behind each other in a buffer
CALL = 512  # bytes that move in the time in which a kernel is called and begins
LINES = 0.25  # bytes that move for each byte of lines, which comes from memory in every run
SURVIVES = 0.7  # of the cache: a value and what is made from it
TRAFFIC = 3  # bytes of memory traffic for each byte of a value that the cache loses
BARRIER = PARALLEL_MACS  # multiplications that one thread does while a parallel region begins and ends
ELEMENT = PARALLEL_MACS / PARALLEL_ELEMENTS  # multiplications in the time of an element that is not summed
BLOCK = 16  # channels that kernels want together, at most, where threads share channels
TWICE_OF_CHAIN, TWICE_OF_MODEL = 0.05, 0.03  # of their multiplications, at most, with all bands

Unit: TypeAlias = Stage | Chain


@dataclass(frozen=True)
class Verdict:
    """What `build --explain` says about a chain, or about a value that stays in memory."""

    operators: tuple[int, ...]
    how: str
    why: str


@dataclass(frozen=True, eq=False)
class Plan:
    """The units in order."""

    units: tuple[Unit, ...]
    verdicts: tuple[Verdict, ...] = ()


def check(mode: str) -> None:
    """Raises PiliteError if there is no such mode. "all@3": whatever can be is chained, 3 rows a step."""
    name, at, rows = mode.partition("@")
    if name not in MODES or (at and not (name == ALL and rows.isdecimal() and int(rows))):
        raise PiliteError(f"no fusing '{mode}': choose one of {', '.join(MODES)}.")


def plan(program: Program, cpu: Cpu, mode: str) -> Plan:
    """Cut `program` into units. `mode`: see `check`."""
    if mode == OFF:
        return Plan(program.stages)
    name, _, rows = mode.partition("@")
    rule = _Rule(program, cpu, name == ALL, int(rows or 0))
    units = _cheaper_than_model(rule, _cut(rule))
    return Plan(units, tuple(_verdicts(rule, units)))


@dataclass(frozen=True, eq=False)
class _Rule:
    program: Program
    cpu: Cpu
    everything: bool
    rows: int  # of a step; 0: chosen

    def chain(self, stages: Sequence[Stage]) -> Chain:
        """With the rows and the room that fit and cost least: see `_calls` and `_moves`.

        Not with calls of one depthwise tile, if it can be: LLVM makes slower code of one than of several.
        """
        if self.rows:
            return chain(self.program, stages, self.rows, 1 + self.rows % 3)
        height = self.program.values[stages[-1].output].shape[1]
        most = min(MOST_ROWS, max(height // self.cpu.cores, 1))
        steps = [chain(self.program, stages, rows) for rows in range(1, most + 1)]
        options = [replace(c, room=room) for c in steps for room in ROOMS]
        fitting = [c for c in options if self.bytes(c) <= self._room] or options[:1]
        fixed = {c.rows: self._calls(c) for c in steps}
        return min(fitting, key=lambda c: (self._is_single(c), fixed[c.rows] + self._moves(c), c.rows))

    def _is_single(self, c: Chain) -> bool:
        tiles = [(tile_lines(s, self.cpu), rows) for s, rows in zip(c.stages, c.pieces, strict=True)]
        return any(lines > 1 and rows < 2 * lines for lines, rows in tiles)

    def _moves(self, c: Chain) -> float:
        """Bytes that move in a band alone and in those of all cores, and what their lines cost."""
        return sum(count * (c.copied(*band) + LINES * scratch_bytes(c)) for count, band in self._bands(c))

    def _calls(self, c: Chain) -> int:
        """Bytes that move in the time of the calls, and of the lines that depthwise tiles lack in them."""
        tiles = [tile_lines(stage, self.cpu) for stage in c.stages]
        heights = [c.heights(index, tile) for index, tile in enumerate(tiles)]
        lines = [prod(c.values[stage.output].shape[2:]) for stage in c.stages]
        cost = 0
        for count, band in self._bands(c):
            for steps, tile, rows, line in zip(c.made_by_step(*band), tiles, heights, lines, strict=True):
                sizes = [size for made in steps for size in calls(made, rows)]
                cost += count * sum(CALL + line * (-size % tile) for size in sizes)
        return cost

    def _bands(self, c: Chain) -> list[tuple[int, tuple[int, int]]]:
        """How many bands are like which one: if one runs alone, and with those of all cores."""
        return [(n, c.bands(n)[n // 2]) for n in sorted({1, min(self.cpu.cores, c.height)})]

    @property
    def _room(self) -> int:
        """Bytes of the second-level cache for a chain; as much as survives in one that nobody shares."""
        return self.cpu.l2_bytes // 2 if self.cpu.l2_shared else int(SURVIVES * self.cpu.l2_bytes)

    def bytes(self, c: Chain) -> int:
        """In one cache at the same time."""
        return min(self._sharing, c.height) * scratch_bytes(c) + weight_bytes(c.stages)

    @property
    def _sharing(self) -> int:
        """Threads that use the same second-level cache."""
        return self.cpu.cores if self.cpu.l2_shared else 1

    def refusal(self, c: Chain) -> str:
        """Why a chain does not fit; "" if it does."""
        if self.everything:
            return ""
        quarter = self.cpu.l2_bytes // 4
        if weight_bytes(c.stages) > quarter:
            return f"weights of {_kb(weight_bytes(c.stages))} in every step, more than {_kb(quarter)}"
        if self.bytes(c) > self._room:
            return f"{_kb(self.bytes(c))} for {self._sharing} threads, more than {_kb(self._room)}"
        if self.repeats(c):
            return f"bands of {self.cpu.cores} threads compute {_percent(c, self.cpu.cores)} twice"
        return "" if self.pays(c) else "saves barriers, but costs one thread time"

    def repeats(self, c: Chain) -> bool:
        """Whether bands compute too much twice, whatever the rows of a step."""
        return not self.everything and twice(c, self.cpu.cores) > TWICE_OF_CHAIN * macs(c.stages, c.values)

    def traffic(self, value: Value) -> int:
        """Bytes of memory traffic if `value` lies between two units."""
        lost = self.everything or self._held[value.root] > SURVIVES * self.cpu.l2_bytes
        return TRAFFIC * _size(value) if value.place == ARENA and lost else 0

    def pays(self, c: Chain) -> bool:
        """Whether a chain saves traffic; or barriers, at a price that one thread of a Pi hardly pays: no row
        moves or is made again, and a step does so much that neither calls count nor tiles that are not full.
        """
        if any(map(self.traffic, c.inner)):
            return True
        enough = PARALLEL_MACS * -(-c.height // c.rows)
        again = c.copied(0, c.height) + twice(c, self.cpu.cores)
        return not again and sum(map(self.work, c.stages)) >= enough

    @property
    def barrier(self) -> int:
        """One thread alone waits for nobody."""
        return BARRIER if self.cpu.cores > 1 else 0

    def idle(self, unit: Unit) -> float:
        """Multiplications that the longest thread does beyond an even share of `unit`, barriers counted."""
        cores = self.cpu.cores
        if isinstance(unit, Chain):
            return self.least_idle(unit.stages) + twice(unit, cores) / cores
        work = self.work(unit)
        return self.barrier if work >= PARALLEL_MACS else work * (1 - 1 / cores)

    def least_idle(self, stages: Sequence[Stage]) -> float:
        """What `idle` is at least for any chain of these stages."""
        height = self.program.values[stages[-1].output].shape[1]
        return self.barrier + sum(map(self.work, stages)) * _uneven(height, self.cpu.cores)

    def work(self, stage: Stage) -> float:
        """Of one stage, in multiplications."""
        values = self.program.values
        return macs((stage,), values) or ELEMENT * prod(values[stage.output].shape)

    def in_one_region(self, stage: Stage, reader: Stage) -> bool:
        """Whether one barrier can serve both (regions.py)."""
        by_channel = reads_by_channel(reader, stage) and isinstance(stage.spec, CONVOLUTIONS)
        return by_channel and all(map(self._shares, (stage, reader)))

    def _shares(self, stage: Stage) -> bool:
        """Whether threads can share the channels of its kernel."""
        y = self.program.values[stage.output]
        return tuning.choose(stage.spec, stage.arrays, layout(y), self.cpu)[0].family.share > 0

    @cached_property
    def _held(self) -> dict[int, int]:
        """By value: its bytes and those of the largest one that is made from it, or as many again."""
        values = self.program.values
        made = dict.fromkeys((v.root for v in values), 0)
        for stage in self.program.stages:
            for root in {values[i].root for i in stage.inputs}:
                made[root] = max(made[root], _size(values[stage.output]))
        return {root: _size(values[root]) + min(_size(values[root]), most) for root, most in made.items()}


@dataclass(frozen=True)
class _Best:
    """The best way to cut what begins at a stage: its first units, where the next begin, the cost of all."""

    traffic: int = 0
    idle: float = 0
    chained: int = 0
    units: tuple[Unit, ...] = ()
    end: int = 0

    @property
    def cost(self) -> tuple[int, float, int]:
        return self.traffic, self.idle, self.chained


def _cut(rule: _Rule) -> tuple[Unit, ...]:
    """The cheapest sequence of units, from the end."""
    stages, candidates = rule.program.stages, Candidates(rule.program)
    best = [_Best()] * (len(stages) + 1)
    for first in range(len(stages) - 1, -1, -1):
        best[first] = min(_single(rule, best, first), _pair(rule, best, first), key=lambda b: b.cost)
        for end, members in candidates.starting(first):
            if not rule.everything and weight_bytes(members) > rule.cpu.l2_bytes // 4:
                break
            after = best[end]
            traffic = after.traffic + rule.traffic(rule.program.values[members[-1].output])
            if (traffic, after.idle + rule.least_idle(members)) >= best[first].cost[:2]:
                continue
            if rule.repeats(chain(rule.program, members, 1)) or rule.refusal(found := rule.chain(members)):
                continue
            made = _Best(traffic, after.idle + rule.idle(found), after.chained + len(members), (found,), end)
            best[first] = min(best[first], made, key=lambda b: b.cost)
    return tuple(_path(best))


def _single(rule: _Rule, best: Sequence[_Best], first: int) -> _Best:
    """The stage `first` for itself."""
    stage, after = rule.program.stages[first], best[first + 1]
    traffic = after.traffic + rule.traffic(rule.program.values[stage.output])
    return _Best(traffic, after.idle + rule.idle(stage), after.chained, (stage,), first + 1)


def _pair(rule: _Rule, best: Sequence[_Best], first: int) -> _Best:
    """The stage `first` and what reads its output by channels, which one barrier serves (regions.py)."""
    stages = rule.program.stages
    end = first + 1
    while end < len(stages) and is_border(stages[end]):
        end += 1
    single = _single(rule, best, first)
    if end == len(stages) or not rule.in_one_region(stages[first], stages[end]):
        return single
    after = _single(rule, best, end)
    traffic = after.traffic + rule.traffic(rule.program.values[stages[first].output])
    blocks = max(rule.program.values[stages[first].output].shape[-1] // BLOCK, 1)
    work = rule.work(stages[first]) + rule.work(stages[end])
    idle = best[end + 1].idle + rule.barrier + work * _uneven(blocks, rule.cpu.cores)
    return _Best(traffic, idle, after.chained, tuple(stages[first : end + 1]), end + 1)


def reads_by_channel(reader: Stage, stage: Stage) -> bool:
    """Whether `reader` needs of the output of `stage`, for a channel of its own, no other ones."""
    return isinstance(reader.spec, (QDepthwiseConv2D, *ADDITIONS)) and stage.output in reader.inputs


def _path(best: Sequence[_Best]) -> list[Unit]:
    units: list[Unit] = []
    at = 0
    while at < len(best) - 1:
        units += best[at].units
        at = best[at].end
    return units


def _cheaper_than_model(rule: _Rule, units: Sequence[Unit]) -> tuple[Unit, ...]:
    """Without the chains that compute most twice, as long as all together compute too much twice."""
    limit = TWICE_OF_MODEL * macs(rule.program.stages, rule.program.values)
    kept = sorted((u for u in units if isinstance(u, Chain)), key=lambda c: twice(c, rule.cpu.cores))
    while not rule.everything and sum(twice(c, rule.cpu.cores) for c in kept) > limit:
        kept.pop()
    if len(kept) == sum(isinstance(u, Chain) for u in units):
        return tuple(units)
    chained = {id(stage): c for c in kept for stage in c.stages}
    return tuple(_regrouped(rule.program, chained))


def _regrouped(program: Program, chained: Mapping[int, Chain]) -> list[Unit]:
    """The program with these chains in the place of their stages, and without their inner borders."""
    inner = {v.index for c in chained.values() for v in c.inner}
    units: list[Unit] = []
    for stage in program.stages:
        found = chained.get(id(stage))
        if found is None and stage.output not in inner:
            units.append(stage)
        elif found is not None and stage is found.stages[-1]:
            units.append(found)
    return units


def longest(tasks: int, threads: int) -> float:
    """The part of `tasks` equal ones that the longest thread does."""
    return -(-tasks // threads) / tasks


def _uneven(tasks: int, threads: int) -> float:
    """The longest share of `tasks` that `threads` share, beyond an even one; both as parts of all."""
    return longest(tasks, threads) - 1 / threads


# --- sizes ---------------------------------------------------------------------------------------------


def _size(value: Value) -> int:
    return Layout(value.shape, value.dtype, value.halo).size


def scratch_bytes(c: Chain) -> int:
    """Lines of all inner values, for one band."""
    return sum(n * c.line_bytes(v) for n, v in zip(c.lines, c.inner, strict=True))


def weight_bytes(stages: Sequence[Stage]) -> int:
    """Constants that a kernel reads: 8-bit weights, and 16 bytes of bias and requantization a channel."""
    return sum(s.arrays["weight"].size + 16 * s.arrays["bias"].size for s in stages if "weight" in s.arrays)


def tile_lines(stage: Stage, cpu: Cpu) -> int:
    """Lines of the register tile of its kernel."""
    return cpu.depthwise_lines if isinstance(stage.spec, QDepthwiseConv2D) else 1


def macs(stages: Sequence[Stage], values: Sequence[Value]) -> int:
    """Multiplications of the convolutions."""
    return sum(prod(values[s.output].shape[1:3]) * _macs_a_pixel(s) for s in stages)


def twice(c: Chain, bands: int) -> int:
    """Multiplications that are done again because bands do not share rows."""
    extra = [made - c.values[s.output].shape[1] for s, made in zip(c.stages, c.made(bands), strict=True)]
    widths = [c.values[s.output].shape[2] for s in c.stages]
    return sum(max(n, 0) * w * _macs_a_pixel(s) for n, w, s in zip(extra, widths, c.stages, strict=True))


def _macs_a_pixel(stage: Stage) -> int:
    return stage.arrays["weight"].size if isinstance(stage.spec, CONVOLUTIONS) else 0


def _percent(c: Chain, bands: int) -> str:
    return f"{100 * twice(c, bands) / max(macs(c.stages, c.values), 1):.1f} %"


def _kb(nbytes: int) -> str:
    return f"{nbytes / 1024:.0f} KB"


# --- what is told --------------------------------------------------------------------------------------


def _verdicts(rule: _Rule, units: Sequence[Unit]) -> list[Verdict]:
    """One for every chain, and one for every value that the cache loses between units."""
    found = []
    for unit in units:
        if isinstance(unit, Chain):
            found.append(_told(rule, unit))
        last = unit.stages[-1] if isinstance(unit, Chain) else unit
        value = rule.program.values[last.output]
        if rule.traffic(value) and last.inputs and not rule.everything:
            how = f"its output, {_kb(rule.traffic(value) // TRAFFIC)}, goes through memory"
            found.append(Verdict((last.node,), how, _refused(rule, last)))
    return found


def _refused(rule: _Rule, stage: Stage) -> str:
    """Why no chain hides the output of `stage`: the reason of the shortest one that would."""
    first = rule.program.stages.index(stage)
    for _, members in Candidates(rule.program).starting(first):
        return rule.refusal(rule.chain(members)) or "other chains save more"
    return "its readers do not work by rows, or are several"


def _told(rule: _Rule, c: Chain) -> Verdict:
    saved = sum(rule.traffic(v) for v in c.inner)
    how = f"{c.rows} rows a step, {_kb(scratch_bytes(c))} a thread, {_percent(c, rule.cpu.cores)} twice"
    why = f"saves {_kb(saved)} of traffic, and barriers" if saved else "saves barriers"
    return Verdict(tuple(dict.fromkeys(s.node for s in c.stages)), how, why)
