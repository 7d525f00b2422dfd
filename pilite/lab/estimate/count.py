"""A profile -> the numbers of one row: instructions, cycles, misses, bytes; for the whole and by section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pilite.lab.estimate.caches import memory_bytes
from pilite.lab.estimate.cycles import Cost, Costs
from pilite.lab.estimate.models import Model
from pilite.lab.estimate.profile import Profile, Section


@dataclass(frozen=True)
class Counted:
    """`cycles` by core model: of the thread with most of them, without waiting. The rest: all threads."""

    instructions: int = 0
    cycles: dict[str, float] = field(default_factory=dict)
    l1_misses: int = 0
    last_level_misses: int = 0
    dram_bytes: int = 0

    def __add__(self, other: Counted) -> Counted:
        names = {**self.cycles, **other.cycles}
        return Counted(
            self.instructions + other.instructions,
            {name: self.cycles.get(name, 0.0) + other.cycles.get(name, 0.0) for name in names},
            self.l1_misses + other.l1_misses,
            self.last_level_misses + other.last_level_misses,
            self.dram_bytes + other.dram_bytes,
        )


@dataclass(frozen=True)
class Thread:
    """What one thread of the guest did, all sections; `cycles` by core model."""

    instructions: int
    cycles: dict[str, float]


@dataclass(frozen=True)
class Result:
    """The whole, its sections by label, and how evenly threads share the work: mean over longest thread."""

    whole: Counted
    sections: dict[int, Counted]
    balance: float
    threads: tuple[Thread, ...] = ()  # in the order of their creation


def count(profile: Profile, models: Sequence[Model]) -> Result:
    """Everything about one profile; the balance is that of the first model's cycles."""
    cost = Cost(profile)
    costs = {model.name: cost.costs(model) for model in models}
    sections: dict[int, Counted] = {}
    whole = Counted()
    for section in profile.sections:
        counted = _section(profile, cost, costs, section)
        sections[section.label] = sections.get(section.label, Counted()) + counted
        whole += counted
    threads = _threads(profile, cost, costs)
    longest = {name: max((t.cycles[name] for t in threads), default=0.0) for name in costs}
    shares = [thread.cycles[models[0].name] for thread in threads]
    balance = sum(shares) / len(shares) / max(shares) if any(shares) else 1.0
    return Result(replace(whole, cycles=longest), sections, balance, threads)


def _threads(profile: Profile, cost: Cost, costs: dict[str, Costs]) -> tuple[Thread, ...]:
    whole = profile.whole()
    return tuple(
        Thread(
            profile.instructions(whole, thread),
            {name: cost.section(one, whole, [thread]) for name, one in costs.items()},
        )
        for thread in whole.threads
    )


def _section(profile: Profile, cost: Cost, costs: dict[str, Costs], section: Section) -> Counted:
    misses = [level.misses for level in section.caches] or [0]
    return Counted(
        profile.instructions(section),
        {name: _longest(cost, one, section) for name, one in costs.items()},
        misses[0],
        misses[-1],
        memory_bytes(section.caches),
    )


def _longest(cost: Cost, costs: Costs, section: Section) -> float:
    """Cycles of the thread that did most of a section."""
    return max((cost.section(costs, section, [thread]) for thread in section.threads), default=0.0)
