"""What a board's facts mean: one row per trouble, in words for the person who owns the board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilite.errors import BoardError
from pilite.lab import hostcpu
from pilite.lab.boards import Board

Facts = dict[str, Any]

ROOM_MB = 20  # a release with its predecessor
SITE_MB = 200  # numpy and the rivals' wheels, unpacked
GLIBC = (2, 28)  # what every artifact is linked against
CLOCK_OFF = 86400  # seconds from which the board's clock is worth a word
DEPLOYS = "deploy and rollback still work"


@dataclass(frozen=True)
class Remark:
    """A trouble; `fatal`: nothing of pilite works on the board until it is gone."""

    name: str
    fatal: bool
    text: str


@dataclass(frozen=True)
class Rule:
    """`applies` sees the facts and this machine's time in seconds; `text` is formatted with the facts."""

    name: str
    fatal: bool
    applies: Callable[[Facts, float], bool]
    text: str


def _is_32_bit(facts: Facts, now: float) -> bool:
    return facts["word_bits"] == 32 or str(facts["machine"]).startswith(("armv6", "armv7", "i686"))


def _has_old_libc(facts: Facts, now: float) -> bool:
    name, _, version = str(facts["libc"] or "").partition(" ")
    numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
    return name != "glibc" or numbers < GLIBC


def _is_pi(facts: Facts) -> bool:
    return str(facts["model"]).startswith("Raspberry Pi")


def _throttle_bits(facts: Facts) -> int:
    return int(facts["throttled"] or "0", 16)


def _lacks_video(facts: Facts, now: float) -> bool:
    groups = facts["groups"] or ["root"]
    return _is_pi(facts) and facts["throttled"] is None and not {"video", "root"} & set(groups)


def _hides_throttling(facts: Facts, now: float) -> bool:
    return _is_pi(facts) and facts["throttled"] is None and not _lacks_video(facts, now)


def _less_than(megabytes: int) -> Callable[[Facts, float], bool]:
    return lambda facts, now: facts["disk_free_mb"] is not None and facts["disk_free_mb"] < megabytes


RULES = (
    Rule(
        "32-bit userland",
        True,
        _is_32_bit,
        "its userland is 32-bit (getconf LONG_BIT {word_bits}, kernel {machine}): no artifact runs there. "
        "Install the 64-bit Raspberry Pi OS; until then `estimate` tells modelled cycles without the board.",
    ),
    Rule(
        "C library",
        True,
        lambda facts, now: not _is_32_bit(facts, now) and _has_old_libc(facts, now),
        "its C library is {libc}; artifacts need glibc 2.28 or newer: install Debian 10 or newer.",
    ),
    Rule(
        "missing tools",
        True,
        lambda facts, now: bool(facts["missing_tools"]),
        "it lacks {missing_tools}: apt-get install coreutils util-linux tar openssh-client there.",
    ),
    Rule(
        "full disk",
        True,
        _less_than(ROOM_MB),
        f"{{disk_free_mb}} MB are free on its disk and a deploy needs {ROOM_MB}: remove something there.",
    ),
    Rule(
        "little disk",
        False,
        lambda facts, now: _less_than(SITE_MB)(facts, now) and not _less_than(ROOM_MB)(facts, now),
        f"{{disk_free_mb}} MB are free on its disk; bench needs {SITE_MB} for the rivals; {DEPLOYS}.",
    ),
    Rule(
        "no Python",
        False,
        lambda facts, now: facts["python"] is None,
        f"it has no python3: bench does not work; {DEPLOYS}. apt-get install python3 there.",
    ),
    Rule(
        "not in group video",
        False,
        _lacks_video,
        "its user is in the groups {groups}, not in video: throttling cannot be read and bench says so. "
        "There: sudo usermod -aG video $USER, then onboard it again.",
    ),
    Rule(
        "throttling unknown",
        False,
        _hides_throttling,
        "vcgencmd does not tell whether it is throttled (is it installed, may the user open /dev/vcio?); "
        "bench reports it as unknown, never as no.",
    ),
    Rule(
        "throttled now",
        False,
        lambda facts, now: bool(_throttle_bits(facts) & 0xF),
        "it is throttled now (get_throttled {throttled}): check its power supply and cooling; bench refuses.",
    ),
    Rule(
        "throttled before",
        False,
        lambda facts, now: bool(_throttle_bits(facts) & 0xF0000) and not _throttle_bits(facts) & 0xF,
        "it was throttled since its start (get_throttled {throttled}): check power supply and cooling.",
    ),
    Rule(
        "no clock control",
        False,
        lambda facts, now: _is_pi(facts) and facts["governor"] is None,
        "its clock governor cannot be read (no cpufreq in /sys): bench measures at whatever clock it has.",
    ),
    Rule(
        "clock",
        False,
        lambda facts, now: facts["unix_time"] is not None and abs(facts["unix_time"] - now) > CLOCK_OFF,
        "its clock is more than a day off; deploys and bench do not depend on it.",
    ),
)


def remarks(facts: Facts, now: float) -> list[Remark]:
    """What is worth saying about a board, in the order of RULES; `now` is this machine's time.time()."""
    words = {name: ", ".join(value) if isinstance(value, list) else value for name, value in facts.items()}
    return [
        Remark(rule.name, rule.fatal, rule.text.format(**words)) for rule in RULES if rule.applies(facts, now)
    ]


def target(facts: Facts, where: str) -> str:
    """The best CPU of toolchains/ for a board. Raises BoardError if there is none."""
    features = "flags" if facts["machine"] == "x86_64" else "Features"
    cpuinfo = f"CPU part: {facts['core_part'] or ''}\n{features}: {' '.join(facts['features'])}\n"
    try:
        return hostcpu.best(cpuinfo, hostcpu.known())
    except BoardError:
        raise BoardError(
            f"{where}: its CPU (part {facts['core_part']}, {facts['machine']}) has the instructions of none "
            f"of: {', '.join(hostcpu.known())}."
        ) from None


def differences(model: str, core_part: str, facts: Facts) -> list[str]:
    """Where a board is not what its file says; an empty text in the file says nothing."""
    said = {"model": model, "core_part": core_part}
    return [
        f"{name} is {facts[name]}, its file says {text}"
        for name, text in said.items()
        if text and facts[name] != text
    ]


def expect_its_file(board: Board, facts: Facts) -> None:
    """Raises BoardError if a board is another one than its file says: its times would get a wrong name."""
    wrong = differences(board.model, board.core_part, facts)
    if wrong:
        raise BoardError(
            f"{board.name}: it is not the board of boards/{board.name}.toml: {'; '.join(wrong)}. Connect the "
            f"right one, or onboard this one under its own name."
        )
