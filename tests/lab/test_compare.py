"""compare: counts every byte that differs, names the first operator that does, and fails for it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import models
from pilite import comparetasks
from pilite.compiler import pipeline, tflite
from pilite.compiler.fixedpoint import Requant
from pilite.compiler.graph import Conv2D
from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import artifact, compare, execute, hostcpu, oracle
from pilite.lab import differences as counting
from pilite.lab.artifact import Artifact, TensorInfo
from pilite.lab.oracle import Oracle
from tests.native import ARTIFACTS, loader

MODEL = "mobilenet_v2_0.1_32_uint8"
SMALL_IMAGE = TensorInfo("x", (1, 4, 4, 3), "uint8")

Array = npt.NDArray[Any]


# Differences.


def test_equal_arrays_have_no_mismatch() -> None:
    assert counting.difference(np.arange(6, dtype=np.int8), np.arange(6, dtype=np.int8)) == (6, 0, 0)


@pytest.mark.parametrize(
    ("ours", "right", "largest"),
    [
        (np.array([-128, 5], np.int8), np.array([127, 5], np.int8), 255),
        (np.array([0, 5], np.uint8), np.array([255, 5], np.uint8), 255),
        (np.array([-(2**31), 5], np.int32), np.array([2**31 - 1, 5], np.int32), 2**32 - 1),
        (np.array([1.5, 5], np.float32), np.array([1.0, 5], np.float32), 0.5),
        (np.array([0.0, 5], np.float32), np.array([-0.0, 5], np.float32), 0),
        (np.array([np.nan, 5], np.float32), np.array([1.0, 5], np.float32), counting.FLOAT_MAX),
    ],
    ids=["int8", "uint8", "int32", "float32", "signed zero", "nan"],
)
def test_one_element_differs_by_so_much(ours: Array, right: Array, largest: float) -> None:
    assert counting.difference(ours, right) == (2, 1, largest)


@pytest.mark.parametrize("ours", [np.zeros((2, 1), np.int8), np.zeros(2, np.uint8)], ids=["shape", "type"])
def test_an_array_of_another_kind_is_a_failure_of_its_own(ours: Array) -> None:
    with pytest.raises(CheckFailed, match=r"TFLite's is int8 \[2\]"):
        counting.difference(ours, np.zeros(2, np.int8))


# Inputs.


def test_there_are_three_random_sets_that_differ_and_stay_the_same() -> None:
    first, again = compare.cases([SMALL_IMAGE]), compare.cases([SMALL_IMAGE])
    assert [case.name for case in first] == ["random:0", "random:1", "random:2"]
    assert len({case.arrays[0].tobytes() for case in first}) == 3
    assert [case.arrays[0].tobytes() for case in first] == [case.arrays[0].tobytes() for case in again]


def test_random_sets_use_the_whole_range_of_the_type() -> None:
    values = compare.cases([TensorInfo("x", (1, 100, 100), "int8")])[0].arrays[0]
    assert set(values.flat) == set(range(-128, 128))


def pictures(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (9, 7), (255, 0, 0)).save(folder / "red.png")
    (folder / "labels.txt").write_text("red")
    return folder


def test_pictures_of_the_folder_are_used_where_the_model_takes_a_picture(tmp_path: Path) -> None:
    sets = compare.cases([SMALL_IMAGE], pictures(tmp_path))
    assert [case.name for case in sets] == ["random:0", "random:1", "random:2", "red.png"]
    assert sets[-1].arrays[0].tolist() == [[[[255, 0, 0]] * 4] * 4]


@pytest.mark.parametrize("shape", [(1, 10), (1, 4, 4, 1), (2, 4, 4, 3)])
def test_a_model_that_takes_no_picture_gets_none(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert len(compare.cases([TensorInfo("x", shape, "int8")], pictures(tmp_path))) == 3


def test_a_folder_that_is_not_there_has_no_pictures(tmp_path: Path) -> None:
    assert len(compare.cases([SMALL_IMAGE], tmp_path / "none")) == 3


def test_a_given_input_is_the_only_one() -> None:
    (case,) = compare.cases([SMALL_IMAGE], None, ["random:7"])
    assert case.name == "random:7"
    with pytest.raises(PiliteError, match=r"nothing\.npy"):
        compare.cases([SMALL_IMAGE], None, ["nothing.npy"])


# What is said about a difference.


def row(operator: int | None, op: str | None, mismatches: int, threads: int = 1) -> compare.Row:
    return compare.Row("m", "cortex-a72", "ref", threads, "random:0", operator, op, 10, mismatches, 2)


PROMISED = Oracle("tflite-ref", "2.14.0")


def comparison(*rows: compare.Row, against: Oracle = PROMISED) -> compare.Comparison:
    """Rows of an artifact that does not exist."""
    built = Artifact(Path("m.so"), "m", "cortex-a72", "ref", "a" * 64, "b" * 64, "aarch64", (), ())
    return compare.Comparison(against, (built,), rows)


def said(*rows: compare.Row, **about: Oracle) -> str:
    with pytest.raises(CheckFailed) as caught:
        compare.verify([comparison(row(0, "CONV_2D", 0)), comparison(*rows, **about)])
    return str(caught.value)


def test_the_first_operator_that_differs_is_named_whatever_the_threads() -> None:
    text = said(row(3, "ADD", 9), row(7, "MEAN", 1), row(None, None, 1), row(2, "PAD", 4, threads=4))
    assert "the first operator that differs is #2 PAD: 4 of 10 elements, by at most 2" in text
    assert "input random:0 and 4 thread(s)" in text
    assert text.startswith("m for cortex-a72, ref: not the bytes of tflite-runtime 2.14.0 BUILTIN_REF")
    assert "\n" not in text


def test_outputs_that_differ_alone_are_told_from_operators() -> None:
    assert "`--layers` finds the operator" in said(row(None, None, 1))
    assert "every operator agrees" in said(row(0, "ADD", 0), row(None, None, 1))


def test_another_oracle_that_stands_in_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "FULLY_CONNECTED" not in said(row(0, "ADD", 1))
    monkeypatch.setattr(oracle, "is_installed", lambda package: package != "tflite-runtime")
    assert "FULLY_CONNECTED may differ" in said(row(0, "ADD", 1), against=Oracle("litert-ref", "2.3.0"))


def test_a_difference_from_a_runtime_that_nothing_was_promised_about_is_no_failure() -> None:
    other = comparison(row(0, "ADD", 1), against=Oracle("litert", "2.3.0", "cortex-a72"))
    assert other.wrong
    compare.verify([other])


def test_the_tables_show_every_operator_once_and_the_sums(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(4, "ADD", 0), row(4, "ADD", 3, threads=4), row(None, None, 1), row(None, None, 1, threads=4)]
    compare.show([comparison(*rows)])
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert lines.count(["4", "ADD", "20", "3", "2"]) == 1
    assert ["m", "cortex-a72", "ref", "1", "operators", "1", "1,", "4", "20", "3", "2"] in lines
    assert ["m", "cortex-a72", "ref", "outputs", "1", "1,", "4", "20", "2", "2"] in lines


def test_the_document_fits_its_schema_and_a_wrong_one_does_not() -> None:
    document = compare.document([comparison(row(0, "ADD", 0), row(None, None, 3))])
    assert (document["elements"], document["mismatches"]) == (20, 3)
    assert json.loads(json.dumps(document)) == document
    with pytest.raises(jsonschema.ValidationError):
        compare.document([comparison(replace(row(0, "ADD", 0), threads=0))])


# Real artifacts.


def compiled(cpu: str, artifacts: Path, layers: bool = True) -> Path:
    source = models.resolve(MODEL, ARTIFACTS)
    return pipeline.build(source.path, MODEL, cpu, "ref", artifacts, layers=layers).path


def test_the_manifest_says_which_operator_each_output_is() -> None:
    read = artifact.read(compiled(hostcpu.best(), ARTIFACTS))
    graph = tflite.read(models.resolve(MODEL, ARTIFACTS).path)
    assert [(one.operator, one.op, one.tensor) for one in read.layers] == [
        (node.index, node.op, tensor) for node in graph.nodes for tensor in node.outputs
    ]
    assert [one.shape for one in read.outputs] == [graph.tensors[one.tensor].shape for one in read.layers]
    assert artifact.read(compiled(hostcpu.best(), ARTIFACTS, layers=False)).layers == ()


def typed(*names: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """`compare` as its task, with a folder for artifacts that has the loader already."""
    if artifacts != ARTIFACTS:
        arch = hostcpu.arch_of(hostcpu.best())
        shutil.copytree(loader(arch).library.parent, artifacts / "loader" / arch)
        shutil.copytree(ARTIFACTS / "models", artifacts / "models")
    monkeypatch.setattr(comparetasks, "ARTIFACTS", artifacts)
    monkeypatch.setattr("pilite.verbs.ARTIFACTS", artifacts)
    comparetasks.compare(Context(), model=list(names), cpu=[hostcpu.best()], **options)


def test_compare_writes_zero_mismatches_for_every_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "compare.json"
    models.resolve(MODEL, ARTIFACTS)
    typed(MODEL, artifacts=ARTIFACTS, monkeypatch=monkeypatch, layers=True, threads="1,3", json=str(target))
    document = json.loads(target.read_text())
    graph = tflite.read(ARTIFACTS / "models" / f"{MODEL}.tflite")
    assert document["mismatches"] == 0
    assert {entry["operator"] for entry in document["rows"]} == {None, *(node.index for node in graph.nodes)}
    assert {entry["threads"] for entry in document["rows"]} == {1, 3}


def test_a_wrong_rounding_fails_and_its_first_operator_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ties of negative values go up, which only a convolution without a fused RELU can show."""
    monkeypatch.setattr(Requant, "negative_ties_show", property(lambda self: False))
    graph = tflite.read(models.resolve(MODEL, ARTIFACTS).path)
    linear = next(
        node for node in graph.nodes if isinstance(node.options, Conv2D) and node.options.activation == "NONE"
    )
    with pytest.raises(Exit) as caught:
        typed(MODEL, artifacts=tmp_path, monkeypatch=monkeypatch, layers=True, threads="1")
    assert caught.value.code == 1
    assert f"the first operator that differs is #{linear.index} CONV_2D" in str(caught.value.message)
    assert "by at most 1," in str(caught.value.message)


def test_an_artifact_of_another_model_is_refused(tmp_path: Path) -> None:
    path = compiled(hostcpu.best(), ARTIFACTS, layers=False)
    other = tmp_path / "other.tflite"
    other.write_bytes(models.resolve(MODEL, ARTIFACTS).path.read_bytes() + bytes(4))
    right = compare.Truth(other, oracle.reference(), (), ARTIFACTS)
    with pytest.raises(PiliteError, match=r"another \.tflite"):
        compare.compare(compare.Built(path), right, (1,), ARTIFACTS)


# Execution.


def test_code_of_a_machine_that_cannot_be_emulated_is_refused() -> None:
    foreign = replace(artifact.read(compiled(hostcpu.best(), ARTIFACTS)), arch="riscv64")
    with pytest.raises(BoardError, match="riscv64"):
        execute.outputs(foreign, [], 1, ARTIFACTS)


def test_a_missing_emulator_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BoardError, match="qemu-user"):
        execute.emulator("cortex-a53")


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("kill -s SEGV $$", CheckFailed, "SIGSEGV"),
        ("echo gave up >&2; exit 1", CheckFailed, "exit code 1: gave up"),
        ("echo wrong CPU >&2; exit 2", BoardError, "exit code 2: wrong CPU"),
        ("exec sleep 60", CheckFailed, "no end after"),
    ],
)
def test_an_emulated_run_that_ends_badly_says_how(
    script: str, kind: type[PiliteError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = replace(artifact.read(compiled(hostcpu.best(), ARTIFACTS)), arch="aarch64")
    monkeypatch.setattr(execute, "emulator", lambda cpu: ["sh", "-c", script])
    monkeypatch.setattr(execute, "LIMIT_S", 2.0)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(PiliteError, match=said) as caught:
        execute.outputs(emulated, [[]], 1, ARTIFACTS)
    assert type(caught.value) is kind


@pytest.mark.qemu
def test_an_emulated_cpu_without_the_instructions_refuses_the_artifact() -> None:
    built = artifact.read(compiled("cortex-a76", ARTIFACTS, layers=False))
    sets = [case.arrays for case in compare.cases(built.inputs)]
    with pytest.raises(BoardError, match=r"dotprod|asimddp"):
        execute.outputs(replace(built, cpu="cortex-a72"), sets, 1, ARTIFACTS)
