"""What a release has to compute before a board switches to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from models import Source
from pilite.compiler import pipeline
from pilite.errors import PiliteError
from pilite.lab import artifact, health, hostcpu, oracle, run
from pilite.lab.artifact import Artifact
from pilite.lab.deploy import HEALTH_SEED

ARTIFACTS = Path(__file__).parents[2] / "artifacts"


@pytest.fixture(scope="module")
def source() -> Source:
    return models.resolve("mobilenet_v1_0.1_32_uint8", ARTIFACTS)


@pytest.fixture(scope="module")
def built(source: Source) -> Artifact:
    made = pipeline.build(source.path, source.name, hostcpu.best(), "ref", ARTIFACTS)
    return artifact.read(made.path)


def test_a_right_release_computes_what_is_expected(built: Artifact, source: Source, tmp_path: Path) -> None:
    wanted = health.expected(built, source.path, tmp_path)
    assert wanted is not None
    got = run.run(built.path, [f"random:{HEALTH_SEED}"], 1, ARTIFACTS).outputs
    np.testing.assert_array_equal(got, wanted)


def test_an_artifact_of_another_file_is_refused(built: Artifact, source: Source, tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match="was built from another file"):
        health.expected(replace(built, source_sha256="0" * 64), source.path, tmp_path)


def test_without_the_tflite_of_the_promise_nothing_is_expected(
    built: Artifact, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "promised", lambda *about: oracle.Oracle("litert-ref", "2.3.0"))
    assert health.expected(built, source.path, tmp_path) is None
