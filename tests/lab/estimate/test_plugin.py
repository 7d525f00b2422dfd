"""The profiler under QEMU: exact counts between the marks, nothing from outside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.estimate import plugin
from pilite.lab.estimate.plugin import Guest
from pilite.zig import TRIPLES, compiler_command, run_zig
from tests.native import ARTIFACTS

pytestmark = pytest.mark.qemu

LEVELS = ("32768:4:private", "131072:16:shared")
LINES = 1024  # that guest.c touches: twice the first level, half the second
SLACK = 200  # instructions between marks and loops


def guest(folder: Path, *flags: str) -> Guest:
    """tests/lab/estimate/guest.c as a program for the Cortex-A53."""
    path = folder / "guest"
    options = ["-O1", "-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector", *flags]
    source = Path(__file__).with_name("guest.c")
    run_zig([*compiler_command("cc", TRIPLES["aarch64"]), *options, "-o", str(path), str(source)], folder)
    return Guest("cortex-a53", Path("/"), (str(path),), {}, ("test guest",), (path,))


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    return guest(tmp_path_factory.mktemp("guest"))


def test_instructions_between_the_marks_are_counted_exactly(marked: Guest) -> None:
    found = plugin.run_anew(marked, (), ARTIFACTS)
    first, second = found.sections
    assert 2 * 1000 <= found.instructions(first) <= 2 * 1000 + SLACK
    turns = [n for b, n in first.executions[0].items() if found.blocks[b].instructions == 2]
    assert max(turns) == 999  # the first turn belongs to the block before the loop
    assert (first.label, second.label) == (0, 7)


def test_two_runs_count_the_same(marked: Guest) -> None:
    one, two = (plugin.run_anew(marked, LEVELS, ARTIFACTS).whole() for _ in range(2))
    assert (one.executions, one.steps, one.caches) == (two.executions, two.steps, two.caches)


def test_caches_are_warm_when_the_region_starts(marked: Guest) -> None:
    section = plugin.run_anew(marked, LEVELS, ARTIFACTS).sections[1]
    l1, l2 = section.caches
    assert LINES <= l1.misses <= LINES + 20
    assert LINES - 10 <= l1.written_back <= LINES + 20
    assert l2.misses < 20
    assert sum(section.misses.values()) == l1.misses


def test_steps_carry_what_ran_before_them(marked: Guest) -> None:
    section = plugin.run_anew(marked, (), ARTIFACTS).sections[0]
    loop = max(section.steps[0], key=lambda step: section.steps[0][step])
    assert loop[0] == loop[1]
    assert set(section.ways[loop][-1][-10:]) == {loop[0]}


def test_an_equal_guest_is_not_run_again(marked: Guest, tmp_path: Path) -> None:
    before = plugin.run(marked, (), tmp_path)
    broken = Guest(marked.cpu, marked.root, ("/no/such/program",), {}, marked.settings, marked.files)
    assert plugin.run(broken, (), tmp_path).blocks == before.blocks
    with pytest.raises(CheckFailed, match="test guest failed under QEMU"):
        plugin.run(broken, LEVELS, tmp_path)


def test_a_guest_without_marks_has_no_profile(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="did not reach the second mark"):
        plugin.run(guest(tmp_path, "-DNO_MARKS"), (), ARTIFACTS)


def test_a_missing_emulator_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PiliteError, match="apt-get install qemu-user"):
        plugin.emulator()


def test_a_missing_compiler_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PiliteError, match="apt-get install gcc"):
        plugin.build(tmp_path)
