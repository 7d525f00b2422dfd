"""What a board is: each fact is one shell command and a function that reads its output. Nothing changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.hostcpu import value_of

Value = str | int | float | bool | list[str] | None


@dataclass(frozen=True)
class Fact:
    """`command` is POSIX shell; `parse` gets its output, "" if it failed, and gives None for "unknown"."""

    name: str
    command: str
    parse: Callable[[str], Value]


def _text(out: str) -> str | None:
    return out.strip() or None


def _number(out: str) -> int | None:
    return int(out) if re.fullmatch(r"\s*\d+\s*", out) else None


def _first_number(out: str) -> float | None:
    found = re.search(r"\d+(\.\d+)?", out)
    return float(found[0]) if found else None


def _model(out: str) -> str | None:
    """The device tree's name, else the CPU's."""
    tree, _, cpuinfo = out.partition("\n--\n")
    return tree.strip("\0\n ") or value_of(cpuinfo, "Model") or value_of(cpuinfo, "model name") or None


def _os(out: str) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', out, re.MULTILINE)
    return found[1] if found else None


def _kilobytes(out: str) -> int | None:
    """ "MemTotal: 948012 kB" as whole megabytes."""
    found = re.search(r"(\d+) kB", out)
    return int(found[1]) // 1024 if found else None


def _celsius(out: str) -> float | None:
    found = _number(out)
    return None if found is None else found / 1000


def _megahertz(out: str) -> float | None:
    found = _number(out.split("\n", 1)[0])
    return None if found is None else found / 1000


def _throttled(out: str) -> str | None:
    """ "throttled=0x50000"; without rights on /dev/vcio vcgencmd prints an error instead."""
    found = re.search(r"throttled=(0x[0-9a-fA-F]+)", out)
    return found[1].lower() if found else None


def _free_megabytes(out: str) -> int | None:
    """The column "Available" of `df -Pk`."""
    words = out.strip().rsplit("\n", 1)[-1].split()
    return int(words[3]) // 1024 if len(words) >= 6 and words[3].isdecimal() else None


def _version(out: str) -> str | None:
    found = re.search(r"\d+\.\d+\.\d+", out)
    return found[0] if found else None


def _unique(out: str) -> str | None:
    return ", ".join(sorted(set(out.split()))) or None


TOOLS = ("flock", "sha256sum", "timeout", "setsid", "ssh-keygen", "tar")  # what deploys and bench run there
_MISSING = f"for tool in {' '.join(TOOLS)}; do command -v $tool >/dev/null || echo $tool; done; echo ."
_POLICIES = "/sys/devices/system/cpu/cpufreq/policy*"

FACTS = (
    Fact("model", "cat /proc/device-tree/model 2>/dev/null; echo; echo --; cat /proc/cpuinfo", _model),
    Fact("machine", "uname -m", _text),
    Fact("cores", "nproc", _number),
    Fact("core_part", "grep -m1 'CPU part' /proc/cpuinfo", lambda out: value_of(out, "CPU part") or None),
    Fact(
        "features", "grep -m1 -E '^(Features|flags)' /proc/cpuinfo", lambda out: out.partition(":")[2].split()
    ),
    Fact("word_bits", "getconf LONG_BIT", _number),
    Fact("os", "cat /etc/os-release", _os),
    Fact("kernel", "uname -r", _text),
    Fact("libc", "getconf GNU_LIBC_VERSION", _text),
    Fact("python", "python3 --version", _version),
    Fact("page_bytes", "getconf PAGESIZE", _number),
    Fact("memory_mb", "grep MemTotal /proc/meminfo", _kilobytes),
    Fact("disk_free_mb", 'df -Pk "$HOME"', _free_megabytes),
    Fact("groups", "id -nG", str.split),
    Fact("missing_tools", _MISSING, lambda out: out.split()[:-1] if out else None),
    Fact("boot_id", "cat /proc/sys/kernel/random/boot_id", _text),
    Fact("unix_time", "date +%s", _number),
    Fact("governors", f"cat {_POLICIES}/scaling_available_governors", _unique),
    Fact("governor", f"cat {_POLICIES}/scaling_governor", _unique),
    Fact("max_mhz", f"cat {_POLICIES}/cpuinfo_max_freq", _megahertz),
    Fact("temperature_c", "cat /sys/class/thermal/thermal_zone0/temp", _celsius),
    Fact("throttled", "vcgencmd get_throttled 2>&1", _throttled),
    Fact("load1", "cat /proc/loadavg", _first_number),
)
OF_HOST = (
    "governors",
    "governor",
    "max_mhz",
    "temperature_c",
    "throttled",
    "load1",
)  # what an emulated board shows of its host
THROTTLED_NOW = 0xF  # get_throttled: undervoltage, capped clock, throttled, soft temperature limit


def facts(board: Board, connection: Connection) -> dict[str, Any]:
    """Every fact of FACTS about a board; None for what it does not tell. Raises BoardError."""
    values = parse(connection.check(["sh", "-c", script()]))
    if board.emulated:
        values |= dict.fromkeys(OF_HOST) | {"model": f"QEMU, as {board.cpu}"}
    return values


def script() -> str:
    """One script for all facts: on an emulated board every new process costs 0.1 s."""
    return (
        "\n".join(f"echo '=== {fact.name}'\n{{ {fact.command}; }} 2>/dev/null" for fact in FACTS) + "\ntrue"
    )


def parse(output: str) -> dict[str, Any]:
    """What `script` printed, as values."""
    parts = re.split(r"^=== (\w+)\n", output, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {fact.name: fact.parse(sections.get(fact.name, "")) for fact in FACTS}


def throttled_now(values: dict[str, Any]) -> bool:
    """Whether the board slowed its clock down while it was looked at."""
    word = values.get("throttled")
    return isinstance(word, str) and bool(int(word, 16) & THROTTLED_NOW)
