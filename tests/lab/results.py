"""Results of bench as its schema wants them, made by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from pilite.lab import bench, protocol

Json = dict[str, Any]


def minimal() -> Json:
    """The smallest document that the schema accepts."""
    board = dict.fromkeys(["cores", "os", "kernel", "governor", "throttled"])
    return {
        "schema": bench.SCHEMA,
        "board": {**board, "name": "b", "kind": "ssh", "cpu": "c", "emulated": False, "model": None},
        "timing_valid": True,
        "settings": dataclasses.asdict(protocol.QUICK),
        "seeds": {"order": 1, "inputs": [1, 2, 3], "bootstrap": 0},
        "versions": {"protocol": 2, "python": "3.11.2", "numpy": "1", "scipy": "1"},
        "marks": [],
        "samples": "samples.json",
        "rows": [row()],
        "ratios": [ratio()],
        "checks": [],
        "failures": [],
        "notes": [],
    }


def row() -> Json:
    times = ("min_ms", "median_ms", "p90_ms", "p99_ms", "mad_ms", "load_ms", "first_ms", "cold_ms")
    numbers = ("runs", "threads", "rounds", "sessions", "rss_mb", "model_mb", "install_mb", *times)
    texts = {"model": "m", "numerics": "ref", "runtime": "pilite", "runtime_version": "1"}
    rest: Json = {"oversubscribed": False, "cpus": None, "drift": None, "modes_ms": [], "settled": True}
    return {**dict.fromkeys(numbers, 1), **texts, **rest}


def ratio(**changes: Any) -> Json:
    about = {"model": "m", "threads": 1, "rival": "tflite", "oversubscribed": False}
    return {**about, "speedup": 2, "ci95": [1, 3], "p_value": 0.01, "verdict": "faster", **changes}


def measured(
    day: int, ms: float = 10.0, rival_ms: float = 20.0, build: str = "build 1", **board: Any
) -> Json:
    """A result of one day, with pilite and one rival at one thread."""
    found = minimal()
    found["time"] = f"2026-03-{day:02d}T12:00:00Z"
    found["board"] |= {"name": "pi4", "model": "Raspberry Pi 4", "cpu": "cortex-a72", **board}
    found["rows"] = [
        row() | {"runtime_version": build, "median_ms": ms},
        row() | {"runtime": "tflite", "runtime_version": "2.14.0", "median_ms": rival_ms},
    ]
    found["ratios"] = [ratio(speedup=rival_ms / ms, ci95=[rival_ms / ms - 0.1, rival_ms / ms + 0.1])]
    return found
