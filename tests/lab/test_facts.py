"""Facts from recorded outputs: a Pi 4 that was throttled, and a board that tells nothing."""

from __future__ import annotations

import subprocess

import pytest

from pilite.lab import boards, facts
from tests.lab.conftest import Bed

PI4 = {
    "model": "Raspberry Pi 4 Model B Rev 1.4\0\n--\nprocessor\t: 0\nModel\t\t: not this one\n",
    "machine": "aarch64\n",
    "cores": "4\n",
    "core_part": "CPU part\t: 0xd08\n",
    "features": "Features\t: fp asimd evtstrm crc32 cpuid\n",
    "os": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
    "kernel": "6.6.20+rpt-rpi-v8\n",
    "libc": "glibc 2.36\n",
    "page_bytes": "4096\n",
    "memory_mb": "MemTotal:        3881456 kB\n",
    "governor": "ondemand\nondemand\n",
    "max_mhz": "1800000\n1800000\n",
    "temperature_c": "81790\n",
    "throttled": "throttled=0xE0008\n",
    "load1": "0.31 0.20 0.10 1/180 1234\n",
}


def recorded(outputs: dict[str, str]) -> str:
    return "".join(f"=== {name}\n{text}" for name, text in outputs.items())


def test_a_pi_is_read_fact_by_fact() -> None:
    assert facts.parse(recorded(PI4)) == {
        "model": "Raspberry Pi 4 Model B Rev 1.4",
        "machine": "aarch64",
        "cores": 4,
        "core_part": "0xd08",
        "features": ["fp", "asimd", "evtstrm", "crc32", "cpuid"],
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.6.20+rpt-rpi-v8",
        "libc": "glibc 2.36",
        "page_bytes": 4096,
        "memory_mb": 3790,
        "governor": "ondemand",
        "max_mhz": 1800.0,
        "temperature_c": 81.79,
        "throttled": "0xe0008",
        "load1": 0.31,
    }


def test_what_a_board_does_not_tell_is_unknown_not_zero() -> None:
    silent = facts.parse(recorded(dict.fromkeys(PI4, "")))
    assert {name for name, value in silent.items() if value is not None} == {"features"}
    assert silent["features"] == []


@pytest.mark.parametrize(
    ("word", "now"), [("0x0", False), ("0x50000", False), ("0x50005", True), ("0x8", True), (None, False)]
)
def test_only_the_low_bits_mean_throttled_now(word: str | None, now: bool) -> None:
    assert facts.throttled_now({"throttled": word}) == now


def test_different_governors_are_all_named() -> None:
    assert facts.parse(recorded({**PI4, "governor": "powersave\nondemand\npowersave\n"}))["governor"] == (
        "ondemand, powersave"
    )


def test_the_script_is_plain_shell() -> None:
    subprocess.run(["sh", "-n", "-c", facts.script()], check=True)


def test_every_board_tells_its_cores_and_its_kernel(bed: Bed) -> None:
    values = facts.facts(bed.board, bed.connection)
    assert list(values) == [fact.name for fact in facts.FACTS]
    assert values["cores"] >= 1
    assert values["machine"] == bed.board.arch
    assert values["kernel"]


@pytest.mark.docker
def test_an_emulated_board_does_not_show_its_hosts_hardware(container_bed: Bed) -> None:
    values = facts.facts(container_bed.board, container_bed.connection)
    assert values["model"] == "QEMU, as cortex-a72"
    assert values["core_part"] == "0xd08"
    assert {values[name] for name in facts.OF_HOST} == {None}
    assert boards.KINDS[container_bed.board.kind].emulated
