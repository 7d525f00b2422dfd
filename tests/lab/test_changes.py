"""Change points: a step for good is found; noise, outliers and the board are not blamed on pilite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pilite.lab import changes, history
from tests.lab.results import measured

Json = dict[str, Any]


def entries(ours: Sequence[float], rival: Sequence[float] = (), **board: Any) -> list[Json]:
    """A history with one run a day."""
    rivals = rival or [20.0] * len(ours)
    days = enumerate(zip(ours, rivals, strict=True), 1)
    runs = [(f"run {day}", measured(day, a, b, f"build {day}", **board)) for day, (a, b) in days]
    return [entry for run, document in runs for entry in history.entries_of(run, document)]


def test_a_step_is_found_where_it_is() -> None:
    (change,) = changes.changes(entries([10.0, 10.1, 9.9, 10.0, 10.6, 10.5, 10.5]))
    assert (change.before, change.after, change.build) == ("run 4", "run 5", "build 5")
    assert change.size == pytest.approx(0.05, abs=0.002)
    assert change.is_regression


def test_a_gain_is_a_change_and_no_regression() -> None:
    (change,) = changes.changes(entries([10.0] * 4 + [8.0] * 3))
    assert change.size == pytest.approx(-0.2)
    assert not change.is_regression


def test_a_regression_that_was_mended_is_none_any_more() -> None:
    found = changes.changes(entries([10.0] * 4 + [12.0] * 3 + [10.0] * 3))
    assert [round(change.size, 2) for change in found] == [0.2, -0.17]
    assert not any(change.is_regression for change in found)


def test_a_rival_that_slowed_down_in_the_same_run_means_the_board() -> None:
    found = changes.changes(entries([10.0] * 4 + [12.0] * 4, [20.0] * 4 + [24.0] * 4))
    (ours,) = [change for change in found if change.runtime == "pilite"]
    assert ours.also == ("tflite",)
    assert not ours.is_regression
    remarks = [row["remark"] for row in changes.table(found)]
    assert remarks == ["so did tflite: the board, not pilite", ""]


def test_noise_is_no_change() -> None:
    rng = np.random.default_rng(1)
    quiet = [changes.changes(entries(list(10 + rng.normal(0, 0.15, 20)))) for _ in range(20)]
    assert sum(map(len, quiet)) <= 1


def test_one_slow_run_and_small_steps_are_no_change() -> None:
    assert changes.changes(entries([10.0] * 4 + [14.0] + [10.0] * 4)) == []
    assert changes.changes(entries([10.0] * 5 + [10.2] * 5)) == []
    assert len(changes.changes(entries([10.0] * 5 + [10.2] * 5), threshold=0.01)) == 1


def test_too_few_runs_say_nothing() -> None:
    assert changes.changes(entries([10.0, 10.0, 20.0])) == []
    assert changes.changes([]) == []


def test_runs_under_other_conditions_are_another_series() -> None:
    mixed = entries([10.0] * 4, governor="performance") + entries([20.0] * 4, governor="powersave")
    assert changes.changes(mixed) == []
    assert len(changes.series(mixed)) == 4


def test_times_that_do_not_count_are_left_out() -> None:
    assert changes.series([{**entry, "timing_valid": 0} for entry in entries([10.0] * 4)]) == []


def test_the_json_of_a_history_is_valid() -> None:
    found = entries([10.0] * 4 + [12.0] * 4)
    document = history.as_json(found, changes.changes(found))
    assert [change["is_regression"] for change in document["changes"]] == [True]
    assert len(document["entries"]) == 16
