"""The oracle: every TFLite by name, on the CPU where its rounding is that of the artifact's."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import models
from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import hostcpu, oracle
from pilite.lab.oracle import Oracle
from tests.native import ARTIFACTS

JUDGE = Oracle("tflite-ref", "1.0")
X = [np.arange(6, dtype=np.int8).reshape(2, 3)]
MODEL = "mobilenet_v1_0.1_32_int8"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An oracle that doubles, and the sums of what it was asked."""
    asked: list[int] = []

    def compute(judge: Oracle, model: Path, sets: Sequence[Any], artifacts: Path) -> list[list[Any]]:
        asked.append(int(sets[0][0].sum()))
        return [[arrays[0] * 2, arrays[0][:1]] for arrays in sets]

    monkeypatch.setattr(oracle, "compute", compute)
    return asked


def without(monkeypatch: pytest.MonkeyPatch, *missing: str, machine: str = "x86_64") -> None:
    """An environment in which some packages are not installed, on some machine."""

    def version(name: str) -> str:
        if name in missing:
            raise metadata.PackageNotFoundError
        return {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}[name]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr("platform.machine", lambda: machine)


# What is kept.


def test_the_same_question_is_computed_once(calls: list[int], tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"m")
    first = oracle.expected(JUDGE, model, X, tmp_path)
    second = oracle.expected(JUDGE, model, X, tmp_path)
    assert calls == [15]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("change", ["model", "inputs", "shape", "version", "cpu"])
def test_another_question_is_computed_anew(calls: list[int], tmp_path: Path, change: str) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"m")
    oracle.expected(JUDGE, model, X, tmp_path)
    if change == "model":
        model.write_bytes(b"n")
    inputs = {"inputs": [X[0] + np.int8(1)], "shape": [X[0].reshape(3, 2)]}.get(change, X)
    judges = {"version": Oracle("tflite-ref", "2.0"), "cpu": Oracle("tflite-ref", "1.0", "cortex-a72")}
    oracle.expected(judges.get(change, JUDGE), model, inputs, tmp_path)
    assert len(calls) == 2


# Which one.


@pytest.mark.parametrize(
    ("numerics", "variant", "name"),
    [
        ("ref", "q31", "tflite-runtime 2.14.0 BUILTIN_REF"),
        ("ref", "f64", "ai-edge-litert 2.3.0 BUILTIN_REF"),
        ("xnnpack", "q31", "ai-edge-litert 2.3.0 default (XNNPACK) on cortex-a72 under QEMU"),
    ],
)
def test_the_promise_decides_whose_bytes_are_right(
    numerics: str, variant: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    judge = oracle.promised(numerics, variant, "cortex-a72")
    assert judge.name == name
    assert oracle.is_promised(judge, numerics, variant, "cortex-a72")
    assert not oracle.stands_in(judge, numerics, variant)


@pytest.mark.parametrize(
    ("cpu", "core", "others"),
    [
        ("x86-64-v3", "cortex-a72", {"cortex-a76"}),
        ("cortex-a72", "cortex-a72", {"cortex-a76"}),
        ("cortex-a76", "cortex-a76", {"cortex-a72"}),
        ("cortex-a53", "cortex-a53", set()),
    ],
)
def test_xnnpack_is_promised_as_on_its_own_core_or_on_a_pi_4(
    cpu: str, core: str, others: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    assert oracle.promised("xnnpack", "q31", cpu).cpu == core
    alike = {
        name
        for name in hostcpu.known()
        if oracle.is_promised(Oracle("litert", "2.3.0", name), "xnnpack", "q31", cpu)
    }
    assert alike == {core, *others}
    assert not oracle.is_promised(Oracle("litert-builtin", "2.3.0", core), "xnnpack", "q31", cpu)


def test_an_older_runtime_is_a_guest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    older = oracle.choose("litert-1.4", "cortex-a72")
    assert older.name == "ai-edge-litert 1.4.0 default (XNNPACK) on cortex-a72 under QEMU"
    with pytest.raises(PiliteError, match=r"--against litert-1\.4@cortex-a72"):
        oracle.choose("litert-1.4", "x86-64-v3")


def test_without_tflite_runtime_litert_stands_in_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tflite-runtime")
    judge = oracle.promised("ref", "q31", "cortex-a72")
    assert judge.name == "ai-edge-litert 2.3.0 BUILTIN_REF"
    assert oracle.stands_in(judge, "ref", "q31")
    assert not oracle.is_promised(judge, "ref", "q31", "cortex-a72")


def test_without_any_tflite_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tflite-runtime", "ai-edge-litert")
    with pytest.raises(PiliteError, match="neither tflite-runtime nor ai-edge-litert"):
        oracle.promised("ref", "q31", "cortex-a72")


@pytest.mark.parametrize(
    ("text", "machine", "cpu", "emulated"),
    [
        ("litert-ref", "x86_64", None, False),
        ("litert", "x86_64", "cortex-a53", True),
        ("litert@x86-64-v3", "x86_64", "x86-64-v3", False),
        ("tflite-ref@cortex-a76", "x86_64", "cortex-a76", True),
        ("tflite", "aarch64", "cortex-a53", False),
    ],
)
def test_only_kernels_that_round_by_the_cpu_run_on_the_artifacts(
    text: str, machine: str, cpu: str | None, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, machine=machine)
    judge = oracle.judge(text, "ref", "q31", "cortex-a53")
    assert (judge.key, judge.cpu, judge.emulated) == (text.partition("@")[0], cpu, emulated)


def test_an_emulated_runtime_has_the_version_of_the_lock_whatever_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "tflite-runtime")
    assert oracle.choose("tflite", "cortex-a53").version == "2.14.0"
    with pytest.raises(PiliteError, match="tflite-runtime is not installed here"):
        oracle.choose("tflite", "x86-64-v3")


@pytest.mark.parametrize("text", ["torch", "litert@cortex-m4", "litert@", "@cortex-a53"])
def test_an_unknown_runtime_or_cpu_lists_the_known_ones(text: str) -> None:
    with pytest.raises(PiliteError, match=r"litert-builtin; CPUs: .*cortex-a72") as caught:
        oracle.choose(text, "cortex-a53")
    assert f"--against {text}:" in str(caught.value)


def test_only_raspberry_pi_cores_are_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, machine="aarch64")
    with pytest.raises(BoardError, match="x86-64-v3 cannot"):
        oracle.choose("litert", "x86-64-v3")


# Real runtimes.


def answers(text: str, cpu: str) -> list[list[npt.NDArray[Any]]]:
    """Two sets of inputs through a small model."""
    model = models.resolve(MODEL, ARTIFACTS).path
    numbers = np.random.default_rng(7)
    sets = [[numbers.integers(0, 256, (1, 32, 32, 3), np.uint8)] for _ in range(2)]
    return oracle.compute(oracle.choose(text, cpu), model, sets, ARTIFACTS)


@pytest.mark.qemu
@pytest.mark.parametrize("key", ["litert-ref", "litert"])
def test_an_emulated_pi_computes_what_the_study_of_rounding_says(key: str) -> None:
    """Reference kernels and XNNPACK's int8 kernels give the same bytes on x86 and aarch64."""
    np.testing.assert_array_equal(
        answers(f"{key}@cortex-a76", "cortex-a76"), answers(f"{key}@{hostcpu.best()}", "cortex-a76")
    )


@pytest.mark.parametrize("cpu", [pytest.param("cortex-a72", marks=pytest.mark.qemu), hostcpu.best()])
def test_a_model_that_the_runtime_refuses_is_one_line(cpu: str, tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"nothing")
    with pytest.raises(CheckFailed, match=r"ai-edge-litert .* did not run the model: .*") as caught:
        oracle.compute(oracle.choose(f"litert@{cpu}", cpu), model, [X], ARTIFACTS)
    assert "\n" not in str(caught.value)
