"""Proves that a cheaper requantization gives the same bytes for every accumulator that a channel can reach.

The exact step (doubling-high-mul, then a shift) and its replacement in float32,

    truncated(fma(float32(acc), factor, addend))               addend with the sign of acc where `signed`

never fall as acc grows. After the clamp at most 255 steps are left, and the first accumulator T of each step
is known in closed form. So two looks a step prove all accumulators: at T the replacement has reached it,
at T - 1 it has not; at the ends of what the channel reaches where T lies beyond them. `factor` is sought
among the float32 next to the multiplier, `addend`, of which a half is part, in the middle of what the steps
allow. Where none does for all steps, up to MOST_FIXES accumulators of a channel may be off by one and are
mended by comparison.

Truncated, because float32 rounds a sum up to the next whole number, of whichever sign, from half a unit of
the last place below it on: a distance that hardly changes from step to step, so that the addend makes up for
it. Rounded to even, a sum next to k + 1/2 would go up at odd k and down at even k: 46 of the int8 MobileNet
V2's layers would have channels to mend instead of 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product as pairs
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.compiler.fixedpoint import CONSTANTS, MOST_FIXES, RAISED, Requant, Rounding
from pilite.compiler.spec import Arrays, QConv2D, QDepthwiseConv2D

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Sums: TypeAlias = QConv2D | QDepthwiseConv2D

NEIGHBOURS = (0, 1, -1, 2, -2, 3, -3, 4, -4)  # float32 steps from the multiplier
# (bounds ignored below, above, neighbour): exceptions only where no factor does without
TRIES = tuple(
    (below, above, neighbour)
    for count in range(MOST_FIXES + 1)
    for neighbour, below in pairs(NEIGHBOURS, range(count + 1))
    for above in (count - below,)
)
PARTS = (Rounding.GEMMLOWP, Rounding.RNDNU, Rounding.TIES_UP, Rounding.SINGLE)
REALS = (Rounding.FLOAT64, Rounding.FLOAT32)
INT32 = 1 << 31
INT16_LIMIT = (1 << 15) - 8  # all roundings together move a result by less than 8
CONVERTED = INT32 - 2048  # sums from here on, times a factor just above 1, may leave int32 as float32
UNREACHED = -INT32  # an accumulator that no channel reaches: `reach` would have to be exhausted for it


@dataclass(frozen=True, eq=False)
class Channels:
    """GEMMLOWP constants and the accumulators, bias included, that the channels reach: `low` to `high`."""

    mantissa: Int64
    right: Int64
    low: Int64
    high: Int64

    def first(self, step: npt.NDArray[np.int64], ties_up: bool) -> Int64:
        """The least acc whose result is at least `step`; (channels, steps).

        A shift gives k from x = k * 2**r - 2**(r-1) on, one later where the tie of a k <= 0 goes away from
        zero. The product floor((acc * m + 2**30) / 2**31) gives x from ceil((x * 2**31 - 2**30) / m) on.
        """
        r = self.right[:, None]
        half = (np.int64(1) << r) >> 1
        x = (step << r) - half + (np.int64(0) if ties_up else (r > 0) & (step <= 0))
        numerator = np.clip(x, -INT32, INT32) * INT32 - (1 << 30)
        m = self.mantissa[:, None]
        never = np.where(step > 0, INT32, -INT32)  # of a multiplier 0, whose results are all 0
        first: Int64 = np.where(m > 0, -(-numerator // np.maximum(m, 1)), never)
        return first


def reach(weight: npt.ArrayLike, bias: npt.ArrayLike) -> tuple[Int64, Int64] | None:
    """Least and largest accumulator of each channel for x in [-128, 127]; None if int32 might wrap.

    weight: (channels, anything), bias: (channels,), zero points folded in.
    """
    w, b = np.asarray(weight, np.int64), np.asarray(bias, np.int64)
    up, down = np.maximum(w, 0).sum(1), np.minimum(w, 0).sum(1)
    low, high = b - 128 * up + 127 * down, b + 127 * up - 128 * down
    inside = low.min(initial=0) >= -INT32 and high.max(initial=0) < INT32
    return (low, high) if inside else None


@dataclass(frozen=True, eq=False)
class Steps:
    """What has to hold: among the accumulators that a channel reaches, `reached` is the first whose result is
    `value` or more, and `before` the last whose is not; `some` and `others` say whether there are such.
    """

    value: Int64  # (steps,)
    reached: Int64  # (channels, steps), as all that follow
    before: Int64
    some: Bools
    others: Bools
    signed: bool

    @staticmethod
    def to(value: Int64, channels: Channels, signed: bool) -> Steps:
        low, high = channels.low[:, None], channels.high[:, None]
        first = channels.first(value[None, :], not signed)
        return Steps(
            value, np.maximum(first, low), np.minimum(first - 1, high), first <= high, first > low, signed
        )

    @property
    def edge(self) -> Float64:
        """The least real number without sign that float32 rounds to the step's whole number, or above."""
        whole = np.where(self.value > 0, self.value, 1 - self.value).astype(np.float32)
        below = np.nextafter(whole, np.float32(0))
        edge: Float64 = (whole.astype(np.float64) + below.astype(np.float64)) / 2
        return edge

    def of(self, channels: Bools) -> Steps:
        reached, before = self.reached[channels], self.before[channels]
        return Steps(self.value, reached, before, self.some[channels], self.others[channels], self.signed)


@dataclass(frozen=True, eq=False)
class Fused:
    """Constants of the replacement, by channel: see `Rounding.FUSED`."""

    factor: Float32
    addend: Float32
    at: Int64  # (MOST_FIXES, channels): accumulators that are off by one; UNREACHED where there is none
    by: Int64  # what has to be added there

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        fixes = {
            f"{n}{i}": v[i].astype(np.int32)
            for n, v in (("at", self.at), ("by", self.by))
            for i in range(MOST_FIXES)
        }
        return {"factor": self.factor, "addend": self.addend, **fixes}

    @property
    def fixes(self) -> int:
        return int(np.count_nonzero(self.by, axis=0).max(initial=0))


def reach_of(spec: Sums, arrays: Arrays) -> tuple[Int64, Int64] | None:
    """`reach` of an operator's channels."""
    weight = np.asarray(arrays["weight"])
    rows = (
        weight.reshape(-1, weight.shape[-1]).T
        if isinstance(spec, QDepthwiseConv2D)
        else weight.reshape(len(weight), -1)
    )
    return reach(rows, arrays["bias"])


def multipliers(requant: Requant, arrays: Arrays) -> Float64:
    """What sums are multiplied by: one of REALS or, of PARTS, mantissa * 2**(left - right - 31)."""
    first = np.asarray(arrays[CONSTANTS[requant.rounding].names[0]], np.float64)
    if requant.rounding in REALS:
        return first
    shift = np.asarray(arrays["left"], np.int64) - np.asarray(arrays["right"], np.int64)
    return np.ldexp(first, shift - 31)


def bounded(spec: Sums, arrays: Arrays) -> tuple[Sums, Arrays]:
    """The same operator with `Requant.fits16`, if no reachable accumulator leaves int16 once it is scaled.

    With float32 factors also `raised`, if accumulators stay within 2**22.
    """
    bounds = reach_of(spec, arrays)
    if bounds is None or spec.requant.rounding not in (*REALS, *PARTS):
        return spec, arrays
    largest = np.maximum(np.abs(bounds[0]), np.abs(bounds[1]))
    scaled = largest * multipliers(spec.requant, arrays)
    requant = replace(spec.requant, fits16=bool(scaled.max(initial=0) < INT16_LIMIT))
    if requant.rounding is Rounding.FLOAT32 and largest.max(initial=0) < 1 << 22:
        bias = np.asarray(arrays["bias"], np.int32) + np.int32(RAISED)
        return replace(spec, requant=replace(requant, raised=True)), {**arrays, "bias": bias}
    return replace(spec, requant=requant), arrays


def cheaper(spec: Sums, arrays: Arrays) -> tuple[Sums, Arrays]:
    """The same operator with the fused requantization, if it is proved equal; else as it is."""
    bounds = reach_of(spec, arrays)
    if bounds is None or spec.requant.rounding is not Rounding.GEMMLOWP or spec.requant.left:
        return spec, arrays
    if max(bounds[1].max(initial=0), -bounds[0].min(initial=0)) >= CONVERTED:
        return spec, arrays
    found = fused(spec.requant, arrays["mantissa"], arrays["right"], bounds)
    if found is None:
        return spec, arrays
    requant = replace(spec.requant, rounding=Rounding.FUSED, fixes=found.fixes)
    return replace(spec, requant=requant), {**arrays, **found.arrays()}


def fused(
    requant: Requant, mantissa: npt.ArrayLike, right: npt.ArrayLike, bounds: tuple[Int64, Int64]
) -> Fused | None:
    """Constants proved equal to `requant` with GEMMLOWP rounding; None if some channel has none.

    First without exceptions, then with more and more accumulators that are mended one by one.
    """
    channels = Channels(np.asarray(mantissa, np.int64), np.asarray(right, np.int64), *bounds)
    value = np.arange(requant.clamp_min + 1, requant.clamp_max + 1) - requant.zero_point
    steps = Steps.to(value, channels, requant.negative_ties_show)
    real = np.ldexp(channels.mantissa.astype(np.float64), -31 - channels.right)
    found = Fused(
        np.zeros(len(real), np.float32),
        np.zeros(len(real), np.float32),
        np.full((MOST_FIXES, len(real)), UNREACHED),
        np.zeros((MOST_FIXES, len(real)), np.int64),
    )
    unsolved = np.ones(len(real), bool)
    for below, above, neighbour in TRIES:
        if unsolved.any():
            _try(found, unsolved, steps.of(unsolved), _neighbour(real[unsolved], neighbour), (below, above))
    return None if unsolved.any() else found


def _try(found: Fused, unsolved: Bools, steps: Steps, factor: Float32, ignored: tuple[int, int]) -> None:
    """One factor and addend for every unsolved channel; those that hold are solved."""
    addend = _middle(factor, steps, ignored)
    low, high = _faults(factor, addend, steps)
    rises = addend >= -factor / 2 if steps.signed else np.ones(len(factor), bool)  # across zero
    count = (low == 1).sum(1) + (high == 1).sum(1)
    good = rises & ~(low == 2).any(1) & ~(high == 2).any(1) & (count <= sum(ignored))
    index = np.flatnonzero(unsolved)[good]
    found.factor[index], found.addend[index] = factor[good], addend[good]
    for row, channel in zip(np.flatnonzero(good), index, strict=True):
        at = [(steps.reached[row, k], 1) for k in np.flatnonzero(low[row])]
        at += [(steps.before[row, k], -1) for k in np.flatnonzero(high[row])]
        for i, (acc, by) in enumerate(at):
            found.at[i, channel], found.by[i, channel] = acc, by
    unsolved[index] = False


def _neighbour(real: Float64, distance: int) -> Float32:
    """The float32 that many steps from the nearest one of `real`; 0 stays 0."""
    bits = real.astype(np.float32).view(np.int32) + np.int32(distance)
    return np.where(real > 0, bits.view(np.float32), np.float32(0))


def _middle(factor: Float32, steps: Steps, ignored: tuple[int, int]) -> Float32:
    """The middle of the addends that the steps allow, the tightest few bounds on both sides ignored.

    Without signs: of the accumulators on both sides of a step the larger one, A, reaches it and B does not,
    so A * f + a >= edge > B * f + a. One of the other sign, or 0 for a step below, never reaches it
    with an addend in [0, 1).
    """
    f = factor[:, None].astype(np.float64)
    up = steps.value > 0
    least = steps.edge - np.where(up, steps.reached, -steps.before) * f
    most = steps.edge - np.where(up, steps.before, -steps.reached) * f
    other = np.where(up, steps.signed & (steps.before < 0), steps.reached >= 0)
    low = -_ranked(np.where(np.where(up, steps.some, steps.others), -least, np.inf), ignored[0])
    high = _ranked(np.where(np.where(up, steps.others, steps.some) & ~other, most, np.inf), ignored[1])
    if steps.signed:
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
    low, high = np.where(np.isinf(low), high - 1.0, low), np.where(np.isinf(high), low + 1.0, high)
    both = np.isfinite(low) & np.isfinite(high)
    return (np.where(both, low, 0.0) / 2 + np.where(both, high, 0.0) / 2).astype(np.float32)


def _ranked(values: Float64, rank: int) -> Float64:
    """The smallest value of each row but `rank`."""
    if values.shape[1] <= rank:
        return np.full(len(values), np.inf)
    ranked: Float64 = np.partition(values, rank, axis=1)[:, rank]
    return ranked


def _faults(factor: Float32, addend: Float32, steps: Steps) -> tuple[Int64, Int64]:
    """For every step by how many accumulators the result comes late or early: 0, 1 or, for more, 2.

    One that is wrong by more than one counts as more, too: float32 may hold several accumulators as one.
    """
    f, a = factor[:, None], addend[:, None]

    def result(acc: Int64) -> Float64:
        return scaled(acc, f, a, steps.signed)

    first, last = result(steps.reached), result(steps.before)
    late, early = (first < steps.value) & steps.some, (last >= steps.value) & steps.others
    low, high = late.astype(np.int64), early.astype(np.int64)
    if late.any():
        low += late & ((first < steps.value - 1) | (result(steps.reached + 1) < steps.value))
    if early.any():
        high += early & ((last > steps.value) | (result(steps.before - 1) >= steps.value))
    return low, high


def scaled(acc: Int64, factor: npt.ArrayLike, addend: npt.ArrayLike, signed: bool) -> Float64:
    """truncated(fma(float32(acc), factor, addend)); the sum is rounded once, as fused instructions do.

    The product of two float32 is exact in float64. The sum is rounded to odd there (its lost part is known by
    Knuth's TwoSum), after which rounding to float32 is right: 53 >= 24 + 2 bits.
    """
    x = np.asarray(acc, np.float64).astype(np.float32)
    a = np.asarray(addend, np.float64)
    a = np.where(np.asarray(acc) < 0, -a, a) if signed else a
    product = x.astype(np.float64) * np.asarray(factor, np.float64)
    total: Float64 = np.atleast_1d(product + a)
    back = total - product
    lost = (product - (total - back)) + (a - back)
    even = (total.view(np.int64) & 1) == 0
    toward = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    odd = np.where((lost != 0) & even, toward, total)
    return np.trunc(odd.astype(np.float32).astype(np.float64))
