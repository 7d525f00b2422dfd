"""Profiles: marks read back, stages added up by operator, and a real artifact on this machine."""

from __future__ import annotations

import xml.etree.ElementTree as Xml
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from pilite.compiler import pipeline
from pilite.errors import BoardError
from pilite.lab.estimate.count import Counted
from pilite.lab.estimate.estimate import Layer, Row
from pilite.lab.profile import flame, profile
from pilite.lab.profile.operators import Work
from pilite.lab.profile.profile import Stage
from tests.lab.conftest import Bed
from tests.lab.stub import ARTIFACTS

Json = dict[str, Any]
PARTS = [
    Stage(-1, "", "move"),
    Stage(0, "CONV_2D", "fill"),
    Stage(0, "CONV_2D", "gemm"),
    Stage(1, "ADD", "add"),
]
TODO = [Work(0, "CONV_2D", 6_000_000, 900), Work(1, "ADD", 0, 300)]


def written(*runs: list[int], order: tuple[int, ...] = (1, 2, 3, 4, 0)) -> bytes:
    """What marks.c writes: 1,000 ns for 2,500 cycles, then marks at these times."""
    marks = [(at, stage) for run in runs for at, stage in zip(run, order, strict=True)]
    return np.asarray([(1000, 2500), *marks], np.uint64).tobytes()


def test_marks_become_times_of_stages_without_the_warm_up() -> None:
    marks = profile.read_marks(written([0, 9, 9, 9, 9], [100, 110, 130, 160, 200], [0, 1, 2, 3, 4]), 4)
    np.testing.assert_allclose(marks.ms, [[10e-6, 20e-6, 30e-6, 40e-6], [1e-6] * 4])
    assert marks.ghz == 2.5


@pytest.mark.parametrize(
    "data", [written([1, 2, 3, 4, 5])[:-16], written([1, 2, 3, 4, 5], order=(1, 3, 2, 4, 0))]
)
def test_marks_out_of_order_are_refused(data: bytes) -> None:
    with pytest.raises(BoardError, match="did not come in their order"):
        profile.read_marks(data, 4)


def test_stages_of_an_operator_are_added_up() -> None:
    rows = profile.by_operator(PARTS, [0.1, 0.2, 0.4, 0.3], TODO, 1e-6, roof=20.0)
    assert [(row["index"], row["op"], row["kernels"]) for row in rows] == [
        (-1, profile.ENDS, ["move"]),
        (0, "CONV_2D", ["fill", "gemm"]),
        (1, "ADD", ["add"]),
    ]
    assert [row["share"] for row in rows] == pytest.approx([0.1, 0.6, 0.3])
    assert rows[1]["rate"] == pytest.approx(10.0)  # 6 M in 0.6 ms are 10 G a second
    assert rows[1]["of_roof"] == pytest.approx(0.5)
    assert (rows[2]["macs"], rows[2]["bytes"], rows[2]["rate"]) == (0, 300, None)


def made() -> Json:
    about = {
        "model": "m<1>",
        "numerics": "ref",
        "build": "b",
        "board": "pi4",
        "cpu": "cortex-a72",
        "threads": 1,
    }
    about |= {"timing_valid": True, "unit": "ms", "rate_unit": "GMAC/s", "runs": 10, "ghz": 1.5, "roof": 12.0}
    return profile.document(about, profile.by_operator(PARTS, [0.1, 0.2, 0.4, 0.3], TODO, 1e-6, 12.0))


def test_a_table_and_a_line_show_it() -> None:
    line = profile.table(made())[1]
    assert (line["operator"], line["ms"], line["M MACs"], line["% of roof"]) == (
        "CONV_2D",
        pytest.approx(0.6),
        "6.00",
        "83",
    )
    assert profile.summary(made()) == "m<1>, 1 thread(s) at 1.50 GHz: 1.000 ms, 6.0 GMAC/s, roof 12"
    assert profile.summary({**made(), "timing_valid": False}).endswith("a virtual board: no speed")


def test_a_flame_is_well_formed_and_as_wide_as_its_parts() -> None:
    tree = Xml.fromstring(flame.svg(made()))
    space = "{http://www.w3.org/2000/svg}"
    titles = [one.text for one in tree.iter(f"{space}title")]
    assert "m<1>: 1.000 ms" in titles
    assert "0 CONV_2D: 0.6000 ms, 60.0 %" in titles
    widths = [float(box.attrib["width"]) for box in tree.iter(f"{space}rect")]
    assert widths[0] == flame.WIDTH - 0.5
    assert sum(widths[1::2]) == pytest.approx(flame.WIDTH, abs=3)


def test_folded_stacks_hold_the_whole() -> None:
    lines = flame.folded(made()).splitlines()
    assert lines[0] == "m<1>;-1 (ends);move 100000"
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == 1_000_000


def test_an_estimate_is_shown_the_same_way(tmp_path: Path) -> None:
    source = models.resolve("mobilenet_v1_0.1_32_uint8", ARTIFACTS)
    cost = Counted(instructions=1, cycles={"a72-llvm": 27_648.0, "other": 1.0})
    layers = (Layer(0, "CONV_2D", ("gemm", "gemm"), cost),)
    row = Row("m", "uint8", "cortex-a72", "ref", "pilite", "b", 1, cost, 1.0, layers=layers)
    (found,) = profile.of_estimate(row, source.path)["layers"]
    assert found["kernels"] == ["gemm"]
    assert found["rate"] == pytest.approx(16 * 16 * 8 * 27 / 27_648)
    assert found["of_roof"] == pytest.approx(found["rate"] / 8)


@pytest.mark.slow
def test_every_operator_of_a_real_artifact_gets_its_time(local_bed: Bed) -> None:
    source = models.resolve("mobilenet_v1_0.1_32_uint8", local_bed.artifacts)
    cpu = local_bed.board.cpu
    built = pipeline.build(source.path, source.name, cpu, "ref", local_bed.artifacts, markers=True).path
    found = profile.profile(local_bed.board, local_bed.connection, source.path, built, 1, local_bed.artifacts)
    ops = {layer["index"]: layer["op"] for layer in found["layers"]}
    assert ops[0] == "CONV_2D"
    assert ops[1] == "DEPTHWISE_CONV_2D"
    assert all(layer["cost"] > 0 for layer in found["layers"])
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1)
    assert found["runs"] >= profile.LEAST_RUNS
    assert 0.2 < found["ghz"] < 8


@pytest.mark.slow
def test_an_artifact_without_markers_is_refused_with_the_way_out(tmp_path: Path) -> None:
    source = models.resolve("mobilenet_v1_0.1_32_uint8", tmp_path)
    built = pipeline.build(source.path, source.name, "cortex-a72", "ref", tmp_path).path
    with pytest.raises(BoardError, match=r"built without markers; `profile` builds one with them"):
        profile.stages(built)
