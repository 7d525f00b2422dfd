"""Operators on 16-bit values: what the door refuses, edges that random models miss."""

from __future__ import annotations

import numpy as np
import pytest

from models.zoo.writer import TensorSpec
from pilite.compiler import graph, tflite
from pilite.compiler.graph import Add, Mean, Resize, Softmax
from tests import native, one_op, oracle
from tests.batch import check_bits
from tests.draw import OneOp
from tests.refusals import AGAIN, reason
from tests.small import DENSE, bias, integers, one, value, weights

EVERY = np.arange(-(2**15), 2**15).astype(np.int16)
AS_GIVEN = {"as given": lambda x: x}


def wide(*shape: int, scale: float = 0.001, zero_point: int = 0, name: str = "x") -> TensorSpec:
    return value(*shape, dtype="int16", scale=scale, zero_point=zero_point, name=name)


@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_scales_that_are_powers_of_two_are_shifted_unless_the_options_say_otherwise(op: str) -> None:
    """All ties of both signs. What converters write today forbids it."""
    a, b, y = wide(2**16, scale=2.0**-3), wide(2**16, scale=2.0**-5), wide(2**16, scale=2.0**-3)
    inputs = [EVERY, np.roll(EVERY, 12_345)]
    cases = [OneOp(f"{op}, {by}", one(op, [a, b], y, Add("NONE", by)), inputs) for by in (True, False)]

    check_bits(cases, native.HERE, turns=AS_GIVEN)
    shifted, scaled = (oracle.tflite_ref(case.model, inputs)[0] for case in cases)
    assert np.any(shifted != scaled)


@pytest.mark.parametrize("scale", [2.0**-13, 1 / 6553.5, 0.0003, 0.01, 2.4])
def test_softmax_has_the_bits_of_tflite_at_every_distance(scale: float) -> None:
    pairs = np.stack([np.full_like(EVERY, 2**15 - 1), EVERY], -1)
    model = one("SOFTMAX", [wide(2**16, 2, scale=scale)], wide(2**16, 2, scale=2.0**-15), Softmax(1.0))

    check_bits([OneOp(f"softmax, {scale}", model, [pairs])], native.HERE, turns=AS_GIVEN)


def test_softmax_has_the_bits_of_tflite_for_every_sum_of_equal_values() -> None:
    """Of two more values at a time, at the end the largest sum that 32 bits hold."""
    sizes = (2, 3, 4, 7, 8, 9, 1000, 4097, 2**16)
    cases = [
        OneOp(
            f"softmax of {n}",
            one("SOFTMAX", [wide(1, n)], wide(1, n, scale=2.0**-15), Softmax(1.0)),
            [np.full((1, n), -5, np.int16)],
        )
        for n in sizes
    ]

    check_bits(cases, native.HERE, turns=AS_GIVEN)


def test_sums_with_a_bias_of_32_bits_or_none_wrap_as_those_of_tflite() -> None:
    """1,024 products of -32768 * 127 leave 32 bits."""
    x, y = wide(3, 1024), wide(3, 5, scale=0.01)
    w = weights(5, 1024)
    assert w.data is not None
    w.data[:] = 127
    w.data[2:, ::2] = -3
    values = np.stack([np.full(1024, -32768), np.full(1024, 32767), EVERY[::64]]).astype(np.int16)
    operands = {"32 bits": [x, w, bias(5, scale=0.00002)], "none": [x, w]}
    cases = [
        OneOp(name, one("FULLY_CONNECTED", given, y, DENSE), [values]) for name, given in operands.items()
    ]

    check_bits(cases, native.HERE)


def test_newer_kernels_of_fully_connected_scale_in_float64() -> None:
    """LiteRT takes a bias of 32 bits for one of 64, unless an option says otherwise."""
    cases = [one_op.seeded("FULLY_CONNECTED", "int16", 2_000_000 + i) for i in range(24)]
    dtypes = {case.name: [t.dtype for t in tflite.parse(case.model, "m").tensors] for case in cases}

    check_bits(
        [case for case in cases if "int32" not in dtypes[case.name]], native.HERE, "f64", oracle.litert_ref
    )


def test_sums_of_int16_wrap_as_those_of_tflite() -> None:
    model = one("SUM", [wide(7, 300), integers(1)], wide(7, name="y"), Mean((1,), False))

    check_bits([OneOp("sum", model, [np.resize(EVERY[::31], (7, 300))])], native.HERE)


REFUSED = {
    "softmax, scale": (
        one("SOFTMAX", [wide(1, 4)], wide(1, 4, scale=1 / 256), Softmax(1.0)),
        f"SOFTMAX: its output must have scale 1/32768, as TFLite's kernel demands; {AGAIN}",
    ),
    "softmax, classes": (
        one("SOFTMAX", [wide(2**16 + 1)], wide(2**16 + 1, scale=2.0**-15), Softmax(1.0)),
        "SOFTMAX: has 65537 classes, more than the 65536 of TFLite's 32-bit sum; use less",
    ),
    "softmax, beta": (
        one("SOFTMAX", [wide(1, 4, scale=0.5)], wide(1, 4, scale=2.0**-15), Softmax(8.0)),
        f"SOFTMAX: beta times its input scale (4) is so large that TFLite's 32 bits overflow; {AGAIN}",
    ),
    "sum, scales": (
        one("SUM", [wide(3, 4), integers(1)], wide(3, scale=0.5), Mean((1,), False)),
        f"SUM: its operands and output differ in scale or zero point; {AGAIN}",
    ),
    "mean, count": (
        one("MEAN", [wide(2**16), integers(0)], wide(), Mean((0,), False)),
        "MEAN: sums 65536 values, more than TFLite's 32-bit sum holds; pool in two steps",
    ),
    "resized, zero point": (
        one(
            "RESIZE_BILINEAR",
            [wide(1, 2, 2, 1, zero_point=1)],
            wide(1, 4, 4, 1),
            Resize(False, False, (4, 4)),
        ),
        f"RESIZE_BILINEAR: its int16 values have a zero point other than 0; {AGAIN}",
    ),
    "depthwise, bias": (
        one(
            "DEPTHWISE_CONV_2D",
            [wide(1, 5, 5, 3), weights(1, 3, 3, 3), bias(3)],
            wide(1, 5, 5, 3),
            graph.DepthwiseConv2D("SAME", (1, 1), (1, 1), 1, "NONE"),
        ),
        f"DEPTHWISE_CONV_2D: its bias 'b' (int32) must be an int64 constant; {AGAIN}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_tflite_does_not_compute_of_sixteen_bits_is_refused_with_the_reason(name: str) -> None:
    model, text = REFUSED[name]

    assert reason(model) == f"operator #0 {text}"
