"""The arena and the constants blob: buffers that live together never share a byte, whatever the program."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilite.compiler.plan import ALIGN, SLACK, Arena, Blob, Need, align, plan


@st.composite
def lives(draw: st.DrawFn) -> list[Need]:
    """Buffers of a program with up to 20 stages."""
    count = draw(st.integers(0, 24))
    sizes = st.one_of(st.integers(0, 300), st.sampled_from([63, 64, 65, 128, 4096]))
    spans = [sorted((draw(st.integers(0, 19)), draw(st.integers(0, 19)))) for _ in range(count)]
    return [Need(draw(sizes), first, last) for first, last in spans]


def clashes(needs: Sequence[Need], arena: Arena) -> list[tuple[int, int]]:
    """Pairs of buffers that live in the same stage and share a byte; a kernel may read SLACK past an end."""

    def meet(i: int, j: int) -> bool:
        a, b = needs[i], needs[j]
        together = a.first <= b.last and b.first <= a.last
        x, y = arena.offsets[i], arena.offsets[j]
        return together and x < y + b.nbytes + SLACK and y < x + a.nbytes + SLACK

    return [(i, j) for i, j in combinations(range(len(needs)), 2) if meet(i, j)]


@given(lives())
@example([])
@example([Need(0, 0, 0), Need(0, 0, 0)])
def test_buffers_that_live_together_share_no_byte(needs: list[Need]) -> None:
    assert clashes(needs, plan(needs)) == []


@given(lives())
def test_every_buffer_is_aligned_and_ends_inside_the_arena(needs: list[Need]) -> None:
    arena = plan(needs)

    assert all(offset >= 0 and offset % ALIGN == 0 for offset in arena.offsets)
    assert all(
        offset + n.nbytes + SLACK <= arena.nbytes for offset, n in zip(arena.offsets, needs, strict=True)
    )


@given(lives())
def test_the_arena_is_not_larger_than_all_buffers_side_by_side(needs: list[Need]) -> None:
    assert plan(needs).nbytes <= sum(align(n.nbytes + SLACK) for n in needs)


@given(lives())
def test_the_same_needs_give_the_same_plan(needs: list[Need]) -> None:
    assert plan(needs) == plan(list(needs))


def test_buffers_that_never_meet_use_the_same_bytes() -> None:
    chain = [Need(1000, i, i + 1) for i in range(10)]

    assert plan(chain).nbytes == 2 * align(1000 + SLACK)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        pytest.param((0, 64), "the second begins inside the first", id="overlap"),
        pytest.param((0, 128), "a kernel reads up to SLACK bytes past the first", id="no slack"),
        pytest.param((0, 0), "the same place", id="equal"),
    ],
)
def test_the_check_of_these_tests_sees_a_wrong_plan(wrong: tuple[int, int], why: str) -> None:
    needs = [Need(100, 0, 1), Need(100, 1, 2)]

    assert clashes(needs, Arena(wrong, 1024)) == [(0, 1)], why
    assert clashes(needs, Arena((0, 192), 1024)) == []


# Constants.


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_the_blob_holds_every_constant_aligned_and_with_slack(constants: list[bytes]) -> None:
    blob = Blob()
    offsets = [blob.add(data) for data in constants]
    stored = blob.finish()

    assert all(stored[at : at + len(data)] == data for at, data in zip(offsets, constants, strict=True))
    assert all(at % ALIGN == 0 for at in offsets)
    assert all(at + len(data) + SLACK <= len(stored) for at, data in zip(offsets, constants, strict=True))


def test_equal_constants_are_stored_once() -> None:
    blob = Blob()

    assert blob.add(b"weights") == blob.add(b"weights") != blob.add(b"bias")
    assert len(blob.finish()) == ALIGN + len(b"bias") + SLACK
