"""The page of a measurement: on a board whose times count, and on one whose times do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilite.lab import report

Json = dict[str, Any]


def row(runtime: str, threads: int, ms: float) -> Json:
    return {
        "model": "mobilenet",
        "numerics": "ref",
        "runtime": runtime,
        "runtime_version": "1.2",
        "threads": threads,
        "runs": 90,
        "min_ms": ms,
        "median_ms": ms * 1.1,
        "p90_ms": ms * 1.2,
        "p99_ms": ms * 1.3,
        "mad_ms": ms * 0.01,
        "cold_ms": 350.0,
        "rss_mb": 41.26,
        "model_mb": 3.948,
        "install_mb": 0.1049,
        "load_ms": 2.5,
        "first_ms": ms * 2,
        "oversubscribed": threads > 4,
        "cpus": None,
    }


@pytest.fixture
def document() -> Json:
    """Two runtimes on a Pi, one of them also with more threads than CPUs."""
    check = {"model": "mobilenet", "against": "TFLite", "threads": 1, "elements": 3003, "mismatches": 0}
    return {
        "time": "2026-01-02T03:04:05Z",
        "board": {"name": "pi4", "kind": "ssh", "model": "Raspberry Pi 4", "cpu": "cortex-a72", "cores": 4},
        "timing_valid": True,
        "rows": [row("pilite", 1, 30.0), row("tflite", 1, 40.0), row("pilite", 8, 12.0)],
        "ratios": [
            {
                "model": "mobilenet",
                "threads": 1,
                "rival": "tflite",
                "speedup": 1.3333,
                "ci95": [1.31, 1.349],
                "p_value": 0.00012,
                "verdict": "faster",
                "oversubscribed": False,
            }
        ],
        "checks": [check],
        "notes": ["litert: no wheel for Python 3.14"],
    }


def virtual(document: Json) -> Json:
    return {**document, "timing_valid": False, "ratios": []}


def test_page_of_a_real_board(document: Json, golden: Callable[[str], None]) -> None:
    golden(report.markdown(document))


def test_page_of_a_virtual_board(document: Json, golden: Callable[[str], None]) -> None:
    golden(report.markdown(virtual(document)))


def several(speedups: tuple[float | None, ...]) -> Json:
    """Ratios of as many models against one rival."""
    return {
        "ratios": [
            {"model": f"m{n}", "threads": 2, "rival": "litert", "speedup": times, "oversubscribed": False}
            | {"ci95": [(times or 1) - 0.1, (times or 1) + 0.1]}
            for n, times in enumerate(speedups)
        ]
    }


def test_models_are_summed_up_by_their_geometric_mean_and_the_worst_of_them() -> None:
    assert report.mean_rows(several((4.0, 1.0, 2.0))) == [
        {
            "models": 3,
            "threads": "2",
            "against": "litert",
            "times faster": "2.00",
            "decided": 3,
            "least of them, 95 % interval": "0.90 to 1.10 (m1)",
        }
    ]


def test_one_undecided_model_makes_the_mean_undecided() -> None:
    (row,) = report.mean_rows(several((4.0, None)))

    assert (row["times faster"], row["decided"], row["models"]) == ("undecided", 1, 2)


def test_one_model_has_no_mean(document: Json) -> None:
    assert report.mean_rows(document) == []


SAMPLES = {"mobilenet": {"ms": {"pilite/1": [[30, 31]], "tflite/1": [[40, 41]], "pilite/8": [[12, 13]]}}}


def test_a_plot_is_the_same_for_the_same_samples(document: Json, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        report.plot(document, SAMPLES, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_runtime_of_any_name_can_be_plotted(document: Json, tmp_path: Path) -> None:
    row = {**document["rows"][0], "runtime": "another"}
    samples = {"mobilenet": {"ms": {"another/1": [[1, 2]]}}}
    report.plot({**document, "rows": [row]}, samples, tmp_path / "a.svg")
    assert report.OTHER in (tmp_path / "a.svg").read_text()


def test_times_that_do_not_count_are_not_plotted(document: Json, tmp_path: Path) -> None:
    report.write(virtual(document), SAMPLES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
