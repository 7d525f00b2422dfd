"""The fused requantization against the exact one, on every accumulator that random channels reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pilite.compiler import prove
from pilite.compiler.fixedpoint import (
    MOST_FIXES,
    RAISED,
    Multiplier,
    Requant,
    Rounding,
    rounding_doubling_high_mul,
    rounding_shift_right,
)
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QConv2D
from tests.samples import REQUANT, conv

Array = npt.NDArray[Any]


def exact(acc: Array, mantissa: int, right: int) -> Array:
    return rounding_shift_right(rounding_doubling_high_mul(acc, mantissa), right)


def computed(found: prove.Fused, channel: int, acc: Array, signed: bool) -> Array:
    """What the kernel computes: fma, truncate, mend."""
    q = prove.scaled(acc, found.factor[channel], found.addend[channel], signed)
    for i in range(found.fixes):
        q = np.where(acc == found.at[i, channel], q + found.by[i, channel], q)
    return q


def draw(rng: np.random.Generator, channels: int) -> tuple[Requant, Array, Array, Array]:
    """A requantization, mantissas, shifts, and how far accumulators go to both sides."""
    zero_point = int(rng.integers(-128, 128))
    low = zero_point if rng.integers(2) else -128
    requant = Requant(Rounding.GEMMLOWP, zero_point, low, 127)
    mantissa = rng.integers(1 << 30, 1 << 31, channels)
    return requant, mantissa, rng.integers(0, 14, channels), rng.integers(100, 60_000, channels)


@pytest.mark.parametrize("seed", range(24))
def test_fused_constants_give_the_exact_bytes_for_every_reachable_accumulator(seed: int) -> None:
    requant, mantissa, right, span = draw(np.random.default_rng(seed), 8)
    for channel in range(8):
        one = slice(channel, channel + 1)
        found = prove.fused(requant, mantissa[one], right[one], (-span[one], span[one]))
        if found is None:
            continue
        acc = np.arange(-span[channel], span[channel] + 1)
        clamps = (requant.clamp_min - requant.zero_point, requant.clamp_max - requant.zero_point)
        right_bytes = np.clip(exact(acc, int(mantissa[channel]), int(right[channel])), *clamps)
        got = np.clip(computed(found, 0, acc, requant.negative_ties_show), *clamps)
        np.testing.assert_array_equal(got, right_bytes)


@pytest.mark.parametrize("seed", range(24))
def test_fused_constants_hold_at_the_ends_of_what_a_channel_reaches(seed: int) -> None:
    """Channels that reach few results, or one; anywhere, also where all of it is clamped."""
    rng = np.random.default_rng(seed)
    requant, mantissa, right, _ = draw(rng, 100)
    low: prove.Int64 = rng.integers(-300, 300, 100) << rng.integers(0, right + 1)
    high: prove.Int64 = low + (rng.integers(0, 4, 100) << rng.integers(0, right + 1))
    clamps = (requant.clamp_min - requant.zero_point, requant.clamp_max - requant.zero_point)
    solved = 0
    for channel in range(100):
        one = slice(channel, channel + 1)
        found = prove.fused(requant, mantissa[one], right[one], (low[one], high[one]))
        if found is None:
            continue
        acc = np.arange(low[channel], high[channel] + 1)
        wanted = np.clip(exact(acc, int(mantissa[channel]), int(right[channel])), *clamps)
        got = np.clip(computed(found, 0, acc, requant.negative_ties_show), *clamps)
        np.testing.assert_array_equal(got, wanted)
        solved += 1
    assert solved >= 95


@pytest.mark.parametrize(
    ("zero_point", "clamp", "mantissa", "right", "reach"),
    [
        (-48, (-35, -34), 1247109412, 1, (112727988, 112727992)),
        (57, (63, 64), 1047384493, 0, (164722856, 164722865)),
    ],
)
def test_sums_that_float32_cannot_tell_apart_are_not_mended_by_one(
    zero_point: int, clamp: tuple[int, int], mantissa: int, right: int, reach: tuple[int, int]
) -> None:
    """Beyond 2**24 several sums are one float32: the first of a step may be wrong by more than one."""
    requant = Requant(Rounding.GEMMLOWP, zero_point, *clamp)
    low, high = (np.array([end]) for end in reach)
    found = prove.fused(requant, [mantissa], [right], (low, high))
    acc = np.arange(reach[0], reach[1] + 1)
    clamps = clamp[0] - zero_point, clamp[1] - zero_point
    if found is not None:
        got = np.clip(computed(found, 0, acc, requant.negative_ties_show), *clamps)
        np.testing.assert_array_equal(got, np.clip(exact(acc, mantissa, right), *clamps))


def test_an_operator_whose_result_may_leave_int32_as_float32_stays_as_it_is() -> None:
    """The conversion of 2**31 has no meaning."""
    sample = conv(6, -127, replace(REQUANT, left=False))
    assert isinstance(sample.spec, QConv2D)
    _, high = prove.reach_of(sample.spec, sample.arrays) or ([], [])
    for room, rounding in ((2048, Rounding.GEMMLOWP), (2049, Rounding.FUSED)):
        bias = np.array(sample.arrays["bias"], np.int32)
        bias[0] += 2**31 - room - high[0]
        arrays = {**sample.arrays, "bias": bias, "mantissa": np.full(16, 1 << 30), "right": np.full(16, 24)}
        assert prove.cheaper(sample.spec, arrays)[0].requant.rounding is rounding


def test_most_channels_have_fused_constants() -> None:
    """Without this the test above could pass by finding nothing."""
    rng = np.random.default_rng(99)
    found = 0
    for _ in range(50):
        requant, mantissa, right, span = draw(rng, 1)
        found += prove.fused(requant, mantissa, right, (-span, span)) is not None
    assert found >= 45


def test_hardly_a_channel_needs_mending() -> None:
    """Of channels as those of MobileNets: results over all of int8 from shifts of 6 to 10 bits."""
    rng = np.random.default_rng(7)
    mantissa, right = rng.integers(1 << 30, 1 << 31, 1000), rng.integers(6, 11, 1000)
    span = (rng.uniform(1.0, 8.0, 1000) * 128 * 2.0**right).astype(np.int64)
    for zero_point, low in ((-128, -128), (3, -128)):
        requant = Requant(Rounding.GEMMLOWP, zero_point, low, 127)
        solved = [
            prove.fused(requant, mantissa[c : c + 1], right[c : c + 1], (-span[c : c + 1], span[c : c + 1]))
            for c in range(1000)
        ]
        assert sum(found is None or found.fixes > 0 for found in solved) <= 25  # rounded to even: 207


def test_the_naive_constants_are_wrong_somewhere() -> None:
    """Negative control: the multiplier itself and a half, as one would write without a proof."""
    wrong = 0
    for seed in range(24):
        requant, mantissa, right, span = draw(np.random.default_rng(seed), 1)
        acc = np.arange(-span[0], span[0] + 1)
        real = np.float32(np.ldexp(float(mantissa[0]), -31 - int(right[0])))
        naive = prove.scaled(acc, real, np.float32(0.5), signed=requant.negative_ties_show)
        clamps = (requant.clamp_min - requant.zero_point, requant.clamp_max - requant.zero_point)
        wrong += bool(
            (np.clip(naive, *clamps) != np.clip(exact(acc, int(mantissa[0]), int(right[0])), *clamps)).any()
        )
    assert wrong >= 12


@pytest.mark.parametrize("ties_up", [False, True])
@pytest.mark.parametrize("right", [0, 1, 7, 22, 31])
def test_the_first_accumulator_of_a_step_is_found_in_closed_form(right: int, ties_up: bool) -> None:
    rng = np.random.default_rng(right)
    mantissa = rng.integers(1 << 30, 1 << 31, 4)
    ends = np.full(4, 1 << 20)
    channels = prove.Channels(mantissa, np.full(4, right), -ends, ends)
    steps = np.arange(-255, 256)
    for channel, first in enumerate(channels.first(steps[None, :], ties_up)):
        for step, acc in zip(steps, first, strict=True):
            if abs(acc) >= 2**31 - 1:
                continue
            around = np.array([acc - 1, acc])
            product = rounding_doubling_high_mul(around, int(mantissa[channel]))
            shifted = (
                (product + ((1 << right) >> 1)) >> right if ties_up else rounding_shift_right(product, right)
            )
            assert shifted[0] < step <= shifted[1]


def test_the_emulated_fused_sum_is_rounded_once() -> None:
    """Against exact fractions, with addends far below the last bit of the product."""
    rng = np.random.default_rng(5)
    acc = rng.integers(-(2**31), 2**31, 2000)
    factor = rng.random(2000).astype(np.float32) * np.float32(2.0**-22)
    addend = (rng.normal(0, 1, 2000) * 2.0 ** rng.integers(-60, 2, 2000)).astype(np.float32)
    got = prove.scaled(acc, factor, addend, signed=False)
    for a, f, d, q in zip(acc, factor, addend, got, strict=True):
        total = Fraction(float(np.float32(a))) * Fraction(float(f)) + Fraction(float(d))
        assert q == np.trunc(np.float64(_nearest32(total)))


def _nearest32(value: Fraction) -> np.float32:
    """The float32 nearest to a fraction; its neighbours are compared exactly."""
    start = np.float32(float(value))
    near = [start, np.nextafter(start, np.float32(np.inf)), np.nextafter(start, np.float32(-np.inf))]
    return min(near, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.int32)) & 1))


def test_an_operator_whose_accumulator_may_wrap_stays_as_it_is() -> None:
    sample = conv(6, -127, replace(REQUANT, left=False))
    arrays = {**sample.arrays, "bias": np.full(16, 2**31 - 1, np.int32)}
    assert isinstance(sample.spec, QConv2D)
    assert isinstance(sample.y, Layout)
    assert prove.cheaper(sample.spec, arrays) == (sample.spec, arrays)


def scaled_by(rounding: Rounding, arrays: Mapping[str, Array], channel: int, acc: Array) -> Array:
    """The results of one channel before the zero point, by the formulas of fixedpoint.py."""
    if rounding is Rounding.FLOAT64:
        return np.asarray(np.rint(acc * arrays["scale"][channel]))
    left, right = int(arrays["left"][channel]), int(arrays["right"][channel])
    return exact(acc << left, int(arrays["mantissa"][channel]), right)


@pytest.mark.parametrize("rounding", [Rounding.GEMMLOWP, Rounding.FLOAT64])
@pytest.mark.parametrize("seed", range(8))
def test_what_fits_16_bits_does_for_every_reachable_accumulator(seed: int, rounding: Rounding) -> None:
    rng = np.random.default_rng(seed)
    sample = conv(6, -127, replace(REQUANT, rounding=rounding))
    assert isinstance(sample.spec, QConv2D)
    low, high = prove.reach_of(sample.spec, sample.arrays) or ((), ())
    said = set()
    for most in (*rng.uniform(30_000, 35_000, 8), 32_700.0, 32_900.0):  # the largest result of any channel
        real = most * rng.uniform(0.5, 1.0, 16) / np.maximum(np.abs(low), np.abs(high))
        parts = [Multiplier.of(float(m)).constants for m in real]
        arrays = {**sample.arrays, "scale": real}
        arrays |= {name: np.array([part[name] for part in parts]) for name in ("mantissa", "right", "left")}
        spec, _ = prove.bounded(sample.spec, arrays)
        ends = [scaled_by(rounding, arrays, c, np.array([low[c], high[c]])) for c in range(16)]
        said.add(spec.requant.fits16)
        if spec.requant.fits16:
            assert np.abs(ends).max() < 1 << 15
    assert said == {True, False}


def test_an_operator_whose_accumulator_may_wrap_does_not_fit_16_bits() -> None:
    sample = conv(6, -127, REQUANT)
    assert isinstance(sample.spec, QConv2D)
    assert prove.bounded(sample.spec, sample.arrays)[0].requant.fits16

    arrays = {**sample.arrays, "bias": np.full(16, 2**31 - 1, np.int32)}
    assert not prove.bounded(sample.spec, arrays)[0].requant.fits16


@pytest.mark.parametrize("beyond", [False, True])
def test_sums_of_22_bits_are_raised_by_their_bias_and_no_others(beyond: bool) -> None:
    sample = conv(6, -127, replace(REQUANT, rounding=Rounding.FLOAT32))
    assert isinstance(sample.spec, QConv2D)
    bias = np.array(sample.arrays["bias"], np.int32)
    _, high = prove.reach_of(sample.spec, sample.arrays) or ([], [])
    bias[0] += (1 << 22) - 1 - high[0] + beyond
    given = {**sample.arrays, "bias": bias, "factor": np.full(16, 2.0**-12, np.float32)}

    spec, arrays = prove.bounded(sample.spec, given)
    assert spec.requant.fits16
    assert spec.requant.raised is not beyond
    np.testing.assert_array_equal(np.asarray(arrays["bias"], np.int32) - bias, 0 if beyond else RAISED)


def test_nothing_is_said_of_a_rounding_with_other_constants() -> None:
    sample = conv(6, -127, replace(REQUANT, rounding=Rounding.RNDNU16))
    assert isinstance(sample.spec, QConv2D)
    assert prove.bounded(sample.spec, sample.arrays) == (sample.spec, sample.arrays)


def test_a_proved_operator_says_so_and_brings_its_constants() -> None:
    sample = conv(6, -127, replace(REQUANT, left=False, clamp_min=REQUANT.zero_point))
    assert isinstance(sample.spec, QConv2D)
    spec, arrays = prove.cheaper(sample.spec, sample.arrays)
    assert spec.requant.rounding is Rounding.FUSED
    assert spec.requant.fixes <= MOST_FIXES
    assert {*spec.requant.operands} <= {*arrays}
