"""What the profiler wrote: blocks of code, how often each ran and what followed it, by section and thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pilite.errors import CheckFailed


@dataclass(frozen=True)
class Block:
    """Straight-line code up to a branch."""

    number: int
    address: int
    instructions: int
    code: bytes


Step = tuple[int, int]  # from a block to the block that ran next


@dataclass(frozen=True)
class CacheLevel:
    """Lines that a level did not have, and dirty lines that it wrote to the next one."""

    misses: int
    written_back: int


@dataclass
class Section:
    """One operator, or the whole region; keys are block numbers, by thread."""

    label: int
    executions: dict[int, Counter[int]] = field(default_factory=dict)
    steps: dict[int, Counter[Step]] = field(default_factory=dict)
    ways: dict[Step, list[tuple[int, ...]]] = field(default_factory=dict)  # samples of what ran before a step
    misses: Counter[int] = field(default_factory=Counter)  # of the first level, by block, all threads
    caches: tuple[CacheLevel, ...] = ()

    @property
    def threads(self) -> list[int]:
        return sorted(self.executions)


@dataclass(frozen=True)
class Profile:
    """One region of interest."""

    blocks: dict[int, Block]
    sections: tuple[Section, ...]

    def instructions(self, section: Section, thread: int | None = None) -> int:
        """How many instructions a section executed, in one thread or in all."""
        threads = section.threads if thread is None else [thread]
        return sum(
            self.blocks[number].instructions * count
            for t in threads
            for number, count in section.executions.get(t, Counter()).items()
        )

    def whole(self) -> Section:
        """All sections added up."""
        total = Section(0)
        for section in self.sections:
            for thread in section.threads:
                total.executions.setdefault(thread, Counter()).update(section.executions[thread])
            for thread, steps in section.steps.items():
                total.steps.setdefault(thread, Counter()).update(steps)
            for step, ways in section.ways.items():
                total.ways.setdefault(step, []).extend(ways)
            total.misses.update(section.misses)
            total.caches = _added(total.caches, section.caches)
        return total


def _added(a: tuple[CacheLevel, ...], b: tuple[CacheLevel, ...]) -> tuple[CacheLevel, ...]:
    if not a or not b:
        return a or b
    pairs = zip(a, b, strict=True)
    return tuple(CacheLevel(x.misses + y.misses, x.written_back + y.written_back) for x, y in pairs)


def read(path: Path) -> Profile:
    """Parse the profiler's file.

    Raises:
        CheckFailed: the file ends early: the guest stopped before the second mark, or never made the first.
    """
    with path.open(encoding="ascii") as lines:
        return parse(lines, str(path))


def parse(lines: Iterable[str], name: str) -> Profile:
    """Parse the lines that profiler.c describes. Raises CheckFailed if the last line is missing."""
    blocks: dict[int, Block] = {}
    sections: list[Section] = []
    total = None
    for line in lines:
        kind, *words = line.split()
        if kind == "B":
            blocks[int(words[0])] = Block(
                int(words[0]), int(words[1], 16), int(words[2]), bytes.fromhex(words[3])
            )
        elif kind == "P":
            sections.append(Section(int(words[0])))
        elif kind == "S":
            total = int(words[0])
        else:
            _ADD[kind](sections[-1], [int(word) for word in words])
    profile = Profile(blocks, tuple(sections))
    if total is None or total != sum(profile.instructions(section) for section in sections):
        raise CheckFailed(f"{name}: not a whole profile: the guest did not reach the second mark.")
    return profile


def _add_executions(section: Section, words: list[int]) -> None:
    block, thread, count, *misses = words
    section.executions.setdefault(thread, Counter())[block] += count
    if misses and misses[0]:
        section.misses[block] += misses[0]


def _add_step(section: Section, words: list[int]) -> None:
    before, after, thread, count = words
    section.steps.setdefault(thread, Counter())[before, after] += count


def _add_way(section: Section, words: list[int]) -> None:
    after, *way = words
    section.ways.setdefault((way[-1], after), []).append(tuple(way))


def _set_caches(section: Section, words: list[int]) -> None:
    section.caches = tuple(CacheLevel(*pair) for pair in zip(words[::2], words[1::2], strict=True))


_ADD = {"X": _add_executions, "E": _add_step, "H": _add_way, "C": _set_caches}
