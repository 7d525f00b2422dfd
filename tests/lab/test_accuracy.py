"""accuracy: best classes, agreement and confusion, counted by hand; and real runtimes on real pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from invoke.context import Context
from PIL import Image

from pilite import comparetasks
from pilite.errors import PiliteError
from pilite.lab import accuracy, hostcpu
from pilite.lab.accuracy import Accuracy, Answer, Picture
from pilite.lab.artifact import Artifact, TensorInfo

LABELS = tuple("abcdefg")
MADE = Artifact(
    Path("m.so"),
    "m",
    "cortex-a72",
    "ref",
    "a" * 64,
    "b" * 64,
    "aarch64",
    (TensorInfo("x", (1, 4, 4, 3), "uint8"),),
    (TensorInfo("y", (1, 7), "uint8"),),
)


def answer(runtime: str, picture: str, classes: str, label: str = "") -> Answer:
    numbers = tuple(LABELS.index(c) for c in classes)
    return Answer(runtime, Picture(Path(picture), label), numbers, (5.0, 4.0, 3.0, 2.0, 1.0))


RESULT = Accuracy(
    MADE,
    LABELS,
    ("pilite", "other"),
    (
        answer("pilite", "1", "abcde", "a"),
        answer("pilite", "2", "abcde", "e"),
        answer("pilite", "3", "abcde"),
        answer("other", "1", "abced", "a"),
        answer("other", "2", "fbcde", "e"),
        answer("other", "3", "fbcda"),
    ),
)


def test_pairs_agree_in_the_best_in_the_five_and_in_their_order() -> None:
    assert RESULT.agreement() == [
        {"a": "pilite", "b": "other", "pictures": 3, "top1": 1, "top5": 1, "order": 0}
    ]


def test_disagreements_are_counted_by_class() -> None:
    assert RESULT.confusion() == [
        {"a": "pilite", "b": "other", "class_a": "a", "class_b": "f", "pictures": 2}
    ]


def test_only_pictures_of_a_known_class_are_right_or_wrong() -> None:
    assert RESULT.right() == [
        {"runtime": "pilite", "pictures": 2, "top1": 1, "top5": 2},
        {"runtime": "other", "pictures": 2, "top1": 1, "top5": 2},
    ]
    unknown = replace(RESULT, answers=tuple(a for a in RESULT.answers if not a.picture.label))
    assert unknown.right() == []


def test_the_document_fits_its_schema_and_a_wrong_one_does_not() -> None:
    document = RESULT.document()
    assert json.loads(json.dumps(document)) == document
    with pytest.raises(jsonschema.ValidationError):
        replace(RESULT, runtimes=()).document()


def test_equal_scores_keep_the_order_of_classes() -> None:
    found = accuracy.best("r", Picture(Path("p")), np.array([[3, 255, 3, 0, 3, 3, 255]], np.uint8))
    assert found.classes == (1, 6, 0, 2, 4)
    assert found.scores == (255, 255, 3, 3, 3)


def test_a_folder_below_says_the_class(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("b.png", "a.bmp", "cat/c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "labels.txt").write_text("cat")
    found = accuracy.pictures(tmp_path)
    assert [(p.path.name, p.label) for p in found] == [("a.bmp", ""), ("b.png", ""), ("c.png", "cat")]


def test_no_folder_and_no_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"--images .*none: no such folder"):
        accuracy.pictures(tmp_path / "none")
    with pytest.raises(PiliteError, match=r"no picture in it \(\.bmp"):
        accuracy.pictures(tmp_path)


def test_labels_are_as_many_as_classes_or_begin_with_background(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\n".join(LABELS))
    assert accuracy.names(file, MADE) == list(LABELS)
    file.write_text("\n".join(("background", *LABELS)))
    assert accuracy.names(file, MADE) == list(LABELS)
    file.write_text("\n".join(("other", *LABELS)))
    with pytest.raises(PiliteError, match="8 labels; m has 7 classes"):
        accuracy.names(file, MADE)
    with pytest.raises(PiliteError, match="No such file"):
        accuracy.names(tmp_path / "none", MADE)


def test_real_runtimes_are_asked_about_real_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (9, 7), colour).save(tmp_path / f"{i}.bmp")
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(f"class {i}" for i in range(1001)))
    target = tmp_path / "a.json"
    comparetasks.accuracy(
        Context(),
        images=str(tmp_path),
        labels=str(names),
        model=["mobilenet_v2_0.1_32_uint8"],
        cpu=hostcpu.best(),
        against="tflite-ref,litert",
        json=str(target),
    )
    document = json.loads(target.read_text())
    assert len(document["answers"]) == 9
    exact = document["agreement"][0]
    assert (exact["a"], exact["pictures"], exact["order"]) == ("pilite", 3, 3)
    shown = capsys.readouterr().out
    assert "Pictures become uint8 [1, 32, 32, 3]: resized to the input's height and width" in shown
    assert "Top 5" in shown
