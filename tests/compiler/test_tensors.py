"""A tensor that no operator may use says which one it is, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pilite.compiler.graph import Add
from tests.refusals import AGAIN, FULL, add, assign, reason
from tests.small import edited, one, value, weights


def spec(name: str = "x", **changes: Any) -> Callable[[], bytes]:
    """A RESHAPE of a changed input."""
    x = replace(value(4, name=name), **changes)
    return lambda: one("RESHAPE", [x], value(2, 2, name="y"))


def scales(*numbers: float, zero_points: tuple[int, ...] = (), axis: int = 0) -> Callable[[], bytes]:
    return spec(scales=numbers, zero_points=zero_points or (0,) * len(numbers), axis=axis)


TENSORS = {
    "float16": (
        spec(dtype="float16"),
        f"works on float16 tensors; half precision is float arithmetic, {FULL}",
    ),
    "int4": (
        spec(dtype="int4"),
        "works on int4 tensors; 4-bit weights are not supported, convert the model again with 8-bit weights",
    ),
    "string": (spec(dtype="string"), f"works on string tensors; {FULL}"),
    "unknown dtype": (assign("tensors.0.type", 77), f"works on type number 77 tensors; {FULL}"),
    "state": (
        spec(is_variable=True),
        "tensor 0 'x' keeps a state between runs; only UNIDIRECTIONAL_SEQUENCE_LSTM may",
    ),
    "state with data": (
        spec(is_variable=True, data=np.zeros(4, np.int8)),
        "tensor 0 'x' keeps a state and has data, which TFLite refuses; convert the model again",
    ),
    "rank": (spec(shape=(1,) * 9), "tensor 0 'x' has 9 dimensions, more than 8; convert the model again"),
    "unknown size": (
        spec(shape=(-1, 4)),
        "tensor 0 'x' has the dynamic shape [-1, 4]; give the model's sizes with `--input-shape`",
    ),
    "empty": (
        spec(shape=(4, 0)),
        "tensor 0 'x' has the shape [4, 0]: empty or above 2 GB; convert the model again",
    ),
    "huge": (
        spec(shape=(2**16, 2**15)),
        "tensor 0 'x' has the shape [65536, 32768]: empty or above 2 GB; convert the model again",
    ),
    "scale 0": (scales(0.0), f"tensor 0 'x' has a scale that is no positive number; {AGAIN}"),
    "negative scale": (scales(-0.5), f"tensor 0 'x' has a scale that is no positive number; {AGAIN}"),
    "infinite scale": (scales(math.inf), f"tensor 0 'x' has a scale that is no positive number; {AGAIN}"),
    "no number": (scales(math.nan), f"tensor 0 'x' has a scale that is no positive number; {AGAIN}"),
    "too many scales": (
        scales(0.1, 0.2, 0.3),
        "tensor 0 'x' has 3 scales for axis 0 of shape [4]; they do not match; convert the model again",
    ),
    "scales of no axis": (
        scales(0.1, 0.2, 0.3, 0.4, axis=1),
        "tensor 0 'x' has 4 scales for axis 1 of shape [4]; they do not match; convert the model again",
    ),
    "a scale of no axis": (
        scales(0.1, axis=2),
        "tensor 0 'x' has 1 scales for axis 2 of shape [4]; they do not match; convert the model again",
    ),
    "no zero points": (
        assign("tensors.0.quantization.zeroPoint", None),
        f"tensor 0 'x' has 1 scales but 0 zero points; {AGAIN}",
    ),
    "too few zero points": (
        scales(0.1, 0.2, 0.3, 0.4, zero_points=(1,)),
        f"tensor 0 'x' has 4 scales but 1 zero points; {AGAIN}",
    ),
    "zero point of another dtype": (
        scales(0.1, zero_points=(128,)),
        f"tensor 0 'x' has a zero point outside int8; {AGAIN}",
    ),
    "custom quantization": (
        assign("tensors.0.quantization.detailsType", 1),
        "tensor 0 'x' has a custom quantization; only scale and zero point can be compiled",
    ),
    "a name with a line break": (
        spec(name="a\nb", is_variable=True),
        "tensor 0 'a\\nb' keeps a state between runs; only UNIDIRECTIONAL_SEQUENCE_LSTM may",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_that_cannot_be_used_says_why(case: str) -> None:
    make, text = TENSORS[case]
    op = "ADD" if make.__qualname__.startswith("edit") else "RESHAPE"
    assert reason(make()) == f"operator #0 {op}: {text}"


def test_a_sparse_tensor_is_refused() -> None:
    generated = pytest.importorskip("ai_edge_litert.schema_py_generated")

    def change(file: Any) -> None:
        file.subgraphs[0].tensors[0].sparsity = generated.SparsityParametersT()

    assert reason(edited(add(), change)) == (
        "operator #0 ADD: tensor 0 'x' is stored sparse; convert the model again with dense weights"
    )


def test_a_constant_with_other_bytes_than_its_shape_is_refused() -> None:
    model = one("ADD", [value(4), weights(4)], value(4), Add("NONE"))

    def cut(file: Any) -> None:
        file.buffers[1].data = file.buffers[1].data[:3]

    assert reason(edited(model, cut)) == (
        "operator #0 ADD: tensor 1 'w' has 3 bytes of data where 4 follow from int8[4]; "
        "convert the model again"
    )
