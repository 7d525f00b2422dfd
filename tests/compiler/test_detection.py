"""TFLite_Detection_PostProcess: every entry that TFLite defines, what it leaves open, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import detection, tflite
from pilite.compiler.graph import Detection
from pilite.compiler.operands import Refused
from pilite.lab.detections import settled
from tests import native, oracle
from tests.batch import TURNS, compiled, merged, turned
from tests.detect_ops import post_process
from tests.draw import Array, Draw, OneOp
from tests.refusals import AGAIN, reason

PLAIN = Detection(10, 1, 100, False, 0.5, 0.75, 2, (10.0, 10.0, 5.0, 5.0))
Outputs = list[Array]


def model(options: Detection = PLAIN, n: int = 6, columns: int = 3, **more: Any) -> bytes:
    """Float boxes over unit anchors; `more` replaces a tensor by name."""
    count = options.most * options.per_box
    tensors = {
        "boxes": TensorSpec("boxes", (1, n, 4), "float32"),
        "scores": TensorSpec("scores", (1, n, columns), "float32"),
        "anchors": TensorSpec("anchors", (n, 4), "float32", data=np.ones((n, 4), np.float32)),
    }
    shapes = ((1, count, 4), (1, count), (1, count), (1,))
    tensors |= {f"y{i}": TensorSpec(f"y{i}", shape, "float32") for i, shape in enumerate(shapes)}
    tensors |= more
    inputs = [i for i in range(3) if list(tensors.values())[i].data is None]
    op = OpSpec(detection.OP, (0, 1, 2), (3, 4, 5, 6), options)
    return write(list(tensors.values()), [op], inputs, [3, 4, 5, 6])


def check(cases: list[OneOp], tmp_path: Path, cpu: str = native.HERE) -> list[Outputs]:
    """Every case gives TFLite's bits where these are defined, else zeros; the outputs of all turns."""
    graphs = [tflite.parse(case.model, case.name) for case in cases]
    run = native.opened(compiled(merged(graphs), cpu, tmp_path / "model.so"), cpu)
    seen = []
    for change in TURNS.values():
        inputs = [turned(case, change) for case in cases]
        found = run(*(x for own in inputs for x in own))
        for i, case in enumerate(cases):
            wanted = settled(case.model, oracle.tflite_ref(case.model, inputs[i]))
            for ours, theirs in zip(found[4 * i : 4 * i + 4], wanted, strict=True):
                np.testing.assert_array_equal(ours, theirs, case.name)
            seen.append(wanted)
    return seen


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_random_detections_with_and_without_suppression_are_those_of_tflite(
    dtype: str, tmp_path: Path
) -> None:
    cases = []
    for seed in range(30):
        case = post_process(Draw(np.random.default_rng(seed), dtype), detection.OP, defined=False)
        cases.append(replace(case, name=f"{dtype} {seed}"))
    numbers = [int(outputs[3][0]) for outputs in check(cases, tmp_path)]

    assert min(numbers) == 0
    assert max(numbers) > 10


def scored(options: Detection, n: int, *scores: float, step: float = 100.0) -> OneOp:
    """Boxes `step` apart, so that none hides another."""
    boxes = np.zeros((1, n, 4), np.float32)
    boxes[0, :, 1] = step * np.arange(n)
    values = np.tile(np.array(scores, np.float32), n).reshape(1, n, len(scores))
    return OneOp("scored", model(options, n, len(scores)), [boxes, values])


@pytest.mark.parametrize("regular", [False, True])
def test_no_detection_leaves_all_zero(regular: bool, tmp_path: Path) -> None:
    case = scored(replace(PLAIN, regular=regular, score=0.9), 6, 0.1, 0.2, 0.3)

    for outputs in check([case], tmp_path):
        assert not any(x.any() for x in outputs)


@pytest.mark.parametrize("regular", [False, True])
def test_more_detections_than_boxes_are_asked_for(regular: bool, tmp_path: Path) -> None:
    case = scored(replace(PLAIN, regular=regular, most=40, score=0.0, per_class=3), 4, 0.1, 0.2, 0.3)
    outputs = check([case], tmp_path)[0]

    assert outputs[3][0] == (6 if regular else 4)


def test_equal_scores_of_a_box_have_the_order_of_tflite(tmp_path: Path) -> None:
    """That of a heap, which is no stable sort."""
    cases = [
        scored(replace(PLAIN, most=2, per_box=per_box, classes=classes), 2, *((1.0,) * classes))
        for classes in (2, 3, 4, 5, 8, 9)
        for per_box in range(1, classes + 1)
    ]

    check(cases, tmp_path)


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_other_cores_give_the_same_bytes(cpu: str, tmp_path: Path) -> None:
    cases = [
        post_process(Draw(np.random.default_rng(seed), "float32"), detection.OP, defined=True)
        for seed in range(20)
    ]

    check(cases, tmp_path, cpu)


def test_shapes_that_a_converter_leaves_out_are_those_of_the_options() -> None:
    unknown: dict[str, Any] = {f"y{i}": TensorSpec(f"y{i}", (), "float32") for i in range(4)}
    graph = tflite.parse(model(**unknown), "m")

    assert [graph.tensors[i].shape for i in graph.outputs] == [(1, 10, 4), (1, 10), (1, 10), (1,)]


def test_options_are_read_as_they_were_written() -> None:
    assert Detection(**detection.options(detection.stored(PLAIN))) == PLAIN


FLOAT = TensorSpec("x", (1, 6, 4), "float32")
REFUSED = {
    "boxes": (
        model(boxes=replace(FLOAT, shape=(1, 6, 3))),
        "its boxes [1, 6, 3], scores [1, 6, 3] and anchors [6, 4] are not [1, n, 4], [1, n, classes] and "
        f"[n, 4]; {AGAIN}",
    ),
    "classes": (
        model(columns=5),
        f"its scores [1, 6, 5] have neither 2 classes nor a background besides; {AGAIN}",
    ),
    "too many": (
        model(replace(PLAIN, most=20_000)),
        f"it gives 20000 times 1 detections of 2 classes, above 0 to 10000; {AGAIN}",
    ),
    "int8": (
        model(boxes=TensorSpec("b", (1, 6, 4), "int8", (0.1,), (0,))),
        "turns int8 and float32 into float32; it takes float32 and uint8",
    ),
    "anchors computed": (
        model(anchors=TensorSpec("a", (6, 4), "float32")),
        f"its anchors are no constant of the boxes' float32; {AGAIN}",
    ),
    "scale": (
        model(replace(PLAIN, scale=(10.0, 0.0, 5.0, 5.0))),
        f"its scales (10.0, 0.0, 5.0, 5.0) are no numbers other than 0; {AGAIN}",
    ),
    "overlap": (
        model(replace(PLAIN, overlap=0.0)),
        "its thresholds 0.5 and 0 or 100 detections a class make no sense",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_operator_that_tflite_does_not_define_is_refused(case: str) -> None:
    data, text = REFUSED[case]

    assert reason(data) == f"operator #0 {detection.OP}: {text}"


@pytest.mark.parametrize("stored", [b"", b"\x00", b"\xff" * 40, bytes(range(60))])
def test_options_that_are_no_map_are_refused(stored: bytes) -> None:
    with pytest.raises(Refused, match="its custom options cannot be read"):
        detection.options(stored)


def test_damaged_options_never_do_more_than_that() -> None:
    rng, whole = np.random.default_rng(0), bytearray(detection.stored(PLAIN))
    refused = 0
    for _ in range(2000):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            detection.options(bytes(data))
        except Refused:
            refused += 1

    assert 0 < refused < 2000
