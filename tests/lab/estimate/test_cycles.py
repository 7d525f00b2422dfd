"""Cycles of a profile: steps are charged what they add to what really ran before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from pilite.lab.estimate import cycles
from pilite.lab.estimate.cycles import Cost, Way
from pilite.lab.estimate.models import Model
from pilite.lab.estimate.profile import Block, Profile, Section, Step

LOOP, TAIL = 1, 2


@pytest.fixture(autouse=True)
def _no_disassembler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block is its number, once per instruction."""
    monkeypatch.setattr(cycles, "disassemble", lambda codes: [tuple(code.decode()) for code in codes])


def block(number: int, size: int) -> Block:
    return Block(number, 0x1000 * number, size, str(number).encode() * size)


def loop_and_tail(turns: int, section: int = 0, thread: int = 0) -> Section:
    """A loop block `turns` times, then a tail."""
    steps = Counter({(LOOP, LOOP): turns - 1, (LOOP, TAIL): 1})
    ways: dict[Step, list[Way]] = {(LOOP, LOOP): [(LOOP,)], (LOOP, TAIL): [(LOOP, LOOP)]}
    return Section(section, {thread: Counter({LOOP: turns, TAIL: 1})}, {thread: steps}, ways)


def profile_of(*sections: Section) -> Profile:
    return Profile({LOOP: block(LOOP, 10), TAIL: block(TAIL, 4)}, sections)


def timer(codes: Sequence[Sequence[str]]) -> list[int]:
    """A core that takes a cycle per instruction of the loop and three for one of the tail."""
    return [sum(1 if text == str(LOOP) else 3 for text in code) for code in codes]


MODEL = Model("fake", "for tests", timer)


def test_the_cycles_of_a_section_are_the_sum_of_its_steps() -> None:
    profile = profile_of(loop_and_tail(1000))
    cost = Cost(profile)
    assert cost.section(cost.costs(MODEL), profile.sections[0]) == pytest.approx(1000 * 10 + 12, rel=0.01)


def test_work_that_hides_behind_what_ran_before_is_not_charged_twice() -> None:
    def overlapping(codes: Sequence[Sequence[str]]) -> list[int]:
        """The tail costs nothing after the loop."""
        return [max(1, sum(text == str(LOOP) for text in code)) for code in codes]

    profile = profile_of(loop_and_tail(3))
    cost = Cost(profile)
    assert cost.costs(Model("overlap", "", overlapping)).of[LOOP, TAIL] == 0


def test_steps_outside_the_hot_ones_are_charged_the_mean() -> None:
    profile = profile_of(loop_and_tail(10_000))
    cost = Cost(profile)
    costs = cost.costs(MODEL)
    assert (LOOP, TAIL) not in costs.of
    assert cost.step(costs, (LOOP, TAIL)) == 4 * costs.per_instruction == 4.0


def test_of_many_steps_the_first_are_simulated_if_they_cover_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profile_of(loop_and_tail(1000))
    counts = cycles.steps(profile.whole())
    chosen = []
    for most, least in ((2, 0.985), (1, 0.985), (1, 0.9999)):
        monkeypatch.setattr(cycles, "MOST", most)
        monkeypatch.setattr(cycles, "LEAST", least)
        chosen.append(len(cycles.hot(profile, counts)))
    assert chosen == [2, 1, 2]


def test_threads_are_counted_apart() -> None:
    both = loop_and_tail(100)
    other = loop_and_tail(300, thread=1)
    both.executions.update(other.executions)
    both.steps.update(other.steps)
    profile = profile_of(both)
    cost = Cost(profile)
    costs = cost.costs(MODEL)
    one, two = (cost.section(costs, both, [thread]) for thread in (0, 1))
    assert two > 2.9 * one
    assert cost.section(costs, both) == pytest.approx(one + two)


def test_the_cycles_of_blocks_add_up_to_the_whole() -> None:
    profile = profile_of(loop_and_tail(500, 1), loop_and_tail(300, 2))
    cost = Cost(profile)
    costs = cost.costs(MODEL)
    assert sum(cost.blocks(costs).values()) == pytest.approx(cost.section(costs, profile.whole()), rel=0.02)


def test_a_way_is_cut_to_the_instructions_that_can_matter() -> None:
    way = (TAIL,) * 3 + (LOOP,) * 60
    kept = cycles.recent(profile_of(), way)
    assert kept == (LOOP,) * 26
    assert cycles.recent(profile_of(), (TAIL, LOOP)) == (TAIL, LOOP)


def test_samples_of_a_step_are_chosen_evenly() -> None:
    ways = [(i,) for i in range(8)]
    assert cycles.spread(ways, 4) == [(0,), (2,), (4,), (6,)]
    assert cycles.spread(ways[:3], 4) == ways[:3]
