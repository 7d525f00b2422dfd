"""Every stage of an artifact with marks is timed, on this machine and over SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.compiler import pipeline
from pilite.errors import BoardError
from pilite.lab import stagetimes, tune
from tests.few_ops import made, residual
from tests.lab.conftest import Bed


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(made(residual, "int8", 0).model)
    return path


def test_every_stage_has_a_time(bed: Bed, model: Path, tmp_path: Path) -> None:
    built = pipeline.build(model, "m", bed.board.cpu, "ref", tmp_path, markers=True).path
    paths = [built, built]
    found = stagetimes.measure(bed.board, bed.connection, paths, bed.artifacts, rounds=2)
    expected = list(range(1, len(tune.stages(built)) + 1))
    assert [list(times) for times in found] == [expected, expected]
    assert all(nanoseconds > 0 for times in found for nanoseconds in times.values())
    assert bed.connection.run(["ls", f"{bed.board.root}/stagetimes"]).code != 0


def test_an_artifact_without_marks_is_refused(local_bed: Bed, model: Path, tmp_path: Path) -> None:
    built = pipeline.build(model, "m", local_bed.board.cpu, "ref", tmp_path).path
    with pytest.raises(BoardError, match="built without marks"):
        stagetimes.measure(local_bed.board, local_bed.connection, [built], local_bed.artifacts, rounds=1)
