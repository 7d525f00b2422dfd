"""The oracle: TFLite's reference kernels, computed once per model and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilite.errors import PiliteError
from pilite.lab import oracle

JUDGE = oracle.Oracle("a.module", "a-package", "1.0")
X = [np.arange(6, dtype=np.int8).reshape(2, 3)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An oracle that doubles, and the sums of what it was asked."""
    asked: list[int] = []

    def compute(judge: oracle.Oracle, model: Path, inputs: Sequence[Any]) -> list[Any]:
        asked.append(int(inputs[0].sum()))
        return [inputs[0] * 2, inputs[0][:1]]

    monkeypatch.setattr(oracle, "compute", compute)
    return asked


def test_the_same_question_is_computed_once(calls: list[int], tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"m")
    first = oracle.expected(JUDGE, model, X, tmp_path)
    second = oracle.expected(JUDGE, model, X, tmp_path)
    assert calls == [15]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("change", ["model", "inputs", "shape", "oracle"])
def test_another_question_is_computed_anew(calls: list[int], tmp_path: Path, change: str) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"m")
    oracle.expected(JUDGE, model, X, tmp_path)
    if change == "model":
        model.write_bytes(b"n")
    inputs = {"inputs": [X[0] + np.int8(1)], "shape": [X[0].reshape(3, 2)]}.get(change, X)
    judge = oracle.Oracle("a.module", "a-package", "2.0") if change == "oracle" else JUDGE
    oracle.expected(judge, model, inputs, tmp_path)
    assert len(calls) == 2


def test_tflite_runtime_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}
    monkeypatch.setattr(metadata, "version", lambda name: versions[name])
    assert oracle.find().name == "tflite-runtime 2.14.0 BUILTIN_REF"


def test_without_tflite_runtime_litert_judges_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "tflite-runtime":
            raise metadata.PackageNotFoundError
        return "2.3.0"

    monkeypatch.setattr(metadata, "version", version)
    assert oracle.find().name == "ai-edge-litert 2.3.0 BUILTIN_REF"


def test_without_any_tflite_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(PiliteError, match="neither tflite-runtime nor ai-edge-litert"):
        oracle.find()
