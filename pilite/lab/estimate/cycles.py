"""A profile and a core model -> cycles of each step from one block to the next.

The cycles of a step to block B are T(way B) - T(way), where the way is what really ran before B at that
moment, sampled by the profiler; the mean of a few samples counts. So pipelines overlap as they do in the
run, and the sum over all steps is the time of the whole sequence. Rare steps, the last 0.02 % of the
instructions or those behind the first MOST, are charged the mean of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilite.lab.estimate.assembly import disassemble
from pilite.lab.estimate.models import Model, kept
from pilite.lab.estimate.profile import Profile, Section, Step

COVERED, LEAST = 0.9998, 0.985  # of the instructions; of those of programs with many rare steps
MOST = 1200  # steps simulated, once they cover LEAST
HISTORY = 256  # instructions of a way, at least: twice what an out-of-order core holds
WAYS = 16  # samples of a step

Way = tuple[int, ...]  # blocks in order of execution


@dataclass(frozen=True)
class Costs:
    """Cycles of every step that was simulated, and of an instruction elsewhere."""

    of: dict[Step, float]
    per_instruction: float


class Cost:
    """Cycles of the sections of one profile, by core model."""

    def __init__(self, profile: Profile) -> None:
        whole = profile.whole()
        self._profile = profile
        self._steps = steps(whole)
        self._ways = {
            step: Counter(recent(profile, way) for way in spread(whole.ways[step], WAYS))
            for step in hot(profile, self._steps)
        }
        needed = sorted({b for (_, to), ways in self._ways.items() for b in (to, *_blocks(ways))})
        texts = disassemble([profile.blocks[number].code for number in needed])
        self.text = dict(zip(needed, texts, strict=True))

    def costs(self, model: Model) -> Costs:
        """Simulate every hot step."""
        times = self._simulate(model, set(self._sequences()))
        each = {}
        for step, ways in self._ways.items():
            spent = sum(n * (times[after(way, step)] - times[way]) for way, n in ways.items())
            each[step] = spent / sum(ways.values())
        return Costs(each, self._mean(each))

    def _sequences(self) -> Iterable[Way]:
        for step, ways in self._ways.items():
            for way in ways:
                yield way
                yield after(way, step)

    def _simulate(self, model: Model, sequences: Iterable[Way]) -> dict[Way, int]:
        texts = {number: kept(text) for number, text in self.text.items()}
        ordered = sorted(sequences)
        found = model.timer([[text for number in way for text in texts[number]] for way in ordered])
        return dict(zip(ordered, found, strict=True))

    def _mean(self, each: dict[Step, float]) -> float:
        spent = sum(self._steps[step] * cost for step, cost in each.items())
        return spent / max(1, sum(self._steps[step] * self._size(step[1]) for step in each))

    def _size(self, block: int) -> int:
        return self._profile.blocks[block].instructions

    def section(self, costs: Costs, section: Section, threads: Iterable[int] | None = None) -> float:
        """Cycles of a section, summed over `threads` (all of them)."""
        total = 0.0
        for thread in section.threads if threads is None else threads:
            left = Counter(section.executions.get(thread, Counter()))
            for step, count in section.steps.get(thread, Counter()).items():
                left[step[1]] -= count
                total += count * self.step(costs, step)
            total += sum(n * self._size(b) * costs.per_instruction for b, n in left.items())
        return total

    def step(self, costs: Costs, step: Step) -> float:
        """Cycles of one step, simulated or not."""
        found = costs.of.get(step)
        return self._size(step[1]) * costs.per_instruction if found is None else found

    def blocks(self, costs: Costs) -> Counter[int]:
        """Cycles spent in each block, all sections and threads; whole numbers."""
        spent: defaultdict[int, float] = defaultdict(float)
        for step, count in self._steps.items():
            spent[step[1]] += count * self.step(costs, step)
        return Counter({number: round(cycles) for number, cycles in spent.items()})


def after(way: Way, step: Step) -> Way:
    """The way, and the step taken."""
    return (*way, step[1])


def _blocks(ways: Iterable[Way]) -> set[int]:
    return {number for way in ways for number in way}


def steps(section: Section) -> Counter[Step]:
    """How often each step was taken, all threads."""
    total: Counter[Step] = Counter()
    for counts in section.steps.values():
        total.update(counts)
    return total


def hot(profile: Profile, counts: Counter[Step]) -> list[Step]:
    """The most expensive steps that make up COVERED of the instructions, or MOST that make up LEAST."""
    weights = {step: n * profile.blocks[step[1]].instructions for step, n in counts.items()}
    total, so_far = sum(weights.values()), 0
    chosen: list[Step] = []
    for step in sorted(weights, key=lambda s: (-weights[s], s)):
        if so_far >= (LEAST if len(chosen) >= MOST else COVERED) * total:
            break
        chosen.append(step)
        so_far += weights[step]
    return chosen


def spread(ways: Sequence[Way], most: int) -> list[Way]:
    """At most `most` of the samples, evenly chosen: several sections may have brought theirs."""
    return [ways[i * len(ways) // most] for i in range(most)] if len(ways) > most else list(ways)


def recent(profile: Profile, way: Way) -> Way:
    """The last blocks of a way, with at least HISTORY instructions if it has them."""
    length, start = 0, len(way)
    while start and length < HISTORY:
        start -= 1
        length += profile.blocks[way[start]].instructions
    return way[start:]
