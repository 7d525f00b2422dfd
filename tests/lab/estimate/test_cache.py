"""The cache model, compiled for this machine: who is thrown out, and what is written back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import pilite.lab.estimate

SOURCES = Path(pilite.lab.estimate.__file__).parent
ONE_SET = "128:2:private"  # two ways of one line each


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler; apt-get install gcc")
    path = tmp_path_factory.mktemp("cache") / "cache_check"
    source = Path(__file__).with_name("cache_check.c")
    command = [compiler, "-std=c11", "-O1", "-Wall", "-Werror", f"-I{SOURCES}", "-o", str(path), str(source)]
    subprocess.run(command, check=True)
    return path


def replay(
    program: Path, levels: Iterable[str], accesses: Iterable[tuple[int, int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Levels missed by each (thread, line, store), and (misses, lines written back) of each level."""
    text = "".join(f"{thread} {line} {store}\n" for thread, line, store in accesses)
    done = subprocess.run([program, *levels], input=text, capture_output=True, text=True, check=True)
    missed, counts = ([int(word) for word in line.split()] for line in done.stdout.splitlines())
    return missed, list(zip(counts[::2], counts[1::2], strict=True))


def loads(*lines: int) -> list[tuple[int, int, int]]:
    return [(0, line, 0) for line in lines]


def test_a_line_that_was_just_used_is_there(program: Path) -> None:
    assert replay(program, [ONE_SET], loads(5, 5, 6, 5, 6))[0] == [1, 0, 1, 0, 0]


def test_the_line_that_was_used_longest_ago_goes_first(program: Path) -> None:
    assert replay(program, [ONE_SET], loads(1, 2, 1, 3, 1, 2))[0] == [1, 1, 0, 1, 0, 1]


def test_lines_of_other_sets_stay(program: Path) -> None:
    assert replay(program, ["256:2:private"], loads(0, 2, 4, 1, 4, 2, 1))[0] == [1, 1, 1, 1, 0, 0, 0]


def test_only_lines_that_were_stored_to_are_written_back(program: Path) -> None:
    clean = replay(program, [ONE_SET], loads(1, 2, 3, 4))[1]
    dirty = replay(program, [ONE_SET], [(0, 1, 1), (0, 2, 0), (0, 3, 0), (0, 4, 0)])[1]
    assert (clean, dirty) == ([(4, 0)], [(4, 1)])


def test_a_line_stays_dirty_until_it_is_written_back(program: Path) -> None:
    accesses = [(0, 1, 1), (0, 1, 0), *loads(2, 3)]
    assert replay(program, [ONE_SET], accesses)[1] == [(3, 1)]


def test_a_miss_looks_into_the_next_level(program: Path) -> None:
    missed, counts = replay(program, [ONE_SET, "1024:2:shared"], loads(1, 2, 3, 1))
    assert missed == [2, 2, 2, 1]
    assert counts == [(4, 0), (3, 0)]


def test_what_one_level_writes_back_is_dirty_in_the_next(program: Path) -> None:
    levels = [ONE_SET, ONE_SET.replace("private", "shared")]
    counts = replay(program, levels, [(0, 1, 1), *loads(2, 3, 4, 5)])[1]
    assert counts == [(5, 1), (5, 1)]


def test_private_levels_do_not_see_each_other_and_a_shared_one_sees_all(program: Path) -> None:
    missed, _ = replay(program, [ONE_SET, "1024:2:shared"], [(0, 1, 0), (1, 1, 0), (1, 1, 0)])
    assert missed == [2, 1, 0]


@pytest.mark.parametrize("level", ["nonsense", "128:0:private", "16:2:private", "128:2:shared"])
def test_levels_that_make_no_sense_are_refused(program: Path, level: str) -> None:
    assert subprocess.run([program, level], stdin=subprocess.DEVNULL, check=False).returncode == 1
