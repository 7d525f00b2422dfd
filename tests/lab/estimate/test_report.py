"""Tables and plot of an estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pilite.lab.estimate import report
from pilite.lab.estimate.estimate import Layer, Row
from tests.lab.estimate.rows import counted, row

ROWS = [row(), row("tflite", 300.0), row("litert", 150.0), row("litert-builtin", 160.0)]
OTHER = [row(model="b", cycles=50.0), row("tflite", 300.0, model="b")]


def test_ours_is_compared_with_the_fastest_rival() -> None:
    assert report.speedups(ROWS)[0] == {
        "model": "net",
        "cpu": "cortex-a53",
        "fastest rival": "litert",
        "times fewer cycles": "1.50",
    }


def test_the_mean_of_a_core_is_geometric() -> None:
    last = report.speedups([*ROWS, *OTHER])[-1]
    assert (last["model"], last["times fewer cycles"]) == ("geometric mean of 2 int8", "3.00")


def test_a_slower_row_shows_as_less_than_one() -> None:
    assert report.speedups([row(cycles=300.0), ROWS[2]])[0]["times fewer cycles"] == "0.50"


def test_without_rivals_nothing_is_compared() -> None:
    assert report.speedups([row()]) == []


def test_rivals_of_another_core_do_not_count() -> None:
    assert report.speedups([row(), row("litert", 10.0, cpu="cortex-a72")]) == []


def test_both_models_of_the_a53_are_shown() -> None:
    assert report.table([row(cycles=2e6)])[0]["other model"] == "2.00 a53-llvm"


def test_threads_are_shown_where_there_are_several() -> None:
    assert report.table([row()])[0]["runtime"] == "pilite"
    assert report.table([replace(row(), threads=4)])[0]["runtime"] == "pilite, 4 threads"


def test_layers_show_their_share() -> None:
    layer = Layer(3, "CONV_2D", ("k1", "k2", "k1"), counted(10, 25.0))
    line = report.layer_table(row(layers=(layer,)))[0]
    assert (line["%"], line["kernels"], line["op"]) == ("25.0", "k1, k2", "CONV_2D")


@pytest.mark.parametrize("rows", [ROWS, [*ROWS, *OTHER]])
def test_the_plot_has_the_same_bytes_every_time(rows: list[Row], tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        report.plot(rows, tmp_path / "plots" / name)
    first, second = ((tmp_path / "plots" / name).read_bytes() for name in ("a.svg", "b.svg"))
    assert first == second
    assert b"a model, not measured" in first or first.startswith(b"<?xml")
