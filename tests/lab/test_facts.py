"""Facts from what boards print: three Pis, a 32-bit userland, virtual boards, one that tells nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pilite.lab import boards, facts
from tests.lab.conftest import Bed

RECORDED = Path(__file__).with_name("recorded")
NAMES = sorted(path.stem for path in RECORDED.glob("*.txt"))


def recorded(name: str, **changes: str) -> str:
    """What the script printed on a board, with the output of some commands replaced."""
    text = (RECORDED / f"{name}.txt").read_text(encoding="utf-8")
    for fact, output in changes.items():
        before, section, after = text.partition(f"=== {fact}\n")
        assert section, fact
        text = before + section + output + after[after.index("=== ") :]
    return text


@pytest.mark.parametrize("name", NAMES)
def test_what_a_board_prints_is_read_fact_by_fact(name: str, golden: Callable[[str], None]) -> None:
    values = facts.parse(recorded(name))
    golden("".join(f"{fact}: {value!r}\n" for fact, value in values.items()))


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_has_every_fact_and_no_other(name: str) -> None:
    found = re.findall(r"^=== (\w+)$", recorded(name), flags=re.MULTILINE)
    assert found == [fact.name for fact in facts.FACTS]


def test_what_a_board_does_not_tell_is_unknown_not_zero() -> None:
    silent = facts.parse("".join(f"=== {fact.name}\n" for fact in facts.FACTS))
    assert {name for name, value in silent.items() if value is not None} == {"features", "groups"}
    assert (silent["features"], silent["groups"]) == ([], [])


@pytest.mark.parametrize(
    ("word", "now"), [("0x0", False), ("0x50000", False), ("0x50005", True), ("0x8", True), (None, False)]
)
def test_only_the_low_bits_mean_throttled_now(word: str | None, now: bool) -> None:
    assert facts.throttled_now({"throttled": word}) == now


@pytest.mark.parametrize(
    ("fact", "output", "value"),
    [
        ("governor", "powersave\nondemand\npowersave\n", "ondemand, powersave"),
        ("throttled", "VCHI initialization failed\n", None),
        ("throttled", "throttled=0xE0008\n", "0xe0008"),
        ("throttled", "no such device 0x1\n", None),
        ("disk_free_mb", "df: /home/pi: No such file or directory\n", None),
        ("disk_free_mb", "Filesystem 1024-blocks\noverlay 10 4 2048 60% /home with space\n", 2),
        ("python", "Python 3.13.0rc1\n", "3.13.0"),
        ("python", "sh: 1: python3: not found\n", None),
        ("word_bits", "32\n", 32),
        ("unix_time", "12\n", 12),
        ("missing_tools", "flock\nsetsid\n.\n", ["flock", "setsid"]),
        ("temperature_c", "-1250\n", None),
        ("libc", "", None),
    ],
)
def test_odd_outputs(fact: str, output: str, value: object) -> None:
    assert facts.parse(recorded("pi4b", **{fact: output}))[fact] == value


def test_the_script_is_plain_shell() -> None:
    subprocess.run(["sh", "-n", "-c", facts.script()], check=True)


def test_every_board_tells_its_cores_and_its_kernel(bed: Bed) -> None:
    values = facts.facts(bed.board, bed.connection)
    assert list(values) == [fact.name for fact in facts.FACTS]
    assert values["cores"] >= 1
    assert values["machine"] == bed.board.arch
    assert values["word_bits"] == 64
    assert values["missing_tools"] == []
    assert values["kernel"]


@pytest.mark.docker
def test_an_emulated_board_does_not_show_its_hosts_hardware(container_bed: Bed) -> None:
    values = facts.facts(container_bed.board, container_bed.connection)
    assert values["model"] == "QEMU, as cortex-a72"
    assert values["core_part"] == "0xd08"
    assert {values[name] for name in facts.OF_HOST} == {None}
    assert boards.KINDS[container_bed.board.kind].emulated
