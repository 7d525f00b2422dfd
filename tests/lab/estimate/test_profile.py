"""Profiles: the profiler's lines become sections; a file that ends early is no profile."""

from __future__ import annotations

import pytest

from pilite.errors import CheckFailed
from pilite.lab.estimate import profile
from pilite.lab.estimate.profile import CacheLevel

LINES = """\
B 0 1000 3 000000000000000000000000
B 5 100c 2 0000000000000000
P 0
X 0 0 10 4 1
H 5 0
E 0 5 0 9
X 5 0 9 0 0
C 4 2 1 1
P 3
X 5 0 1 1 1
X 5 1 6 2 0
C 3 0 1 1
S 62
""".splitlines()


def test_instructions_are_executions_times_the_size_of_the_block() -> None:
    found = profile.parse(LINES, "p")
    assert [found.instructions(section) for section in found.sections] == [48, 14]


def test_instructions_of_one_thread_leave_out_the_others() -> None:
    found = profile.parse(LINES, "p")
    assert found.instructions(found.sections[1], thread=1) == 12


def test_the_whole_is_the_sum_of_the_sections() -> None:
    whole = profile.parse(LINES, "p").whole()
    assert whole.executions == {0: {0: 10, 5: 10}, 1: {5: 6}}
    assert whole.caches == (CacheLevel(7, 2), CacheLevel(2, 2))
    assert whole.misses == {0: 4, 5: 3}
    assert whole.ways == {(0, 5): [(0,)]}


def test_sections_keep_their_labels() -> None:
    assert [section.label for section in profile.parse(LINES, "p").sections] == [0, 3]


@pytest.mark.parametrize("lines", [[], LINES[:-1], [*LINES[:-3], "S 62"]], ids=["empty", "no end", "cut"])
def test_a_file_that_ends_early_is_refused_by_name(lines: list[str]) -> None:
    with pytest.raises(CheckFailed, match=r"broken\.txt: not a whole profile"):
        profile.parse(lines, "broken.txt")
