"""When a time may be shown, and when two may be compared: tables of rules.

A *refused* result has no ratios; a *marked* one has them, with the mark beside. Nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilite.lab import facts
from pilite.lab.rivals import RIVALS

Json = dict[str, Any]

REFUSED, MARKED = "refused", "marked"
BUSY = 0.3  # load per CPU, and CPUs used by others during the rounds, from which times must be doubted
STOLEN = 0.05  # CPUs that a hypervisor kept for itself
PERFORMANCE = "performance"
CLOCK = 0.05  # by which the clock may vary


@dataclass(frozen=True)
class Mark:
    """What a reader must know. `model`, `runtime` and `threads` say which rows; None: all of the run."""

    rule: str
    severity: str
    what: str
    model: str | None = None
    runtime: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Scene:
    """All that the rules look at: the board's facts before and after, rows as shown, checks, diaries."""

    board: str
    timing_valid: bool
    before: Json
    after: Json
    rows: Sequence[Json]
    checks: Sequence[Json]
    diaries: Mapping[str, Sequence[Json]]  # by model
    complete: Mapping[str, bool]  # by model: the effort's least was reached
    governor: str | None = None  # of the clock, during the race; None: the board has none
    governor_note: str | None = None  # why it is not held at `performance`
    max_celsius: int = 70


Rule = Callable[[Scene], Iterable[Mark]]


def virtual(scene: Scene) -> Iterable[Mark]:
    if not scene.timing_valid:
        yield Mark("virtual board", REFUSED, f"{scene.board} is virtual: its times say nothing about speed")


def throttled(scene: Scene) -> Iterable[Mark]:
    if facts.throttled_now(scene.before) or facts.throttled_now(scene.after):
        word = scene.after["throttled"]
        yield Mark(
            "throttled",
            REFUSED,
            f"{scene.board} was throttled (get_throttled {word}): its times do not count",
        )


def mismatched(scene: Scene) -> Iterable[Mark]:
    for check in scene.checks:
        if check["mismatches"]:
            what = f"{check['model']}: {check['mismatches']} outputs are wrong; a wrong answer has no speed"
            yield Mark("mismatch", REFUSED, what, check["model"])


def busy(scene: Scene) -> Iterable[Mark]:
    load, cores = scene.before["load1"], scene.before["cores"] or 1
    if load is not None and load > BUSY * cores:
        what = f"{scene.board} was busy before the measurement: load {load:.1f} on {cores} CPUs"
        yield Mark("busy", MARKED, what)


def hot(scene: Scene) -> Iterable[Mark]:
    celsius = scene.before["temperature_c"]
    if celsius is not None and celsius >= scene.max_celsius:
        what = f"{scene.board} had {celsius:.0f} degrees Celsius before the measurement"
        yield Mark("hot", MARKED, what)


def governed(scene: Scene) -> Iterable[Mark]:
    if scene.timing_valid and scene.governor not in (None, PERFORMANCE):
        why = f" ({scene.governor_note}); onboard installs what sets it" if scene.governor_note else ""
        yield Mark("governor", MARKED, f"the clock governor was {scene.governor}, not {PERFORMANCE}{why}")


def left(scene: Scene) -> Iterable[Mark]:
    before, after = scene.before["governor"], scene.after["governor"]
    if before != after:
        yield Mark("governor changed", MARKED, f"the clock governor was {before} before and is {after} now")


def disturbed(scene: Scene) -> Iterable[Mark]:
    for model, diary in scene.diaries.items():
        others, stolen = mean(diary, "other_cpus"), mean(diary, "stolen_cpus")
        if others > BUSY:
            what = f"{model}: other processes used {others:.1f} CPUs during the rounds"
            yield Mark("disturbed", MARKED, what, model)
        if stolen > STOLEN:
            what = f"{model}: the hypervisor took {stolen:.2f} CPUs during the rounds"
            yield Mark("disturbed", MARKED, what, model)


def mean(diary: Sequence[Json], name: str) -> float:
    """The average over the rounds, by their length."""
    seconds = sum(lap["seconds"] for lap in diary)
    return sum(lap[name] * lap["seconds"] for lap in diary) / seconds if seconds else 0.0


def clocks(scene: Scene) -> Iterable[Mark]:
    for model, diary in scene.diaries.items():
        highest = [max(lap["mhz"]) for lap in diary if lap["mhz"]]
        if highest and min(highest) < (1 - CLOCK) * max(highest):
            what = f"{model}: the clock went from {max(highest):.0f} to {min(highest):.0f} MHz"
            yield Mark("clocks changed", MARKED, what, model)


def unfinished(scene: Scene) -> Iterable[Mark]:
    for model, complete in scene.complete.items():
        if not complete:
            what = f"{model}: the time of this effort was over before its least number of runs"
            yield Mark("unfinished", MARKED, what, model)


def oversubscribed(scene: Scene) -> Iterable[Mark]:
    for row in scene.rows:
        if row["oversubscribed"]:
            yield _of(row, "oversubscribed", "more threads than CPUs")


def unlocked(scene: Scene) -> Iterable[Mark]:
    for row in scene.rows:
        rival = RIVALS.get(row["runtime"])
        if rival and rival.locked != row["runtime_version"]:
            wanted = rival.locked or "no version"
            yield _of(row, "version", f"{row['runtime_version']} was measured, the lock has {wanted}")


def unsettled(scene: Scene) -> Iterable[Mark]:
    for row in scene.rows:
        if not row["settled"]:
            yield _of(row, "unsettled", "its times had not settled when warm-up ended")


def drifted(scene: Scene) -> Iterable[Mark]:
    for row in scene.rows:
        if row["drift"] is not None:
            trend = "slower" if row["drift"] > 0 else "faster"
            yield _of(row, "drift", f"{abs(row['drift']):.0%} {trend} from the first round to the last")


def several_modes(scene: Scene) -> Iterable[Mark]:
    for row in scene.rows:
        if row["modes_ms"]:
            times = ", ".join(f"{ms:.3g}" for ms in row["modes_ms"])
            yield _of(row, "several modes", f"runs gather around {times} ms: one number does not describe it")


def _of(row: Json, rule: str, what: str) -> Mark:
    named = f"{row['model']}, {row['runtime']} with {row['threads']} thread(s): {what}"
    return Mark(rule, MARKED, named, row["model"], row["runtime"], row["threads"])


RULES: tuple[Rule, ...] = (
    virtual,
    throttled,
    mismatched,
    busy,
    hot,
    governed,
    left,
    disturbed,
    clocks,
    unfinished,
    oversubscribed,
    unlocked,
    unsettled,
    drifted,
    several_modes,
)


def marks(scene: Scene) -> list[Mark]:
    """What all rules say, refusals first."""
    found = [mark for rule in RULES for mark in rule(scene)]
    return sorted(found, key=lambda mark: mark.severity != REFUSED)


def refused(found: Iterable[Mark], model: str) -> bool:
    """Whether a model's ratios must not be shown."""
    return any(mark.severity == REFUSED and mark.model in (None, model) for mark in found)


# Two results.

# What must agree before two results may be compared: board, clocks, OS, versions, protocol.
SAME = (
    ("board", "name"),
    ("board", "model"),
    ("board", "cpu"),
    ("board", "cores"),
    ("board", "governor"),
    ("board", "max_mhz"),
    ("board", "os"),
    ("board", "kernel"),
    ("board", "libc"),
    ("versions", "protocol"),
    ("versions", "python"),
    ("settings", "effort"),
)
SUBJECT = "pilite"  # what is compared may differ between two results: its builds are the question


def differences(a: Json, b: Json) -> list[Json]:
    """Why two results must not be compared; empty if they may be."""
    pairs: list[tuple[str, Any, Any]] = [
        (f"{part}.{name}", a.get(part, {}).get(name), b.get(part, {}).get(name)) for part, name in SAME
    ]
    ours, theirs = _versions(a), _versions(b)
    pairs += [
        (f"version of {name}", ours[name], theirs[name]) for name in sorted(ours.keys() & theirs.keys())
    ]
    pairs.append(("times count", a["timing_valid"], b["timing_valid"]))
    return [{"what": what, "first": one, "second": two} for what, one, two in pairs if one != two]


def side_by_side(a: Json, b: Json) -> list[Json]:
    """Rows that two results share, with their medians in ms."""
    second = {(row["model"], row["runtime"], row["threads"]): row for row in b["rows"]}
    shared = [(row, second.get((row["model"], row["runtime"], row["threads"]))) for row in a["rows"]]
    return [
        {
            "model": one["model"],
            "runtime": one["runtime"],
            "threads": one["threads"],
            "first": one["median_ms"],
            "second": two["median_ms"],
            "change": f"{two['median_ms'] / one['median_ms'] - 1:+.1%}",
        }
        for one, two in shared
        if two is not None
    ]


def _versions(document: Json) -> dict[str, str]:
    rows = [row for row in document["rows"] if not row["runtime"].startswith(SUBJECT)]
    return {row["runtime"]: row["runtime_version"] for row in rows}
