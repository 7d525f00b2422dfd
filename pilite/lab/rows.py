"""What a race gave, as rows of a result: one per (runtime, threads), and pilite against each rival."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from pilite.lab import stats
from pilite.lab.rivals import OURS
from pilite.lab.trial import Trial

Json = dict[str, Any]


def rows_of(model: str, result: Trial) -> list[Json]:
    """One row per (runtime, threads) that ran to the end."""
    return [_row(model, result, row) for row in result.measured["rows"]]


def _row(model: str, result: Trial, row: Json) -> Json:
    sessions = row["sessions"]
    return {
        "model": model,
        "numerics": result.built.numerics,
        "runtime": row["runtime"],
        "runtime_version": sessions[0]["version"] or f"build {result.built.build_id[:12]}",
        "threads": row["threads"],
        **stats.summary(row["samples"]),
        "runs": row["timed_runs"],  # more than there are samples where a turn had very many
        "drift": stats.drift(row["samples"]),
        "modes_ms": stats.modes(row["samples"]),
        "rounds": len(row["samples"]),
        "sessions": len(sessions),
        "settled": all(one["settled"] for one in sessions),
        "rss_mb": max(one["rss_mb"] for one in sessions),
        "load_ms": _middle(sessions, "load_ms"),
        "first_ms": _middle(sessions, "first_ms"),
        "cold_ms": _middle(sessions, "cold_ms"),
        "model_mb": sessions[0]["model_mb"],
        "install_mb": sessions[0]["install_mb"],
        "oversubscribed": oversubscribed(result, row["threads"]),
        "cpus": row["cpus"],
    }


def _middle(sessions: Sequence[Json], name: str) -> float:
    return float(statistics.median(one[name] for one in sessions))


def oversubscribed(result: Trial, threads: int) -> bool:
    return threads > len(result.measured["allowed_cpus"])


def ratios_of(model: str, result: Trial) -> list[Json]:
    """pilite against each rival with the same number of threads."""
    rows = {(row["runtime"], row["threads"]): row for row in result.measured["rows"]}
    return [
        {
            "model": model,
            "threads": threads,
            "rival": runtime,
            **ratio(rows[OURS, threads], theirs),
            "oversubscribed": oversubscribed(result, threads),
        }
        for (runtime, threads), theirs in rows.items()
        if runtime != OURS and (OURS, threads) in rows
    ]


def ratio(ours: Json, theirs: Json) -> Json:
    """A comparison as shown: no number where the noise decides nothing, but always the interval."""
    sessions = [one["rounds"] for one in ours["sessions"]]
    found = stats.compare(ours["samples"], theirs["samples"], sessions)
    return {
        "speedup": None if found.verdict == "undecided" else found.ratio,
        "ci95": [found.low, found.high],
        "p_value": found.p_value,
        "verdict": found.verdict,
    }
