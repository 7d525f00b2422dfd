"""Numbers of a measurement: one row per (runtime, threads), ratios with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

Rounds = Sequence[Sequence[float]]  # [round][run] in ms; every round has the same number of runs

RESAMPLES = 2000
CONFIDENCE = 0.95


def summary(rounds: Rounds) -> dict[str, float | int]:
    """Count, smallest, median and high percentiles (linear interpolation) of all runs, in ms."""
    samples = np.asarray(rounds, np.float64).ravel()
    median, p90, p99 = np.percentile(samples, [50, 90, 99])
    return {
        "runs": int(samples.size),
        "min_ms": float(samples.min()),
        "median_ms": float(median),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
    }


def speedup(ours: Rounds, rival: Rounds, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """How many times faster `ours` is, as a ratio of medians, and a 95 % interval for it.

    The interval is a percentile bootstrap over whole rounds: runs of one round share the board's state and
    are not independent, and both runtimes had their turn in each round. With one round it is the ratio twice.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(rival, np.float64)
    rounds = min(len(a), len(b))
    a, b = a[:rounds], b[:rounds]
    ratio = float(np.median(b) / np.median(a))
    if rounds < 2:
        return ratio, (ratio, ratio)

    def statistic(drawn: npt.NDArray[np.intp], axis: int) -> npt.NDArray[np.float64]:
        chosen = np.moveaxis(drawn, axis, -1)  # (..., rounds)
        result: npt.NDArray[np.float64] = _pooled_median(b[chosen]) / _pooled_median(a[chosen])
        return result

    interval: Any = bootstrap(
        (np.arange(rounds),),
        statistic,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return ratio, (float(interval.low), float(interval.high))


def _pooled_median(runs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(..., rounds, runs) -> (...)"""
    pooled: npt.NDArray[np.float64] = np.median(runs.reshape(*runs.shape[:-2], -1), axis=-1)
    return pooled
