"""Data that moves: parts that are views, indices out of range, what the door refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import graph, lower, tflite
from pilite.compiler.numerics import Numerics
from pilite.compiler.ops.move import is_contiguous
from pilite.compiler.spec import Copy
from tests import native
from tests.batch import compiled
from tests.refusals import AGAIN, reason
from tests.small import edited, integers, one, value


def split(axis: int, *shape: int) -> bytes:
    part = tuple(n // 2 if i == axis else n for i, n in enumerate(shape))
    tensors = [integers(axis), value(*shape), value(*part, name="a"), value(*part, name="b")]
    return write(tensors, [OpSpec("SPLIT", (0, 1), (2, 3), graph.Split(2))], [1], [2, 3])


@pytest.mark.parametrize(("axis", "copies"), [(1, 0), (2, 2), (3, 2)])
def test_a_split_moves_no_bytes_where_its_parts_are_contiguous(axis: int, copies: int) -> None:
    program = lower.lower(tflite.parse(split(axis, 1, 4, 4, 6), "m"), Numerics())

    assert sum(isinstance(stage.spec, Copy) for stage in program.stages) == copies


@pytest.mark.parametrize(
    ("shape", "count", "contiguous"),
    [
        ((1, 4, 6), (1, 2, 6), True),
        ((2, 4, 6), (1, 4, 6), True),
        ((2, 4, 6), (1, 1, 3), True),
        ((2, 4, 6), (2, 2, 6), False),
        ((1, 4, 6), (1, 2, 3), False),
        ((2, 4, 6), (2, 4, 6), True),
    ],
)
def test_a_box_is_contiguous_when_its_elements_are_neighbours(
    shape: tuple[int, ...], count: tuple[int, ...], contiguous: bool
) -> None:
    box = np.arange(np.prod(shape)).reshape(shape)[tuple(map(slice, count))].ravel()

    assert bool((np.diff(box) == 1).all()) == contiguous
    assert is_contiguous(shape, (1,) * len(shape), count) == contiguous


def test_a_computed_index_outside_takes_the_nearest_and_reads_nothing_else(tmp_path: Path) -> None:
    x, at = value(5, 3), TensorSpec("at", (4,), "int32")
    model = one("GATHER", [x, at], value(4, 3, name="y"), graph.Gather(0, 0))
    path = compiled(tflite.parse(model, "m"), native.HERE, tmp_path / "model.so")
    data = np.arange(15, dtype=np.int8).reshape(5, 3)

    (found,) = native.opened(path, native.HERE)(data, np.array([-(2**31), -1, 5, 2**31 - 1], np.int32))

    np.testing.assert_array_equal(found, data[[0, 0, 4, 4]])


def mirror(edge: int, scale: float = 0.1) -> bytes:
    operands = [value(3), integers([1, 1])]
    return one("MIRROR_PAD", operands, value(5, name="y", scale=scale), graph.MirrorPad(edge, (1,), (1,)))


def without_options(file: Any) -> None:
    file.subgraphs[0].operators[0].builtinOptions = None


def offset(file: Any) -> None:
    file.subgraphs[0].operators[0].builtinOptions.offset = True


def wide(*shape: int, zero_point: int = 0) -> TensorSpec:
    return value(*shape, dtype="int16", zero_point=zero_point)


ENDS = [integers(1), integers(3), integers(1)]
STRIDED = one("STRIDED_SLICE", [value(5), *ENDS], value(2, name="y"), graph.StridedSlice())
REFUSED = {
    "constant index outside": (
        one("GATHER", [value(5), integers(5)], value(1, name="y"), graph.Gather(0, 0)),
        f"operator #0 GATHER: its indices 'k' lie outside [5]; {AGAIN}",
    ),
    "index of a scalar": (
        one("GATHER_ND", [value(), integers(0)], value(1, name="y")),
        f"operator #0 GATHER_ND: its indices of shape [1] do not fit []; {AGAIN}",
    ),
    "mirror with another scale": (
        mirror(1, scale=0.2),
        f"operator #0 MIRROR_PAD: its operands and output differ in scale or zero point; {AGAIN}",
    ),
    "mirror without options": (
        edited(mirror(1), without_options),
        f"operator #0 MIRROR_PAD: its options are missing, which leaves its edge open; {AGAIN}",
    ),
    "end that counts from its begin": (
        edited(STRIDED, offset),
        "operator #0 STRIDED_SLICE: its end counts from its begin (option offset); "
        "convert the model with an older converter",
    ),
    "one part of another scale": (
        write(
            [value(2, 3), value(3, name="a"), value(3, name="b", scale=0.2)],
            [OpSpec("UNPACK", (0,), (1, 2), graph.Stack(0, 2))],
            [0],
            [1, 2],
        ),
        f"operator #0 UNPACK: its operands and output differ in scale or zero point; {AGAIN}",
    ),
    "uneven parts": (
        split(0, 3, 2),
        "operator #0 SPLIT: it splits 3 values along axis 0 into 2 equal parts; convert the model again",
    ),
    "permutation of another dtype": (
        one("TRANSPOSE", [value(2, 3), integers(1, 0, dtype="int64")], value(3, 2, name="y")),
        "operator #0 TRANSPOSE: its permutation is int64, TFLite takes int32; convert the model again",
    ),
    "permutation": (
        one("TRANSPOSE", [value(2, 3), integers(0, 0)], value(2, 3, name="y"), graph.Transpose(())),
        "operator #0 TRANSPOSE: its permutation [0, 0] does not name each of 2 dimensions once; "
        "convert the model again",
    ),
    "block": (
        one("SPACE_TO_DEPTH", [value(1, 3, 3, 1)], value(1, 1, 1, 4, name="y"), graph.Depth(2)),
        f"operator #0 SPACE_TO_DEPTH: its image 3x3 is no multiple of the block 2; {AGAIN}",
    ),
    "mirrored too far": (
        one("MIRROR_PAD", [value(3), integers([3, 0])], value(6, name="y"), graph.MirrorPad(0)),
        "operator #0 MIRROR_PAD: its paddings [3, 0] reach further than [3] mirrored; "
        "convert the model again",
    ),
    "depth of 16 bits": (
        one("DEPTH_TO_SPACE", [wide(1, 1, 1, 4)], wide(1, 2, 2, 1), graph.Depth(2)),
        f"operator #0 DEPTH_TO_SPACE: moves int16, which TFLite's kernel refuses; {AGAIN} with int8",
    ),
    "shifted 16 bits": (
        one("PACK", [wide(3), wide(3, zero_point=1)], wide(2, 3), graph.Stack(0, 2)),
        f"operator #0 PACK: its int16 values have a zero point other than 0; {AGAIN}",
    ),
    "packed scales": (
        one("PACK", [value(3), value(3, scale=0.2)], value(2, 3, name="y"), graph.Stack(0, 2)),
        f"operator #0 PACK: its operands and output differ in scale or zero point; {AGAIN}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_moves_that_tflite_does_not_define_are_refused(case: str) -> None:
    model, text = REFUSED[case]

    assert reason(model) == text
