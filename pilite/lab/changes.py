"""Where a row's time changed for good: change points in its history, found with ruptures (PELT)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.lab.rivals import OURS

Json = dict[str, Any]
Array = npt.NDArray[np.float64]

LEAST = 4  # entries of a series in which a change can be seen
SEGMENT = 2  # entries between two changes, at least: one slow run is an outlier
THRESHOLD = 0.03  # smaller changes are not worth a word
FLOOR = 0.005  # noise of log(ms) is taken to be at least this
PENALTY = 4.0  # of a change, times log(n) and the noise; costs are distances from medians

# Entries with equal values of these are one series; for rivals the version too.
SAME: tuple[str, ...] = (
    "board",
    "board_model",
    "cpu",
    "cores",
    "governor",
    "max_mhz",
    "os",
    "kernel",
    "libc",
)
SAME += ("python", "protocol", "effort", "model", "numerics", "threads", "runtime")


@dataclass(frozen=True)
class Change:
    """From one run to the next, and for good: `size` is +0.05 if times grew by 5 %."""

    board: str
    model: str
    runtime: str
    threads: int
    before: str  # the last run before it
    after: str  # the first run after it
    build: str  # of the run after it
    size: float
    last: bool  # no later change in this series
    also: tuple[str, ...] = ()  # rivals that changed alike in the same run: then it is the board

    @property
    def is_regression(self) -> bool:
        return self.runtime == OURS and self.size > 0 and self.last and not self.also


def series(entries: Iterable[Json]) -> list[list[Json]]:
    """Entries whose times may be compared, oldest first; those that do not count are left out."""
    found: dict[tuple[Any, ...], list[Json]] = {}
    for entry in entries:
        if entry["timing_valid"] and entry["median_ms"] > 0:
            version = "" if entry["runtime"] == OURS else entry["runtime_version"]
            found.setdefault((*(entry[name] for name in SAME), version), []).append(entry)
    return list(found.values())


def changes(entries: Iterable[Json], threshold: float = THRESHOLD) -> list[Change]:
    """All changes of at least `threshold` in all series."""
    found = [change for one in series(entries) for change in changes_of(one, threshold)]
    return [_with_rivals(change, found) for change in found]


def changes_of(entries: Sequence[Json], threshold: float) -> list[Change]:
    """Changes within one series."""
    if len(entries) < LEAST:
        return []
    logs = np.log([entry["median_ms"] for entry in entries])
    ends = [0, *change_points(logs), len(logs)]
    levels = [float(np.median(logs[a:b])) for a, b in itertools.pairwise(ends)]
    steps = zip(ends[1:-1], levels, levels[1:], strict=False)
    large = [(at, math.exp(b - a) - 1) for at, a, b in steps if abs(math.exp(b - a) - 1) >= threshold]
    return [
        _change(entries[at - 1], entries[at], size, last=i == len(large) - 1)
        for i, (at, size) in enumerate(large)
    ]


def change_points(logs: Array) -> list[int]:
    """Numbers of the first entries after a change.

    Costs are distances from the median of a segment, so that one slow run is not worth two changes. The noise
    is estimated from the differences of neighbours (median absolute deviation), which steps do not
    inflate.
    """
    import ruptures

    steps = np.diff(logs)
    noise = max(FLOOR, 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2))
    search = ruptures.Pelt(model="l1", min_size=SEGMENT, jump=1).fit(logs)
    found: list[int] = search.predict(pen=PENALTY * math.log(len(logs)) * noise)
    return found[:-1]


def _change(before: Json, after: Json, size: float, last: bool) -> Change:
    names = ("board", "model", "runtime", "threads")
    where = {name: after[name] for name in names}
    return Change(
        **where,
        before=before["run"],
        after=after["run"],
        build=after["runtime_version"],
        size=size,
        last=last,
    )


def _with_rivals(change: Change, every: Iterable[Change]) -> Change:
    """Name the rivals whose times went the same way in the same run."""
    also = [
        other.runtime
        for other in every
        if change.runtime == OURS != other.runtime
        and (other.board, other.model, other.threads) == (change.board, change.model, change.threads)
        and other.after == change.after
        and (other.size > 0) == (change.size > 0)
    ]
    return Change(**{**vars(change), "also": tuple(sorted(also))})


def table(found: Iterable[Change]) -> list[Json]:
    return [
        {
            "board": change.board,
            "model": change.model,
            "runtime": change.runtime,
            "threads": change.threads,
            "since run": change.after,
            "version": change.build,
            "change": f"{change.size:+.1%}",
            "remark": _remark(change),
        }
        for change in found
    ]


def _remark(change: Change) -> str:
    if change.also:
        return f"so did {', '.join(change.also)}: the board, not pilite"
    return "regression" if change.is_regression else ""
