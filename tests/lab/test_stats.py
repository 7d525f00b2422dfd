"""Percentiles and ratios: known values, and intervals that hold what they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pilite.lab import stats


def test_a_row_is_made_of_all_runs_of_all_rounds() -> None:
    rounds = [[float(ms) for ms in range(1, 51)], [float(ms) for ms in range(51, 102)]]
    rounds[1].remove(101.0)
    assert stats.summary(rounds) == {
        "runs": 100,
        "min_ms": 1.0,
        "median_ms": 50.5,
        "p90_ms": pytest.approx(90.1),
        "p99_ms": pytest.approx(99.01),
        "mad_ms": 25.0,
    }


def test_a_ratio_is_the_rivals_median_over_ours() -> None:
    found = stats.compare([[2.0]] * 8, [[6.0]] * 8)
    assert (found.ratio, found.low, found.high, found.verdict) == (3.0, 3.0, 3.0, "faster")
    assert stats.compare([[6.0]] * 8, [[2.0]] * 8).verdict == "slower"


def test_a_runtime_that_left_early_is_compared_over_the_common_rounds() -> None:
    assert stats.compare([[1.0], [1.0], [9.0]], [[2.0], [2.0]]).ratio == 2.0


def test_too_few_rounds_decide_nothing() -> None:
    few, enough = stats.LEAST_ROUNDS - 1, stats.LEAST_ROUNDS
    assert stats.compare([[1.0]] * few, [[9.0]] * few).verdict == "undecided"
    assert stats.compare([[1.0]] * few, [[1.0]] * few).verdict == "undecided"
    assert stats.compare([[1.0]] * enough, [[9.0]] * enough).verdict == "faster"
    assert stats.compare([[1.0]] * enough, [[1.0]] * enough).verdict == "same"


def noisy(rng: np.random.Generator, ms: float, spread: float, rounds: int = 30, runs: int = 3) -> Any:
    return rng.normal(ms, spread, (rounds, runs)).tolist()


def test_equal_runtimes_are_the_same_or_undecided_by_their_noise() -> None:
    rng = np.random.default_rng(5)
    assert stats.compare(noisy(rng, 10, 0.1), noisy(rng, 10, 0.1)).verdict == "same"
    assert stats.compare(noisy(rng, 10, 3), noisy(rng, 10, 3)).verdict == "undecided"


def test_five_percent_are_found_in_two_percent_of_noise() -> None:
    rng = np.random.default_rng(6)
    found = stats.compare(noisy(rng, 10.5, 0.2), noisy(rng, 10, 0.2))
    assert (found.verdict, found.high < 1) == ("slower", True)


def test_the_same_samples_give_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = noisy(rng, 10, 1), noisy(rng, 20, 1)
    assert stats.compare(ours, theirs) == stats.compare(ours, theirs)


def test_intervals_hold_the_true_ratio_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        found = stats.compare(noisy(rng, 10, 1, runs=1), noisy(rng, 15, 1.5, runs=1))
        held += found.low <= 1.5 <= found.high
    assert held >= 57  # 95 %


def test_what_disturbs_a_whole_round_widens_the_interval() -> None:
    """Runs of one round are not independent: ten runs in five rounds say less than fifty rounds."""
    rng = np.random.default_rng(3)
    drift = rng.normal(0, 3, (5, 1))
    few = (20 + drift + rng.normal(0, 0.1, (5, 10))).tolist()
    found = stats.compare(noisy(rng, 10, 0.1, 5, 10), few)
    assert found.high - found.low > 0.1


def test_what_differs_between_processes_widens_the_interval() -> None:
    """Four processes with four layouts of memory say less than one hundred rounds of one."""
    rng = np.random.default_rng(4)
    layout = np.repeat(rng.normal(0, 0.5, (4, 1)), 25, axis=0)
    theirs = (10 + layout + rng.normal(0, 0.1, (100, 2))).tolist()
    ours = noisy(rng, 10, 0.1, 100, 2)
    blind, seeing = stats.compare(ours, theirs), stats.compare(ours, theirs, [25] * 4)
    assert seeing.high - seeing.low > 2 * (blind.high - blind.low)


def test_few_processes_mislead_as_seldom_as_the_interval_says() -> None:
    """Equal sides in 8 processes, whose layouts differ as much as rounds do."""
    rng = np.random.default_rng(7)
    held = sure = 0
    for _ in range(60):
        layout = np.repeat(rng.normal(0, 0.2, (8, 1)), 8, axis=0)
        found = stats.compare(
            noisy(rng, 10, 0.1, 64, 1), (10 + layout + rng.normal(0, 0.1, (64, 1))).tolist(), [8] * 8
        )
        held += found.low <= 1 <= found.high
        sure += found.p_value < 0.05
    assert held >= 57  # 95 %; 54 where 8 processes are taken for many
    assert sure <= 6  # 10 %; 24 where rounds of one process are taken for independent


def test_what_hits_both_in_a_round_divides_out() -> None:
    """A neighbour on the same core doubles the times of whole rounds; 5 % are found all the same."""
    rng = np.random.default_rng(7)
    busy = rng.choice([1.0, 1.4, 2.0], (64, 1))
    ours, theirs = busy * rng.normal(10, 0.3, (64, 5)), busy * rng.normal(10.5, 0.3, (64, 5))
    found = stats.compare(ours.tolist(), theirs.tolist(), [8] * 8)
    assert (found.verdict, found.high - found.low < 0.04) == ("faster", True)
    assert stats.compare(ours.tolist(), (theirs / 1.05).tolist(), [8] * 8).verdict == "same"


def test_rounds_may_have_different_numbers_of_runs() -> None:
    assert stats.compare([[1.0, 1.0], [1.0]] * 4, [[3.0], [2.0, 2.0, 9.0]] * 4).ratio == 2.5


def test_a_trend_is_a_drift_and_noise_is_none() -> None:
    rng = np.random.default_rng(8)
    trend = np.linspace(0, 1, 30)[:, None] + rng.normal(10, 0.1, (30, 3))
    assert stats.drift(trend.tolist()) == pytest.approx(0.1, abs=0.02)
    assert stats.drift(trend[::-1].tolist()) == pytest.approx(-0.1, abs=0.02)
    assert stats.drift(noisy(rng, 10, 1)) is None
    assert stats.drift([[10.0]] * 30) is None
    assert stats.drift([[1.0], [2.0], [3.0]]) is None


def test_two_heaps_of_runs_are_two_modes() -> None:
    rng = np.random.default_rng(9)
    two = np.concatenate([rng.normal(10, 0.2, 60), rng.normal(13, 0.2, 40)])
    rng.shuffle(two)
    assert stats.modes(two.reshape(20, 5).tolist()) == [
        pytest.approx(10, abs=0.3),
        pytest.approx(13, abs=0.3),
    ]


@pytest.mark.parametrize("tail", [0.0, 0.05])
def test_one_heap_with_a_tail_is_one_mode(tail: float) -> None:
    rng = np.random.default_rng(10)
    one = rng.normal(10, 0.2, 200)
    one[: int(200 * tail)] *= 1.6
    assert stats.modes(one.reshape(20, 10).tolist()) == []
    assert stats.modes([[10.0] * 10] * 20) == []
