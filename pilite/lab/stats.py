"""Numbers of a race: rows, comparisons with their uncertainty, and what disturbed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks
from scipy.stats import gaussian_kde, kendalltau, norm, theilslopes, wilcoxon
from scipy.stats import t as student

Rounds = Sequence[Sequence[float]]  # [round][run] in ms
Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]

RESAMPLES = 4000
CONFIDENCE = 0.95
LEAST_ROUNDS = 6  # the rank test cannot reach 5 % with fewer
RESOLUTION = 0.05  # an interval that holds 1.0 and is wider than this on a side decides nothing
DRIFT = 0.03  # of the median, from the first round to the last
SURE = 0.01  # chance by which a trend may be an accident
MODE_SHARE = 0.1  # of the runs, in the smaller of two modes
MODE_VALLEY = 0.6  # depth between two modes, of the lower one
MODE_GAP = 1.03  # two modes nearer than this are one


def summary(rounds: Rounds) -> dict[str, float | int]:
    """Count, smallest, median, high percentiles (linear interpolation) of all runs, in ms.

    `mad_ms` is the median absolute deviation from the median, not scaled.
    """
    samples = flat(rounds)
    median, p90, p99 = np.percentile(samples, [50, 90, 99])
    return {
        "runs": int(samples.size),
        "min_ms": float(samples.min()),
        "median_ms": float(median),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "mad_ms": float(np.median(np.abs(samples - median))),
    }


def flat(rounds: Rounds) -> Array:
    return np.asarray([ms for turn in rounds for ms in turn], np.float64)


@dataclass(frozen=True)
class Comparison:
    """How many times faster ours is: the middle ratio of rounds, its 95 % interval, a rank test, a verdict.

    `verdict` is "faster", "slower", "same" (the interval holds 1.0 and is narrower than RESOLUTION on both
    sides) or "undecided"; only an undecided comparison has no ratio to show.
    """

    ratio: float
    low: float
    high: float
    p_value: float
    verdict: str


def compare(ours: Rounds, rival: Rounds, sessions: Sequence[int] = (), seed: int = 0) -> Comparison:
    """Compare two rows of one race. `sessions`: rounds of each session; empty: one session.

    Each round has a ratio, of the rival's median and ours: their turns were one after the other, so a clock
    that sags for a while, or a neighbour on the same core, divides out. The speed-up is the median of these.
    The interval is a percentile bootstrap over whole rounds: runs of one round share the board's state and
    are not independent. With several sessions these are drawn first, then rounds within them: runs of one
    process share its layout of memory. It is as wide as so few sessions or rounds ask. The test is Wilcoxon's
    signed-rank test of the logarithms of the sessions' ratios, or of the rounds' where sessions are too few.
    """
    rounds = min(len(ours), len(rival))
    ratios = medians(rival[:rounds]) / medians(ours[:rounds])
    parts = _parts(rounds, sessions)
    units = np.asarray([np.median(ratios[part]) for part in parts]) if len(parts) > 1 else ratios
    middle = float(np.median(ratios))
    spread = np.median(ratios[_draw(parts, seed)], axis=1)
    beyond = tail(len(units))
    low, high = np.percentile(spread, [beyond, 100 - beyond]).tolist()
    p_value = _rank_test(np.log(units if len(units) >= LEAST_ROUNDS else ratios))
    return Comparison(middle, low, high, p_value, _verdict(rounds, low, high, p_value))


def tail(count: int) -> float:
    """The percentage of a bootstrap of `count` independent numbers beyond each end of its interval.

    2.5, less what few numbers ask: a bootstrap takes their variance for n - 1 of n parts of the true one, and
    quantiles of the normal distribution for those of Student's t (the expanded percentile interval of
    Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015).
    """
    if count < 2:
        return 50 * (1 - CONFIDENCE)
    wanted = student.ppf((1 - CONFIDENCE) / 2, count - 1)
    return float(100 * norm.cdf(np.sqrt(count / (count - 1)) * wanted))


def medians(rounds: Rounds) -> Array:
    """(rounds,): the median of the runs of each, in ms."""
    return np.asarray([np.median(turn) for turn in rounds], np.float64)


def _parts(rounds: int, sessions: Sequence[int]) -> list[Numbers]:
    """The numbers of the rounds of each session."""
    parts, start = [], 0
    for count in sessions or [rounds]:
        parts.append(np.arange(start, min(start + count, rounds)))
        start += count
    return [part for part in parts if len(part)]


def _draw(parts: Sequence[Numbers], seed: int) -> Numbers:
    """(RESAMPLES, rounds): numbers of rounds, by sessions and by rounds within them."""
    rng, rounds = np.random.default_rng(seed), sum(map(len, parts))
    each = rounds // len(parts)
    lines = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(parts), size=len(parts))
        lines.append(
            np.concatenate([parts[i][rng.integers(len(parts[i]), size=max(1, each))] for i in chosen])
        )
    return np.asarray(lines, np.intp)


def _rank_test(logs: Array) -> float:
    """Chance of a difference like this between equal runtimes; 1.0 where every round is a tie."""
    return float(wilcoxon(logs).pvalue) if len(logs) > 1 and logs.any() else 1.0


def _verdict(rounds: int, low: float, high: float, p_value: float) -> str:
    if rounds < LEAST_ROUNDS:
        return "undecided"
    sure = p_value < 1 - CONFIDENCE
    if low > 1 and sure:
        return "faster"
    if high < 1 and sure:
        return "slower"
    narrow = low > 1 / (1 + RESOLUTION) and high < 1 + RESOLUTION
    return "same" if narrow else "undecided"


def drift(rounds: Rounds) -> float | None:
    """By which part of its median a row became slower from the first round to the last; None: no trend.

    A trend is one that Kendall's test is sure of and that is larger than DRIFT; its size is Theil and Sen's.
    """
    middles = medians(rounds)
    if len(middles) < LEAST_ROUNDS or np.ptp(middles) == 0:
        return None
    whole = float(theilslopes(middles).slope * (len(middles) - 1) / np.median(middles))
    test: Any = kendalltau(np.arange(len(middles)), middles)
    return whole if abs(whole) > DRIFT and test.pvalue < SURE else None


def modes(rounds: Rounds) -> list[float]:
    """The times in ms around which runs gather, if there are several; else nothing.

    Peaks of a Gaussian density estimate of log(ms): MODE_GAP apart, with a valley below MODE_VALLEY of the
    lower one and MODE_SHARE of the runs on each side. The slowest 2 % are left out: a tail is no mode.
    """
    samples = np.sort(flat(rounds))
    samples = samples[: max(1, int(0.98 * len(samples)))]
    logs = np.log(samples)
    if len(logs) < 20 or np.ptp(logs) < np.log(MODE_GAP):
        return []
    grid = np.linspace(logs[0], logs[-1], 256)
    density = gaussian_kde(logs, 0.5 * len(logs) ** -0.2)(grid)
    peaks, _ = find_peaks(np.concatenate([[0.0], density, [0.0]]))
    return _separate(grid, density, peaks - 1, logs)


def _separate(grid: Array, density: Array, peaks: Numbers, logs: Array) -> list[float]:
    """Merge neighbouring peaks that are no modes of their own; times of those that are left."""
    kept: list[int] = []
    for peak in map(int, peaks):
        if kept and not _apart(grid, density, kept[-1], peak, logs):
            kept[-1] = max(kept[-1], peak, key=lambda i: density[i])
        else:
            kept.append(peak)
    return [float(np.exp(grid[peak])) for peak in kept] if len(kept) > 1 else []


def _apart(grid: Array, density: Array, left: int, right: int, logs: Array) -> bool:
    valley = left + int(np.argmin(density[left : right + 1]))
    deep = density[valley] < MODE_VALLEY * min(density[left], density[right])
    share = float(np.mean(logs <= grid[valley]))
    return bool(
        deep and grid[right] - grid[left] > np.log(MODE_GAP) and MODE_SHARE <= share <= 1 - MODE_SHARE
    )
