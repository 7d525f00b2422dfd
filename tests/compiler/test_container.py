"""A file that is no .tflite is named for what it is; a broken one is called damaged, with the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilite.compiler import tflite
from pilite.errors import ModelError
from tests.refusals import add, assign, edit, reason

FOREIGN = {
    b"": "empty",
    b"PK\x03\x04 and more": "a zip archive; unpack it and give the .tflite inside",
    b"\x1f\x8b\x08 and more": "a gzip archive; unpack it and give the .tflite inside",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file of Keras; convert it to .tflite first",
    b"version https://git-lfs.github.com/spec/v1": "a Git LFS pointer; fetch the model with `git lfs pull`",
    b"<!DOCTYPE html>": "a web page; download the model itself",
    b"\x08\x07\x12\x07pytorch": "a protocol buffer, perhaps ONNX; convert the model to .tflite first",
    b"TFL3": "something else; give a model that TensorFlow Lite's converter wrote",
}


@pytest.mark.parametrize("start", FOREIGN, ids=range(len(FOREIGN)))
def test_a_foreign_file_is_named_for_what_it_is(start: bytes) -> None:
    assert reason(start) == f" is no .tflite file (no TFL3 at byte 4) but {FOREIGN[start]}"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        tflite.read(tmp_path / "no.tflite")
    assert str(refused.value).endswith(
        "no.tflite: cannot be read (No such file or directory); give the path of a .tflite file"
    )


def no_graphs(file: Any) -> None:
    file.subgraphs = []


def version_four(file: Any) -> None:
    file.version = 4


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut": (lambda: add()[:200], "an offset points to byte"),
    "no graph": (edit(no_graphs), "schema version 3 (must be 3), 0 graphs"),
    "other version": (edit(version_four), "schema version 4 (must be 3), 1 graphs"),
    "operand": (
        assign("operators.0.inputs", [0, 9]),
        "operator #0 ADD: operands name tensor 9, but the graph has 3 tensors",
    ),
    "negative operand": (
        assign("operators.0.inputs", [0, -2]),
        "operator #0 ADD: operands name tensor -2, but the graph has 3 tensors",
    ),
    "output": (
        assign("operators.0.outputs", [-1]),
        "operator #0 ADD: outputs name tensor -1, but the graph has 3 tensors",
    ),
    "graph input": (assign("inputs", [3]), "the graph's inputs name tensor 3, but the graph has 3 tensors"),
    "operator code": (assign("operators.0.opcodeIndex", 7), "operator #0 refers to operator code 7 of 1"),
    "buffer": (assign("tensors.0.buffer", 8), "a tensor refers to buffer 8 of 1"),
    "options of another operator": (
        assign("operators.0.builtinOptionsType", 9),
        "operator #0 ADD has options of another operator (type 9)",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_broken_structure_is_called_damage(case: str) -> None:
    make, text = DAMAGED[case]
    said = reason(make())
    assert said.startswith(f"the file is damaged: {text}")
    assert said.endswith("; copy or convert the model again")
