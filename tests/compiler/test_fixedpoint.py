"""Rounding, by name: numpy's half against exact fractions, the vectors of each target against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm.script.ir_builder import tirx as T

from pilite.compiler import cpu as cpus
from pilite.compiler.fixedpoint import (
    RAISED,
    Multiplier,
    Requant,
    Rounding,
    activation_range,
    multiply,
    round_half_away,
    rounding_doubling_high_mul,
    rounding_shift_right,
    wrap_int32,
)
from pilite.compiler.kernels.emit import Param, function, load, loop, store
from pilite.compiler.kernels.isa import ISAS, Isa
from pilite.compiler.requantize import requantize
from tests.kernels import KernelRun, results
from tests.native import EVERY_CPU

Array = npt.NDArray[Any]
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
INT32 = st.integers(INT32_MIN, INT32_MAX)
MANTISSAS = st.integers(1 << 30, INT32_MAX)


def half_away(x: Fraction) -> int:
    whole = math.floor(abs(x) + Fraction(1, 2))
    return whole if x >= 0 else -whole


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


# --- numpy against exact arithmetic ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(1, 1 << 30, 1, id="tie, positive: up"),
        pytest.param(-1, 1 << 30, 0, id="tie, negative: up"),
        pytest.param(3, 1 << 30, 2, id="one and a half"),
        pytest.param(-3, 1 << 30, -1, id="minus one and a half: up"),
        pytest.param(1, (1 << 30) - 1, 0, id="just below a tie"),
        pytest.param(-1, (1 << 30) + 1, -1, id="just below a negative tie"),
        pytest.param(INT32_MAX, INT32_MAX, INT32_MAX - 1, id="largest product"),
        pytest.param(INT32_MIN, INT32_MAX, -INT32_MAX, id="most negative product"),
        pytest.param(INT32_MIN, INT32_MIN, INT32_MAX, id="the one case that saturates"),
        pytest.param(0, INT32_MAX, 0, id="zero"),
    ],
)
def test_doubling_high_mul_rounds_ties_up(a: int, b: int, expected: int) -> None:
    assert rounding_doubling_high_mul(a, b) == expected


@given(INT32, INT32)
def test_doubling_high_mul_is_the_exact_product_rounded(a: int, b: int) -> None:
    exact = half_up(Fraction(a * b, 1 << 31))

    assert rounding_doubling_high_mul(a, b) == min(exact, INT32_MAX)


@given(INT32, INT32)
def test_doubling_high_mul_is_gemmlowps_nudge_and_truncation(a: int, b: int) -> None:
    product = a * b
    nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
    truncated = math.trunc(Fraction(product + nudge, 1 << 31))

    assert rounding_doubling_high_mul(a, b) == min(truncated, INT32_MAX)


@pytest.mark.parametrize(
    ("x", "bits", "expected"),
    [
        pytest.param(5, 1, 3, id="tie, positive: away from zero"),
        pytest.param(-5, 1, -3, id="tie, negative: away from zero"),
        pytest.param(-6, 2, -2, id="minus one and a half"),
        pytest.param(-1, 1, -1, id="minus one half"),
        pytest.param(-5, 2, -1, id="below a tie"),
        pytest.param(-7, 2, -2, id="above a tie"),
        pytest.param(INT32_MIN, 31, -1, id="smallest by the largest shift"),
        pytest.param(INT32_MAX, 31, 1, id="largest by the largest shift"),
        pytest.param(1 << 30, 31, 1, id="one half by the largest shift"),
        pytest.param(-(1 << 30), 31, -1, id="minus one half by the largest shift"),
        pytest.param(INT32_MIN, 0, INT32_MIN, id="no shift"),
    ],
)
def test_shift_right_rounds_ties_away_from_zero(x: int, bits: int, expected: int) -> None:
    assert rounding_shift_right(x, bits) == expected


@given(INT32, st.integers(0, 31))
def test_shift_right_is_the_exact_quotient_rounded(x: int, bits: int) -> None:
    assert rounding_shift_right(x, bits) == half_away(Fraction(x, 1 << bits))


@given(INT32, MANTISSAS, st.integers(-31, 8))
def test_multiply_rounds_twice(x: int, mantissa: int, exponent: int) -> None:
    left, right = max(exponent, 0), max(-exponent, 0)
    shifted = int(wrap_int32(x << left))
    once = min(half_up(Fraction(shifted * mantissa, 1 << 31)), INT32_MAX)

    assert multiply(x, Multiplier(mantissa, exponent)) == half_away(Fraction(once, 1 << right))


def test_rounding_twice_is_not_rounding_once() -> None:
    """Why a real multiplier must not be applied in one step: 0.49999... first becomes 0.5, then 1."""
    m = Multiplier(mantissa=(1 << 30) - 1 + (1 << 30), exponent=-1)

    assert multiply(1, m) == 1
    assert half_away(Fraction(m.mantissa, 1 << 32)) == 0


@pytest.mark.parametrize(
    "x", [0, 1, -1, INT32_MAX, INT32_MIN, INT32_MAX + 1, INT32_MIN - 1, 1 << 32, -(1 << 40)]
)
def test_wrap_keeps_the_low_32_bits(x: int) -> None:
    wrapped = int(wrap_int32(x))

    assert INT32_MIN <= wrapped <= INT32_MAX
    assert (wrapped - x) % (1 << 32) == 0


# --- real numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("real", "mantissa", "exponent"),
    [
        pytest.param(0.0, 0, 0, id="zero"),
        pytest.param(1.0, 1 << 30, 1, id="one"),
        pytest.param(0.5, 1 << 30, 0, id="one half"),
        pytest.param(0.75, 3 << 29, 0, id="three quarters"),
        pytest.param(6.0, 3 << 29, 3, id="left shift"),
        pytest.param(1 - 2.0**-40, 1 << 30, 1, id="mantissa rounds up to two"),
        pytest.param(0.5 + 2.0**-32, (1 << 30) + 1, 0, id="tie of the mantissa: away from zero"),
        pytest.param(2.0**-32, 1 << 30, -31, id="smallest that is kept"),
        pytest.param(math.nextafter(2.0**-32, 0), 1 << 30, -31, id="rounds up to the smallest"),
        pytest.param(2.0**-33, 0, 0, id="too small"),
    ],
)
def test_a_real_number_is_stored_as_tflite_stores_it(real: float, mantissa: int, exponent: int) -> None:
    assert Multiplier.of(real) == Multiplier(mantissa, exponent)


@given(st.floats(2.0**-32, 2.0**20))
def test_a_stored_multiplier_is_within_half_a_unit(real: float) -> None:
    m = Multiplier.of(real)

    assert 1 << 30 <= m.mantissa < 1 << 31
    error = abs(Fraction(real) - Fraction(m.mantissa) * Fraction(2) ** (m.exponent - 31))
    assert error <= Fraction(2) ** (m.exponent - 32)
    assert m.left - m.right == m.exponent
    assert min(m.left, m.right) == 0


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0.5, 1),
        (-0.5, -1),
        (2.5, 3),
        (-2.5, -3),
        (0.49999999999999994, 0),
        (-0.49999999999999994, 0),
        (2.0**52 + 1, 2**52 + 1),
        (-(2.0**62), -(2**62)),
        (-0.0, 0),
    ],
)
def test_round_half_away_is_exact(x: float, expected: int) -> None:
    assert round_half_away(x) == expected


@given(st.floats(-1e15, 1e15))
def test_round_half_away_is_the_exact_value_rounded(x: float) -> None:
    assert round_half_away(x) == half_away(Fraction(x))


@pytest.mark.parametrize(
    ("activation", "scale", "zero_point", "expected"),
    [
        ("NONE", 0.1, 3, (-128, 127)),
        ("RELU", 0.1, 3, (3, 127)),
        ("RELU", 0.1, -128, (-128, 127)),
        ("RELU6", 0.1, 3, (3, 63)),
        ("RELU6", 0.01, 3, (3, 127)),
        ("RELU_N1_TO_1", 0.1, 3, (-7, 13)),
        ("RELU_N1_TO_1", 0.4, 0, (-3, 3)),  # 2.5 steps: a tie, away from zero on both sides
        ("RELU6", float(np.float32(6 / 2.5)), 0, (0, 3)),  # 6 / float32(2.4) is 2.5 only in float32
    ],
)
def test_activations_narrow_the_range(
    activation: str, scale: float, zero_point: int, expected: tuple[int, int]
) -> None:
    assert activation_range(activation, scale, zero_point, -128, 127) == expected


# --- the vectors of each target -------------------------------------------------------------------------

_POWERS = [sign * (1 << n) + d for n in range(31) for sign in (1, -1) for d in (-1, 0, 1)]
ACCUMULATORS = np.unique(
    [
        INT32_MIN,
        INT32_MIN + 1,
        INT32_MAX - 1,
        INT32_MAX,
        *_POWERS,
        *(3 * p for p in _POWERS if abs(p) < 1 << 29),
    ]
).astype(np.int32)
FACTORS = np.array([0, 1 << 30, (1 << 30) + 1, 0x5555_5555, 0x7FFF_FFFE, INT32_MAX], np.int32)


def pairs(a: Array, b: Array) -> tuple[Array, Array]:
    """Every element of `a` with every one of `b`, padded to whole vectors."""
    x, y = (v.ravel() for v in np.meshgrid(a, b))
    rest = -x.size % 8
    return np.append(x, x[:rest]), np.append(y, y[:rest])


def elementwise(isa: Isa, x: Array, m: Array, operation: Callable[[Any, Any], Any]) -> KernelRun:
    """y = operation(x, m), vector by vector."""

    def body(xs: Any, ms: Any, ys: Any) -> None:
        with loop(x.size // isa.lanes) as k:
            at = k * isa.lanes
            store(ys, at, operation(load(xs, at, isa.lanes), load(ms, at, isa.lanes)), isa.lanes)

    params = [Param("x", "int32", x.size), Param("m", str(m.dtype), x.size), Param("y", "int32", x.size)]
    return KernelRun(function("kernel", params, body), (x, m), np.empty(x.shape, np.int32))


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_vectors_round_as_the_formulas_say(cpu: str) -> None:
    """Every power of two and its neighbours, with every shift from 0 to 31 or six mantissas."""
    isa = ISAS[cpus.load(cpu).isa]
    x, n = pairs(ACCUMULATORS, np.arange(32, dtype=np.int32))
    encoded = np.array([isa.encode_right(int(bits)) for bits in n], np.int32)
    a, m = pairs(ACCUMULATORS, FACTORS)
    wide, bits = x.astype(np.int64), n.astype(np.int64)
    expected = {
        "mul_high_round": (elementwise(isa, a, m, isa.mul_high_round), rounding_doubling_high_mul(a, m)),
        "shift_left": (elementwise(isa, x, n, isa.shift_left), wrap_int32(wide << bits)),
        "ties_up": (elementwise(isa, x, encoded, isa.shift_right_ties_up), ties_up(x, n)),
        "ties_away": (elementwise(isa, x, encoded, isa.shift_right_ties_away), rounding_shift_right(x, n)),
    }

    found = results([run for run, _ in expected.values()], cpu)
    for (name, (_, wanted)), got in zip(expected.items(), found, strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=name)


def ties_up(x: npt.ArrayLike, n: npt.ArrayLike) -> Array:
    """floor(x / 2**n + 1/2)."""
    bits = np.asarray(n, np.int64)
    return (np.asarray(x, np.int64) + ((1 << bits) >> 1)) >> bits


SCALES = (0.5, 0.25, 2.0**-20, 1 / 3, 0.1, 0.49999999999999994, 2.0**-31, 0.9999999999)


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_vectors_scale_in_float64_with_ties_away_from_zero(cpu: str) -> None:
    isa = ISAS[cpus.load(cpu).isa]
    x, _ = pairs(ACCUMULATORS, np.zeros(1, np.int32))

    def by(scale: float) -> Callable[[Any, Any], Any]:
        return lambda v, _: isa.scale_float64(v, T.broadcast(T.float64(scale), isa.lanes))

    found = results([elementwise(isa, x, x, by(scale)) for scale in SCALES], cpu)
    for scale, got in zip(SCALES, found, strict=True):
        wanted = [round_half_away(float(a) * scale) for a in x]
        np.testing.assert_array_equal(got, wanted, err_msg=f"scale {scale}")


def test_ties_up_differs_from_ties_away_exactly_at_negative_ties() -> None:
    """Negative control of the tests above, and the fact that `Requant.negative_ties_show` relies on."""
    x, n = pairs(ACCUMULATORS, np.arange(32, dtype=np.int32))
    difference = ties_up(x, n) - rounding_shift_right(x, n)
    tie = (n > 0) & (x % (1 << n.astype(np.int64)) == (1 << n.astype(np.int64)) >> 1)

    np.testing.assert_array_equal(difference, np.where((x < 0) & tie, 1, 0))
    assert difference.any()
    assert (ties_up(x, n)[difference == 1] <= 0).all()


REQUANTS = {
    "no activation": Requant(Rounding.GEMMLOWP, 5, -128, 127),
    "RELU hides negative ties": Requant(Rounding.GEMMLOWP, 5, 5, 127),
    "RELU_N1_TO_1": Requant(Rounding.GEMMLOWP, -3, -40, 34),
    "left shift": Requant(Rounding.GEMMLOWP, 0, -128, 127, left=True),
    "clamped above": Requant(Rounding.GEMMLOWP, -128, -128, 20),
}


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_requantization_gives_the_formula_after_the_clamp(cpu: str) -> None:
    """Accumulators around ties, four multipliers, through rounding, zero point, saturation and clamp."""
    isa = ISAS[cpus.load(cpu).isa]
    x = np.concatenate([np.arange(-2048, 2048), ACCUMULATORS[: ACCUMULATORS.size // 8 * 8]]).astype(np.int32)
    cases = [
        (replace(requant, right=right), m)
        for requant in REQUANTS.values()
        for m in (Multiplier(1 << 30, -3), Multiplier(0x5A5A_5A5A, -7), Multiplier(1 << 30, 1))
        for right in ((0, 31), (1, 31), (m.right, m.right))
        if bool(m.left) <= requant.left and right[0] <= m.right
    ]

    found = results([requantized(isa, x, requant, m) for requant, m in cases], cpu)
    for (requant, m), got in zip(cases, found, strict=True):
        shifted = multiply(x, m) + requant.zero_point
        wanted = np.clip(shifted, requant.clamp_min, requant.clamp_max)
        np.testing.assert_array_equal(got, wanted, err_msg=f"{requant} {m}")


ROUNDED_TWICE = (
    0.006628788076341152  # times 1584: a tie in float32 only, so one rounding gives another result
)


@pytest.mark.qemu
@pytest.mark.parametrize("raised", [False, True])
def test_sums_are_converted_and_rounded_by_additions_as_by_conversions(raised: bool) -> None:
    """Sums at both ends of 22 bits and around zero; results to the ends of 16 bits; ties of both signs."""
    isa = ISAS["neon"]
    around = np.arange(-2048, 2048)
    end = (1 << 22) - 1
    x = np.concatenate([around, np.arange(end - 2047, end + 1), np.arange(-end, 2048 - end), around * 1021])
    requant = Requant(Rounding.FLOAT32, -77, -128, 127, fits16=True, raised=raised)
    given = (x + RAISED if raised else x).astype(np.int32)
    factors = [
        np.float32(f) for f in (0.0078, 2.0**-8, ROUNDED_TWICE, 3 * 2.0**-9, 2.0**-15, 1 / 3 * 2.0**-13)
    ]

    found = results([requantized(isa, given, requant, f) for f in factors], "cortex-a76")
    for factor, got in zip(factors, found, strict=True):
        scaled = np.rint(x.astype(np.float32) * factor).astype(np.int64)
        np.testing.assert_array_equal(got, np.clip(scaled - 77, -128, 127), err_msg=str(factor))


def requantized(isa: Isa, x: Array, requant: Requant, m: Multiplier | np.float32) -> KernelRun:
    """Eight accumulators at a time to int8."""
    if isinstance(m, Multiplier):
        values = {"mantissa": m.mantissa, "right": isa.encode_right(m.right), "left": m.left}
        constants = {name: isa.fill(value) for name, value in values.items()}
    else:
        constants = {"factor": T.broadcast(T.float32(float(m)), isa.lanes)}

    def body(xs: Any, ys: Any) -> None:
        with loop(x.size // 8) as k:
            q = [
                requantize(
                    isa,
                    load(xs, k * 8 + i, isa.lanes),
                    requant,
                    constants.__getitem__,
                    shifted=not isa.narrow_shifts,
                )
                for i in range(0, 8, isa.lanes)
            ]
            limits = [requant.zero_point, requant.clamp_min, requant.clamp_max]
            limits += [requant.common_right, requant.fits16] if isa.narrow_shifts else []
            store(ys, k * 8, isa.narrow8(q, *limits), 8)

    params = [Param("x", "int32", x.size), Param("y", "int8", x.size)]
    return KernelRun(function("kernel", params, body), (x,), np.empty(x.shape, np.int8))


@pytest.mark.parametrize(
    ("clamp_min", "zero_point", "show"), [(-128, 5, True), (5, 5, False), (6, 5, False), (4, 5, True)]
)
def test_negative_ties_show_only_below_the_zero_point(clamp_min: int, zero_point: int, show: bool) -> None:
    assert Requant(Rounding.GEMMLOWP, zero_point, clamp_min, 127).negative_ties_show is show
