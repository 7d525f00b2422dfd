"""run: one artifact, one set of inputs, outputs as a table and as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import models
from pilite.compiler import pipeline
from pilite.errors import PiliteError
from pilite.lab import hostcpu, run

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
SMALL = "mobilenet_v1_0.1_32_uint8"


@pytest.fixture(scope="module")
def artifact() -> Path:
    """A small model for this machine."""
    source = models.resolve(SMALL, ARTIFACTS)
    return pipeline.build(source.path, source.name, hostcpu.best(), "ref", ARTIFACTS).path


def test_the_same_seed_gives_the_same_outputs_whatever_the_threads(artifact: Path) -> None:
    one, four = (run.run(artifact, ["random:7"], threads, ARTIFACTS).outputs for threads in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_an_output_is_shown_with_its_largest_elements_first(artifact: Path) -> None:
    ran = run.run(artifact, ["random:7"], 1, ARTIFACTS)
    (row,), (scores,) = ran.rows(), ran.outputs
    assert (row["dtype"], row["shape"], row["largest"]) == ("uint8", "1x1001", scores.max())
    first = [int(place) for place in str(row["at"]).split(", ")]
    assert len(first) == run.LARGEST
    assert scores.flat[first[0]] == scores.max()
    assert sorted(scores.flat[first], reverse=True) == list(scores.flat[first])


def test_outputs_are_saved_as_they_are(artifact: Path, tmp_path: Path) -> None:
    ran = run.run(artifact, ["random:7"], 1, ARTIFACTS)
    run.save(ran, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as saved:
        assert saved.files == ["0"]
        np.testing.assert_array_equal(saved["0"], ran.outputs[0])


def test_an_output_file_that_cannot_be_written_is_named(artifact: Path, tmp_path: Path) -> None:
    ran = run.run(artifact, ["random:7"], 1, ARTIFACTS)
    with pytest.raises(PiliteError, match=r"no/out\.npz: cannot be written"):
        run.save(ran, tmp_path / "no" / "out.npz")


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"model\.so"):
        run.run(tmp_path / "model.so", ["random:7"], 1, ARTIFACTS)
