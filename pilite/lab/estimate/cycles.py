"""A profile and a core model -> cycles of each step from one block to the next.

The cycles of block B after block A are T(history A B) - T(history A), where the history is the most likely way
to A: so pipelines overlap as they do in the run, and loops are in their steady state. Steps that together make
up the last 1.5 % of the instructions are charged the mean of the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilite.lab.estimate.assembly import disassemble
from pilite.lab.estimate.models import Model, kept
from pilite.lab.estimate.profile import Profile, Section

COVERED = 0.985
HISTORY = 96  # instructions, at least; a loop repeats itself until then

Step = tuple[int, int]  # from block, to block


@dataclass(frozen=True)
class Costs:
    """Cycles of every step that was simulated, and of an instruction elsewhere."""

    of: dict[Step, float]
    per_instruction: float


class Cost:
    """Cycles of sections of one profile on one core."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._steps = steps(profile.whole())
        self._hot = hot(profile, self._steps)
        before = likely_predecessors(self._steps)
        self._histories = {a: history(profile, a, before) for a in {a for a, _ in self._hot}}
        needed = sorted({b for h in self._histories.values() for b in h} | {b for _, b in self._hot})
        texts = disassemble([profile.blocks[b].code for b in needed])
        self.text = dict(zip(needed, texts, strict=True))

    def costs(self, model: Model) -> Costs:
        """Simulate every hot step."""
        kept_text = {number: kept(text) for number, text in self.text.items()}
        starts = sorted(self._histories)
        heads = {a: [i for block in self._histories[a] for i in kept_text[block]] for a in starts}
        found = model.timer([*(heads[a] for a in starts), *(heads[a] + kept_text[b] for a, b in self._hot)])
        base = dict(zip(starts, found, strict=False))
        each = {}
        for (a, b), after in zip(self._hot, found[len(starts) :], strict=True):
            each[a, b] = max(after - base[a], len(kept_text[b]) / model.widest)
        return Costs(each, self._mean(each))

    def _mean(self, each: dict[Step, float]) -> float:
        spent = sum(self._steps[step] * cost for step, cost in each.items())
        return spent / max(1, sum(self._steps[a, b] * self._profile.blocks[b].instructions for a, b in each))

    def section(self, costs: Costs, section: Section, threads: Iterable[int] | None = None) -> float:
        """Cycles of a section, summed over `threads` (all of them)."""
        chosen = section.threads if threads is None else threads
        total = 0.0
        for thread in chosen:
            left = Counter(section.executions.get(thread, Counter()))
            for (a, b), count in section.edges.get(thread, Counter()).items():
                left[b] -= count
                total += count * self._one(costs, (a, b))
            total += sum(n * self._unknown(costs, b) for b, n in left.items())
        return total

    def _one(self, costs: Costs, step: Step) -> float:
        found = costs.of.get(step)
        return self._unknown(costs, step[1]) if found is None else found

    def _unknown(self, costs: Costs, block: int) -> float:
        return self._profile.blocks[block].instructions * costs.per_instruction

    def blocks(self, costs: Costs) -> Counter[int]:
        """Cycles spent in each block, all sections and threads; whole numbers."""
        spent: defaultdict[int, float] = defaultdict(float)
        for (a, b), count in self._steps.items():
            spent[b] += count * self._one(costs, (a, b))
        return Counter({b: round(c) for b, c in spent.items()})


def steps(section: Section) -> Counter[Step]:
    """How often each block followed each other, all threads."""
    total: Counter[Step] = Counter()
    for edges in section.edges.values():
        total.update(edges)
    return total


def hot(profile: Profile, counts: Counter[Step]) -> list[Step]:
    """The most expensive steps that make up COVERED of the instructions."""
    weights = {step: n * profile.blocks[step[1]].instructions for step, n in counts.items()}
    limit, chosen, so_far = COVERED * sum(weights.values()), [], 0
    for step in sorted(weights, key=lambda s: (-weights[s], s)):
        if so_far >= limit:
            break
        chosen.append(step)
        so_far += weights[step]
    return chosen


def likely_predecessors(counts: Counter[Step]) -> dict[int, int]:
    """The block that most often came before each block; ties go to the lower number."""
    best: dict[int, tuple[int, int]] = {}
    for (a, b), n in counts.items():
        best[b] = max(best.get(b, (0, 0)), (n, -a))
    return {b: -a for b, (_, a) in best.items()}


def history(profile: Profile, block: int, before: dict[int, int]) -> Sequence[int]:
    """The likely way to and including `block`, in order of execution."""
    way, length = [block], profile.blocks[block].instructions
    while length < HISTORY and way[-1] in before:
        way.append(before[way[-1]])
        length += profile.blocks[way[-1]].instructions
    return way[::-1]
