"""Rules of honesty: each one speaks when it should, and says nothing about a clean run."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from pilite.lab import honesty
from pilite.lab.honesty import MARKED, REFUSED, Scene
from pilite.lab.rivals import RIVALS

Json = dict[str, Any]

ROW: Json = {
    "model": "m",
    "runtime": "tflite",
    "threads": 4,
    "runtime_version": RIVALS["tflite"].locked,
    "oversubscribed": False,
    "settled": True,
    "drift": None,
    "modes_ms": [],
}
QUIET: Json = {"throttled": "0x0", "load1": 0.5, "cores": 4, "temperature_c": 48.0, "governor": "ondemand"}
LAP: Json = {"seconds": 2.0, "other_cpus": 0.1, "stolen_cpus": 0.0, "mhz": [1500.0, 1500.0]}
RIGHT: Json = {"model": "m", "mismatches": 0}
CLEAN = Scene("pi", True, QUIET, QUIET, [ROW], [RIGHT], {"m": [LAP] * 3}, {"m": True})


def test_a_clean_run_has_no_mark() -> None:
    assert honesty.marks(CLEAN) == []


CASES: dict[str, tuple[Json, str, str]] = {
    "virtual": ({"timing_valid": False}, REFUSED, "pi is virtual"),
    "throttled": (
        {"after": {**QUIET, "throttled": "0x50005"}},
        REFUSED,
        "pi was throttled (get_throttled 0x50005): its times do not count",
    ),
    "mismatch": ({"checks": [{"model": "m", "mismatches": 7}]}, REFUSED, "m: 7 outputs are wrong"),
    "hot": ({"before": {**QUIET, "temperature_c": 70.0}}, MARKED, "pi had 70 degrees Celsius before"),
    "governor": (
        {"governor": "ondemand", "governor_note": "sudo: no"},
        MARKED,
        "the clock governor was ondemand, not performance (sudo: no); onboard installs what sets it",
    ),
    "governor left": (
        {"after": {**QUIET, "governor": "performance"}},
        MARKED,
        "the clock governor was ondemand before and is performance now",
    ),
    "busy": ({"before": {**QUIET, "load1": 2.0}}, MARKED, "busy before the measurement: load 2.0 on 4 CPUs"),
    "disturbed": (
        {"diaries": {"m": [{**LAP, "other_cpus": 1.5}, LAP]}},
        MARKED,
        "m: other processes used 0.8 CPUs",
    ),
    "stolen": ({"diaries": {"m": [{**LAP, "stolen_cpus": 0.5}]}}, MARKED, "the hypervisor took 0.50 CPUs"),
    "clocks": (
        {"diaries": {"m": [LAP, {**LAP, "mhz": [1200.0, 600.0]}]}},
        MARKED,
        "m: the clock went from 1500 to 1200 MHz",
    ),
    "unfinished": ({"complete": {"m": False}}, MARKED, "m: the time of this effort was over"),
    "oversubscribed": (
        {"rows": [{**ROW, "oversubscribed": True}]},
        MARKED,
        "m, tflite with 4 thread(s): more threads",
    ),
    "version": (
        {"rows": [{**ROW, "runtime_version": "2.5.0"}]},
        MARKED,
        "2.5.0 was measured, the lock has 2.14.0",
    ),
    "unsettled": ({"rows": [{**ROW, "settled": False}]}, MARKED, "had not settled"),
    "drift": ({"rows": [{**ROW, "drift": 0.08}]}, MARKED, "8% slower from the first round to the last"),
    "modes": ({"rows": [{**ROW, "modes_ms": [10.0, 13.2]}]}, MARKED, "runs gather around 10, 13.2 ms"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_rule_speaks_with_its_values(case: str) -> None:
    change, severity, words = CASES[case]
    (mark,) = honesty.marks(replace(CLEAN, **change))
    assert mark.severity == severity
    assert words in mark.what


def test_every_rule_has_a_case() -> None:
    spoken = {honesty.marks(replace(CLEAN, **change))[0].rule for change, _, _ in CASES.values()}
    assert len(spoken) == len(honesty.RULES)


def test_a_wrong_answer_refuses_its_own_model_only() -> None:
    found = honesty.marks(replace(CLEAN, checks=[{"model": "m", "mismatches": 1}]))
    assert honesty.refused(found, "m")
    assert not honesty.refused(found, "other")
    assert honesty.refused(honesty.marks(replace(CLEAN, timing_valid=False)), "other")


def test_refusals_come_first() -> None:
    scene = replace(CLEAN, before={**QUIET, "load1": 9.0}, checks=[{"model": "m", "mismatches": 1}])
    assert [mark.severity for mark in honesty.marks(scene)] == [REFUSED, MARKED]


DOCUMENT: Json = {
    "board": {"name": "pi4", "model": "Pi 4", "cpu": "a72", "cores": 4, "governor": "performance"},
    "versions": {"protocol": 2, "python": "3.11.2"},
    "settings": {"effort": "default", "seed": 1},
    "timing_valid": True,
    "rows": [
        {"runtime": "pilite", "runtime_version": "build 1"},
        {"runtime": "tflite", "runtime_version": "2"},
    ],
}


def test_runs_of_two_builds_may_be_compared() -> None:
    other = copy.deepcopy(DOCUMENT)
    other["rows"][0]["runtime_version"], other["settings"]["seed"] = "build 2", 9
    assert honesty.differences(DOCUMENT, other) == []


DIFFERENT: list[tuple[str, Any]] = [
    ("board.governor", lambda d: d["board"].update(governor="powersave")),
    ("board.name", lambda d: d["board"].update(name="pi5")),
    ("versions.protocol", lambda d: d["versions"].update(protocol=3)),
    ("settings.effort", lambda d: d["settings"].update(effort="quick")),
    ("version of tflite", lambda d: d["rows"][1].update(runtime_version="3")),
    ("times count", lambda d: d.update(timing_valid=False)),
]


@pytest.mark.parametrize(("what", "change"), DIFFERENT, ids=[what for what, _ in DIFFERENT])
def test_runs_that_differ_in_more_are_not_compared_and_the_difference_is_named(
    what: str, change: Any
) -> None:
    other = copy.deepcopy(DOCUMENT)
    change(other)
    assert [row["what"] for row in honesty.differences(DOCUMENT, other)] == [what]
