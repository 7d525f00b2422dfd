"""What operators become before any kernel: windows, multipliers, folded constants, tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilite.compiler import lower, schema, tflite
from pilite.compiler.fixedpoint import INT32_MAX, Multiplier, Rounding, operands
from pilite.compiler.graph import Quant, Tensor
from pilite.compiler.numerics import Numerics
from pilite.compiler.ops import OPS, page, table
from pilite.compiler.ops.common import (
    channel_multipliers,
    channel_requant,
    folded_bias,
    window,
)
from pilite.compiler.ops.elementwise import rescaled_for_concatenation
from pilite.compiler.ops.reduce import exp_on_negative_values, exponentials
from pilite.compiler.spec import QMean
from tests.batch import check_bits
from tests.draw import OneOp
from tests.native import HERE
from tests.nets import Net

F32 = np.float32
Q31 = Rounding.GEMMLOWP


def tensor(
    scale: float | tuple[float, ...], zero_point: int = 0, dtype: str = "int8", **more: object
) -> Tensor:
    scales = scale if isinstance(scale, tuple) else (scale,)
    quant = Quant(tuple(float(F32(s)) for s in scales), (zero_point,) * len(scales))
    return Tensor(0, "t", (1, len(scales)), dtype, quant, **more)  # type: ignore[arg-type]


# The table.


def test_the_importer_and_the_lowering_know_the_same_operators() -> None:
    assert set(OPS) == set(schema.OPERATORS)


def test_every_operator_says_what_users_may_rely_on() -> None:
    rows = table()

    assert [row["operator"] for row in rows] == sorted(OPS)
    assert all(row["dtypes"] and row["limits"] and row["numerics"] for row in rows)


def test_the_page_of_operators_is_up_to_date() -> None:
    """`python3 run.py ops --output docs/ops.md` writes it."""
    stored = (Path(__file__).parents[2] / "docs" / "ops.md").read_text(encoding="utf-8")

    assert stored == page.page()
    assert all(f"| {op} |" in stored for op in OPS)


# Windows.


def cases() -> Iterator[tuple[int, int, int, int, str]]:
    for size, kernel, stride, dilation in product(range(1, 9), range(1, 6), range(1, 4), range(1, 4)):
        for padding in ("SAME", "VALID"):
            if padding == "SAME" or size >= (kernel - 1) * dilation + 1:
                yield size, kernel, stride, dilation, padding


def test_windows_reach_exactly_as_far_as_their_border() -> None:
    """The first window starts `before` in front of the image, the last one ends `after` behind it."""
    for size, kernel, stride, dilation, padding in cases():
        reach = (kernel - 1) * dilation + 1
        count = -(-size // stride) if padding == "SAME" else (size - reach) // stride + 1
        w = window(padding, (kernel, 1), (stride, 1), (dilation, 1), (size, 1), (count, 1))
        total = max((count - 1) * stride + reach - size, 0)
        last = (count - 1) * stride + reach - w.before[0]
        assert w.before[0] == (total // 2 if padding == "SAME" else 0)
        assert w.after[0] == max(last - size, 0)
        assert (w.before[1], w.after[1]) == (0, 0)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [
        pytest.param(224, 3, 2, 0, 1, id="even image, stride 2: TFLite pads at the end"),
        pytest.param(225, 3, 2, 1, 1, id="odd image, stride 2"),
        pytest.param(7, 3, 1, 1, 1, id="stride 1"),
        pytest.param(5, 2, 1, 0, 1, id="even kernel"),
        pytest.param(2, 5, 1, 2, 2, id="kernel larger than the image"),
        pytest.param(7, 1, 3, 0, 0, id="stride larger than the kernel"),
    ],
)
def test_same_padding_is_tflites(size: int, kernel: int, stride: int, before: int, after: int) -> None:
    count = -(-size // stride)
    w = window("SAME", (kernel, kernel), (stride, stride), (1, 1), (size, size), (count, count))

    assert (w.before, w.after) == ((before, before), (after, after))


# Multipliers.


def test_the_product_of_scales_is_rounded_to_float32_only_where_tflite_does() -> None:
    x, w, y = tensor(0.1), tensor(0.3), tensor(0.7)
    sx, sw, sy = (float(F32(s)) for s in (0.1, 0.3, 0.7))

    assert channel_multipliers(x, w, y, 1, Q31, float_product=False) == [sx * sw / sy]
    assert channel_multipliers(x, w, y, 1, Q31, float_product=True) == [float(F32(sx) * F32(sw)) / sy]
    assert float(F32(sx) * F32(sw)) != sx * sw


def test_one_scale_serves_all_channels_and_several_stay_apart() -> None:
    x, y = tensor(0.5), tensor(0.25)

    assert channel_multipliers(x, tensor(0.5), y, 3, Q31, float_product=False) == [1.0] * 3
    assert channel_multipliers(x, tensor((0.5, 1.0, 2.0)), y, 3, Q31, float_product=False) == [1.0, 2.0, 4.0]


def test_a_left_shift_is_asked_for_only_where_a_multiplier_needs_one() -> None:
    def left(*reals: float) -> bool:
        return channel_requant(Rounding.GEMMLOWP, tensor(0.1), "NONE", reals).left

    assert not left(0.1, 0.999)
    assert left(0.1, 1.0)
    assert not channel_requant(Rounding.FLOAT64, tensor(0.1), "NONE", [3.0]).left


def test_operands_follow_the_rounding() -> None:
    arrays = operands(Rounding.GEMMLOWP, [0.25, 3.0])

    assert arrays["mantissa"].tolist() == [1 << 30, 3 << 29]
    assert (arrays["right"].tolist(), arrays["left"].tolist()) == ([1, 0], [0, 2])
    assert operands(Rounding.FLOAT64, [0.25, 3.0])["scale"].tolist() == [0.25, 3.0]


# Folded constants.


@given(
    st.integers(-128, 127),
    st.lists(st.integers(-255, 255), min_size=1, max_size=20),
    st.integers(-(2**31), 2**31 - 1),
)
def test_a_folded_bias_stands_for_the_zero_point(zero_point: int, weights: list[int], bias: int) -> None:
    """sum(x * w) + folded equals sum((x - zero_point) * w) + bias, modulo 2**32."""
    w = np.array([weights], np.int16)
    b = Tensor(0, "b", (1,), "int32", data=np.array([bias], np.int32))
    x = np.arange(len(weights)) % 256 - 128
    folded = int(folded_bias(b, w, (1,), zero_point)[0])

    exact = int(((x - zero_point) * w[0]).sum()) + bias
    assert (int((x * w[0]).sum()) + folded - exact) % (1 << 32) == 0


def test_without_a_bias_only_the_zero_point_is_folded() -> None:
    w = np.array([[1, 2], [-3, 3]], np.int16)

    assert folded_bias(None, w, (1,), 10).tolist() == [-30, 0]


# Tables.


def test_exponentials_are_close_to_the_real_ones() -> None:
    """Q0.31; the fixed-point polynomial is good to some 2**-24."""
    scale, beta = float(F32(0.05)), 1.5
    found = exponentials(scale, beta) / 2.0**31
    wanted = np.exp(-scale * beta * np.arange(256))

    np.testing.assert_allclose(found, wanted, atol=2.0**-22)
    assert exponentials(scale, beta)[0] == INT32_MAX
    assert (np.diff(exponentials(scale, beta).astype(np.int64)) <= 0).all()


def test_distances_beyond_tflites_limit_count_nothing() -> None:
    """With scale 1 TFLite keeps 15 steps (diff_min); e**-16 would be 242 units, but is dropped."""
    kept = exponentials(1.0, 1.0)

    assert kept[15] == pytest.approx(math.exp(-15) * 2**31, abs=2)
    assert math.exp(-16) * 2**31 > 200
    assert not kept[16:].any()


def test_exp_of_zero_is_the_largest_number_and_falls_from_there() -> None:
    a = -np.arange(0, 1 << 26, 1 << 16, dtype=np.int64)
    e = exp_on_negative_values(a)

    assert e[0] == INT32_MAX
    assert (np.diff(e) <= 0).all()
    np.testing.assert_allclose(e / 2.0**31, np.exp(a / 2.0**26), atol=2.0**-22)


def test_concatenation_rescales_in_float32() -> None:
    x, y = tensor(0.1, 7, "uint8"), tensor(0.25, 30, "uint8")
    got = rescaled_for_concatenation(x, y) + 128
    exact = [(q - 7) * Fraction(float(F32(0.1))) / Fraction(0.25) + 30 for q in range(256)]

    assert all(abs(g - min(max(float(e), 0), 255)) <= 0.51 for g, e in zip(got, exact, strict=True))


@pytest.mark.parametrize("scale", [0.1, 0.5, 1 / 3])
def test_concatenation_of_the_same_quantization_changes_nothing(scale: float) -> None:
    x = tensor(scale, 9, "uint8")

    np.testing.assert_array_equal(rescaled_for_concatenation(x, x), np.arange(256) - 128)


# Every stored value, against TFLite.


def requantization(dtype: str, scale: float, zero_point: int) -> OneOp:
    """All 256 values through one QUANTIZE."""
    net = Net(dtype)
    y = net.requantize(net.input(256, zero_point=3), scale, zero_point)
    case = net.case(f"{dtype} to scale {scale}, zero point {zero_point}", y)
    limits = np.iinfo(dtype)
    return OneOp(case.name, case.model, [np.arange(limits.min, limits.max + 1).astype(dtype)])


def test_requantization_is_right_for_every_stored_value() -> None:
    """Ties (1/8, 1/32), the identity, shifts by a step, saturation on both sides, tiny and large factors."""
    scales = (1 / 16, 1 / 8, 1 / 32, 0.07, 1.0, 50.0, 1 / 1000)

    check_bits(
        [requantization(dtype, s, z) for dtype in ("int8", "uint8") for s in scales for z in (0, 3, 4, 127)],
        HERE,
    )


# The division of a MEAN.


@pytest.mark.parametrize("side", [1, 2, 3, 7, 8, 9, 31, 100])
def test_the_division_of_a_mean_is_folded_into_its_multiplier(side: int) -> None:
    """As exact as 31 bits allow."""
    net = Net("int8")
    x = net.input(1, side, side, 2)
    y = net.mean(x)
    graph = tflite.parse(net.case("mean", y).model, "mean")
    (spec,) = (stage.spec for stage in lower.lower(graph, Numerics()).stages if isinstance(stage.spec, QMean))
    ratio = net.tensors[x].scales[0] / float(F32(net.tensors[y].scales[0]))

    assert isinstance(spec.multiplier, Multiplier)
    folded = spec.multiplier.mantissa * 2.0 ** (spec.multiplier.exponent - 31)
    assert math.isclose(folded, ratio / side**2, rel_tol=2.0**-29)
    assert spec.axes == (1, 2)
