"""The efforts with a made clock: each ends, in time, with what it promises. Nothing here takes real time."""

from __future__ import annotations

import os
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pilite.lab import measure, protocol, stats
from pilite.lab.protocol import Settings

Json = dict[str, Any]


class Clock:
    """Stands for the module `time` in measure.py."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


class Runtime:
    """Stands for measure.Worker: every run takes `ms` of `clock`, 3 % more or less."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.started, self.pid = clock, clock.now, os.getpid()
        self._chance = np.random.default_rng(0)

    def ask(self, **request: Any) -> Json:
        answer: Json = getattr(self, request.pop("do"))(**request)
        return answer

    def load(self, subject: Json, entry: Json, cpus: list[int] | None) -> Json:
        self._ms = float(entry["ms"])
        self._spend(1)
        return {"load_ms": 1.0, "first_ms": self._ms}

    def warm(self, least_ms: float, most_ms: float) -> Json:
        self._spend(max(least_ms, min(most_ms, 2 * self._ms)) / self._ms)
        return {"ms": self._ms, "settled": True, "warm_runs": 2}

    def run(self, settle: int, runs: int, kept: int) -> Json:
        self._spend(settle + runs)
        ms = self._ms * self._chance.uniform(0.97, 1.03, len(range(0, runs, -(-runs // kept))))
        return {"ms": ms.tolist(), "seconds": runs * self._ms / 1e3}

    def memory(self) -> Json:
        return {"rss_mb": 1.0}

    def stop(self) -> None:
        """Nothing runs."""

    def _spend(self, runs: float) -> None:
        self.clock.now += runs * self._ms / 1e3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measure, "time", made)
    monkeypatch.setattr(measure, "Worker", lambda limit_s, leash: Runtime(made))
    monkeypatch.setattr(measure, "Leash", lambda silence_s: SimpleNamespace())
    monkeypatch.setattr(measure, "tell", lambda news: None)
    return made


def race(settings: Settings, *ms: float) -> measure.Race:
    rows = [{"runtime": f"r{number}", "threads": 1, "ms": one} for number, one in enumerate(ms)]
    job = {**asdict(settings), "rows": rows, "subject": {}, "silence_s": 60}
    found = measure.Race(job)
    found.run()
    return found


@pytest.mark.parametrize("effort", protocol.EFFORTS.values(), ids=lambda effort: effort.effort)
def test_every_row_has_its_least_of_rounds_runs_seconds_and_processes(effort: Settings, clock: Clock) -> None:
    start, done = clock.now, race(effort, 4.0, 35.0)
    assert done.complete
    assert clock.now - start < effort.most_s
    for row in done.rows:
        assert len(row.samples) >= effort.least_rounds
        assert row.timed_runs >= effort.least_runs
        assert row.seconds >= effort.least_s
        assert len(row.sessions) == effort.sessions
        assert all(session["rounds"] for session in row.sessions)


@pytest.mark.parametrize("ms", [[0.02, 0.05], [4, 5_000], [20_000] * 6, [140_000] * 6], ids=str)
def test_official_ends_before_it_is_killed_and_says_what_is_missing(ms: list[float], clock: Clock) -> None:
    start, official, done = clock.now, protocol.OFFICIAL, race(protocol.OFFICIAL, *ms)
    assert clock.now - start < official.total_s
    has_all = all(row.timed_runs >= 1024 and row.seconds >= 600 for row in done.rows)
    assert done.complete is has_all
    assert done.complete or clock.now - start > official.most_s
    assert all(len(row.samples) >= official.sessions for row in done.rows)


def test_official_keeps_no_more_times_than_a_board_can_hold(clock: Clock) -> None:
    fast, slow = race(protocol.OFFICIAL, 0.02, 0.05).rows
    assert fast.timed_runs >= 30_000_000
    for row in (fast, slow):
        assert {len(turn) for turn in row.samples} == {protocol.OFFICIAL.kept_runs}
        assert stats.flat(row.samples).size < 50_000
    assert stats.compare(fast.samples, slow.samples).ratio == pytest.approx(2.5, rel=0.01)


@pytest.mark.parametrize(
    ("spent", "done", "over"), [(0.5, 9, False), (2, 3, False), (2, 4, True), (3.9, 3, False), (4.1, 3, True)]
)
def test_a_race_has_enough_rounds_to_decide_before_its_time_is_over(
    spent: float, done: int, over: bool, clock: Clock
) -> None:
    race = measure.Race({"rows": [], "seed": 0, "most_s": 1, "silence_s": 9})
    race._start = clock.now - spent
    assert race._is_over(race._start + 1, done, fewest=4) is over
