"""Runs to make pages of: several rivals, wins and losses, marks, a failure, many samples; all from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from pilite.lab import rows, stats
from pilite.lab.page.view import Run
from tests.lab.results import minimal, row

Json = dict[str, Any]

MODEL = "mobilenet <b>&amp;"  # a name that must be escaped
MS = {"pilite": 30.0, "tflite": 45.0, "litert": 27.0, "litert-builtin": 30.0}


def run(rounds: int = 12, runs: int = 5, timing_valid: bool = True) -> Run:
    """One model, four runtimes, 1 and 4 threads: 8 * rounds * runs samples."""
    rng = np.random.default_rng(11)
    samples = {
        f"{name}/{threads}": (ms / threads**0.8 * rng.normal(1, 0.01, (rounds, runs))).tolist()
        for name, ms in MS.items()
        for threads in (1, 4)
    }
    document = minimal() | {
        "time": "2026-03-01T12:00:00Z",
        "timing_valid": timing_valid,
        "rows": [_row(name, samples[f"{name}/{t}"], t) for t in (1, 4) for name in MS],
        "ratios": [_ratio(name, samples, t) for t in (1, 4) for name in MS if name != "pilite"],
        "failures": [
            {"model": MODEL, "runtime": "tvm-stock", "threads": 1, "reason": "ImportError: no <tvm>"}
        ],
        "checks": [
            {
                "model": MODEL,
                "against": "BUILTIN_REF",
                "threads": t,
                "seeds": [1, 2, 3],
                "elements": 9,
                "mismatches": 0,
            }
            for t in (1, 4)
        ],
        "marks": [_mark("busy", "pi4 was busy"), _mark("drift", "8% slower", "tflite", 4)],
    }
    if not timing_valid:
        document |= {
            "ratios": [],
            "marks": [{**_mark("virtual board", "pi4 is virtual"), "severity": "refused"}],
        }
    document["board"] |= {"name": "pi4", "kind": "ssh", "model": "Raspberry Pi 4", "cpu": "cortex-a72"}
    return Run("20260301T120000Z-pi4", document, {MODEL: {"ms": samples}}, [profile()], None, [compared()])


def compared() -> Json:
    """What `compare --layers` says: three operators, two inputs; the last one differs most."""
    key = {"model": MODEL, "cpu": "cortex-a72", "numerics": "ref"}
    digest = {"build_id": "0" * 64, "source_sha256": "1" * 64}
    rows = [
        {**key, "threads": 1, "input": f"random:{seed}", "operator": operator, "op": op}
        | {"elements": 200, "mismatches": mismatches, "max_difference": largest}
        for seed in (0, 1)
        for operator, op, mismatches, largest in (
            (0, "CONV_2D", 0, 0),
            (1, "ADD", 1, 1),
            (2, "SOFTMAX", 50, 2 + seed),
            (None, None, 50, 2 + seed),
        )
    ]
    return {
        "schema": "pilite.compare/1",
        "elements": sum(row["elements"] for row in rows),
        "mismatches": sum(row["mismatches"] for row in rows),
        "builds": [{**key, **digest, "layers": True, "against": "BUILTIN_REF"}],
        "rows": rows,
        "own": [],
    }


def _row(name: str, samples: stats.Rounds, threads: int) -> Json:
    about = {"model": MODEL, "runtime": name, "threads": threads, "rounds": len(samples)}
    return row() | about | stats.summary(samples)


def _ratio(name: str, samples: Json, threads: int) -> Json:
    ours, theirs = (
        {"samples": samples[f"{one}/{threads}"], "sessions": [{"rounds": 12}]} for one in ("pilite", name)
    )
    about = {"model": MODEL, "threads": threads, "rival": name, "oversubscribed": False}
    return {**about, **rows.ratio(ours, theirs)}


def _mark(rule: str, what: str, runtime: str | None = None, threads: int | None = None) -> Json:
    where = {"model": MODEL if runtime else None, "runtime": runtime, "threads": threads}
    return {"rule": rule, "severity": "marked", "what": what, **where}


def profile() -> Json:
    layers = [
        {"index": i, "op": op, "cost": ms, "share": ms / 30, "macs": macs, "rate": rate, "of_roof": of_roof}
        for i, (op, ms, macs, rate, of_roof) in enumerate(
            [("CONV_2D", 18.0, 200_000_000, 11.1, 0.9), ("SOFTMAX", 12.0, 0, None, None)]
        )
    ]
    return {
        "model": MODEL,
        "board": "pi4",
        "threads": 1,
        "unit": "ms",
        "rate_unit": "GMAC/s",
        "layers": layers,
    }
