"""TRANSPOSE_CONV as a few convolutions: every geometry, bit for bit against TFLite, and its phases."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from pilite.compiler.graph import TransposeConv
from pilite.compiler.ops.transpose_conv import Phase, phases
from tests.batch import check_bits
from tests.draw import Draw, OneOp
from tests.native import HERE
from tests.one_op import DTYPES

WINDOWS = ((1, 1), (2, 2), (3, 3), (1, 5), (4, 2))
STRIDES = ((1, 1), (2, 2), (3, 1), (4, 4))
RESULTS = ((1, 1), (3, 3), (7, 9), (16, 4))  # less than the input reaches, as much, and more


def cases(dtype: str) -> Iterator[OneOp]:
    """Every second geometry with padding, every third with bias."""
    for i, (window, stride, result) in enumerate(product(WINDOWS, STRIDES, RESULTS)):
        d, oc = Draw(np.random.default_rng(i), dtype), (1, 4, 9)[i % 3]
        scales = [0.01 * (1 + k) for k in range(oc)] if dtype == "int8" else [0.01]
        zero_point = 130 if dtype == "uint8" else 0
        w = d.tensor((oc, *window, 3), scales, zero_point, data=d.values((oc, *window, 3)))
        x = d.activation((1, 3, 4, 3), 0.02)
        y = d.activation((1, *result, oc), 0.06)
        sums = [float(np.float32(0.02) * np.float32(s)) for s in scales]
        bias = d.tensor((oc,), sums, dtype="int32", data=np.arange(oc, dtype=np.int32) * 900)
        operands = (d.integers((1, *result, oc)), w, x, bias)[: 3 + (i % 3 > 0)]
        options = TransposeConv(("SAME", "VALID")[i % 2], stride, "NONE")
        case = d.finish("TRANSPOSE_CONV", operands, y, options)
        yield OneOp(f"{dtype} {window}, stride {stride}, to {result}", case.model, case.inputs)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_geometry_gives_the_bits_of_tflite(dtype: str) -> None:
    check_bits(list(cases(dtype)), HERE)


def test_a_window_as_large_as_the_stride_becomes_one_tap_per_phase() -> None:
    assert phases(size=5, result=10, kernel=2, stride=2, pad=0) == [
        Phase(0, 5, 5, (0,), 0, 0),
        Phase(1, 5, 5, (1,), 0, 0),
    ]


def test_a_position_that_no_tap_hits_sees_a_tap_of_zeros() -> None:
    assert [phase.taps for phase in phases(size=4, result=12, kernel=2, stride=3, pad=0)] == [
        (0,),
        (1,),
        (-1,),
    ]


@pytest.mark.parametrize(
    ("size", "result", "kernel", "stride", "pad"), product((1, 4), (1, 5, 9), (1, 2, 3, 5), (1, 2, 3), (0, 1))
)
def test_phases_see_what_the_definition_says(
    size: int, result: int, kernel: int, stride: int, pad: int
) -> None:
    """Output position o gets input position i by tap k where o + pad = i * stride + k."""
    seen = set()
    for phase in phases(size, result, kernel, stride, pad):
        for n, (j, tap) in product(range(phase.count), enumerate(phase.taps)):
            pixel = n - phase.before + j
            if tap >= 0 and 0 <= pixel < size:
                seen.add((phase.first + n * stride, pixel, tap))
    pairs = product(range(size), range(kernel))
    wanted = {(i * stride + k - pad, i, k) for i, k in pairs if 0 <= i * stride + k - pad < result}

    assert seen == wanted
