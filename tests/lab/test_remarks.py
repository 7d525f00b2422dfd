"""What facts mean: each trouble in words, the right CPU, and boards that are not what their file says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pilite.errors import BoardError
from pilite.lab import bench, facts, remarks
from tests.lab.conftest import Bed
from tests.lab.test_facts import recorded

NOW = 1764150000.0  # when the recordings claim to be taken


def of(name: str, **changes: str) -> dict[str, Any]:
    return facts.parse(recorded(name, **changes))


def said(values: dict[str, Any]) -> dict[str, bool]:
    return {remark.name: remark.fatal for remark in remarks.remarks(values, NOW)}


@pytest.mark.parametrize(
    ("name", "cpu", "names"),
    [
        ("pi3b+", "cortex-a53", ["throttled before"]),
        ("pi4b", "cortex-a72", []),
        ("pi5", "cortex-a76", []),
        ("container", "cortex-a72", []),
        ("vm", "cortex-a72", []),
    ],
)
def test_a_sound_board_gets_its_cpu_and_few_words(name: str, cpu: str, names: list[str]) -> None:
    assert remarks.target(of(name), name) == cpu
    assert [found.name for found in remarks.remarks(of(name), of(name)["unix_time"])] == names


TROUBLES = {
    "32-bit userland": (
        {"word_bits": "32\n"},
        True,
        "Install the 64-bit Raspberry Pi OS; until then `estimate`",
    ),
    "C library": ({"libc": "glibc 2.24\n"}, True, "its C library is glibc 2.24; artifacts need glibc 2.28"),
    "missing tools": ({"missing_tools": "flock\ntar\n.\n"}, True, "it lacks flock, tar: apt-get install"),
    "full disk": ({"disk_free_mb": "x\n/dev/root 9 9 10240 99% /\n"}, True, "10 MB are free on its disk"),
    "little disk": (
        {"disk_free_mb": "x\n/dev/root 9 9 51200 99% /\n"},
        False,
        "deploy and rollback still work",
    ),
    "no Python": ({"python": "sh: python3: not found\n"}, False, "bench does not work; deploy and rollback"),
    "not in group video": (
        {"throttled": "Can't open device file: /dev/vcio\n", "groups": "lab users\n"},
        False,
        "its user is in the groups lab, users, not in video: throttling cannot be read",
    ),
    "throttling unknown": (
        {"throttled": "sh: vcgencmd: not found\n"},
        False,
        "reports it as unknown, never as no",
    ),
    "throttled now": (
        {"throttled": "throttled=0x50005\n"},
        False,
        "(get_throttled 0x50005): check its power",
    ),
    "throttled before": ({"throttled": "throttled=0x50000\n"}, False, "it was throttled since its start"),
    "no clock control": ({"governor": ""}, False, "its clock governor cannot be read"),
    "clock": ({"unix_time": "86400\n"}, False, "its clock is more than a day off; deploys and bench do not"),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_is_named_alone_and_says_what_to_do(name: str) -> None:
    changes, fatal, words = TROUBLES[name]
    (found,) = remarks.remarks(of("pi4b", **changes), NOW)
    assert (found.name, found.fatal) == (name, fatal)
    assert words in found.text


def test_every_rule_has_its_trouble() -> None:
    assert list(TROUBLES) == [rule.name for rule in remarks.RULES]


def test_a_32_bit_userland_with_more_troubles_is_told_all_of_them() -> None:
    found = said(of("pi4b-32-bit"))
    assert found == {"32-bit userland": True, "full disk": True, "not in group video": False}


def test_an_armv7_kernel_is_a_32_bit_userland_too() -> None:
    assert said(of("pi4b", machine="armv7l\n", word_bits="")) == {"32-bit userland": True}


@pytest.mark.parametrize(("libc", "fatal"), [("", True), ("glibc 2.28", False), ("glibc 2.9", True)])
def test_the_c_library_is_compared_by_numbers(libc: str, fatal: bool) -> None:
    assert ("C library" in said(of("pi4b", libc=libc + "\n"))) == fatal


def test_a_cpu_that_has_no_target_is_named_with_those_that_have() -> None:
    values = of("pi4b", core_part="CPU part : 0xb76\n", features="Features : half thumb\n")
    with pytest.raises(BoardError, match=r"pi: its CPU \(part 0xb76, aarch64\) .*cortex-a72"):
        remarks.target(values, "pi")


def test_a_board_that_is_not_its_file_is_told_apart() -> None:
    values = of("pi4b")
    assert remarks.differences("", "", values) == []
    assert remarks.differences(values["model"], "0xd08", values) == []
    assert remarks.differences("Raspberry Pi 5", "0xd0b", values) == [
        "model is Raspberry Pi 4 Model B Rev 1.4, its file says Raspberry Pi 5",
        "core_part is 0xd08, its file says 0xd0b",
    ]


def test_bench_refuses_a_board_that_is_not_its_file(local_bed: Bed) -> None:
    board = replace(local_bed.board, name="pi5", core_part="0xd0b")
    with pytest.raises(BoardError, match=r"^pi5: it is not the board of boards/pi5\.toml: core_part is"):
        bench.bench(board, local_bed.connection, [], local_bed.artifacts)
    remarks.expect_its_file(local_bed.board, of("pi4b"))  # its file says nothing
