"""How a race is measured: the numbers of each effort. measure.py tells how they are used.

The model is MLPerf Inference's SingleStream (official: 600 s and 1,024 queries at least), rivals in turns:

| effort   | processes of a row | least rounds | least runs | least s of timed runs | most s of a model |
|----------|--------------------|--------------|------------|-----------------------|-------------------|
| quick    | 1                  | 6            | 20         | 0.2                   | 30                |
| default  | 8                  | 64           | 100        | 2                     | 300               |
| official | 8                  | 48           | 1,024      | 600                   | 28,800            |

All runs of a turn are timed and count. Official, whose turns take 1 s, keeps the times of at most 50 of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pilite.errors import PiliteError
from pilite.lab.stats import LEAST_ROUNDS

NEVER_S = 1e9


@dataclass(frozen=True)
class Settings:
    """How long and how often. A turn is `settle` untimed runs of a runtime, then what fits into slot_ms."""

    effort: str
    sessions: int  # fresh processes of every row; the layout of memory is drawn anew with each
    least_rounds: int
    least_runs: int  # timed runs of every row
    least_s: float  # ... and their sum
    most_s: float  # of one model; then it ends after the round, and says so
    fewest_rounds: (
        int  # ... unless there were fewer, for up to measure.PATIENCE times most_s: they decide nothing
    )
    slot_ms: float
    most_runs: int  # in one turn
    kept_runs: int  # of one turn, whose times are kept, at equal distances
    settle: int  # none where a run is longer than a turn
    warm_ms: float  # warm-up: at least this long, until two blocks agree, at most warm_most_ms
    warm_most_ms: float
    limit_s: float  # for one answer of one runtime
    total_s: float  # then everything is killed
    seed: int = 0  # of the order of turns


QUICK = Settings(
    effort="quick",
    sessions=1,
    least_rounds=6,
    least_runs=20,
    least_s=0.2,
    most_s=30,
    fewest_rounds=LEAST_ROUNDS,
    slot_ms=60,
    most_runs=50,
    kept_runs=50,
    settle=1,
    warm_ms=150,
    warm_most_ms=2_000,
    limit_s=300,
    total_s=1_200,
)
DEFAULT = replace(
    QUICK,
    effort="default",
    sessions=8,
    least_rounds=64,
    least_runs=100,
    least_s=2,
    most_s=300,
    slot_ms=40,
    warm_ms=200,
    warm_most_ms=5_000,
    total_s=2_400,
)
OFFICIAL = replace(
    DEFAULT,
    effort="official",
    sessions=8,
    least_rounds=48,
    least_runs=1_024,
    least_s=600,
    most_s=28_800,
    slot_ms=1_000,
    most_runs=1_000_000,
    warm_ms=2_000,
    warm_most_ms=60_000,
    total_s=36_000,
)
FUNCTIONAL = replace(  # on virtual boards, where times say nothing: that everything runs
    QUICK,
    effort="functional",
    least_rounds=3,
    least_runs=3,
    least_s=0,
    most_s=60,
    fewest_rounds=1,
    slot_ms=0,
    most_runs=1,
    settle=0,
    warm_ms=0,
    warm_most_ms=0,
    limit_s=600,
    total_s=2_400,
)
EFFORTS = {settings.effort: settings for settings in (QUICK, DEFAULT, OFFICIAL)}


def chosen(effort: str, seed: int) -> Settings:
    """The settings of an effort. Raises PiliteError for an unknown one."""
    if effort not in EFFORTS:
        raise PiliteError(f"--effort {effort}: unknown; known: {', '.join(EFFORTS)}.")
    return replace(EFFORTS[effort], seed=seed)
