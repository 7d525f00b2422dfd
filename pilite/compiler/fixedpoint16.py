"""Sigmoid and tanh of gemmlowp's 16-bit fixed point, for every int16 value: what an LSTM's gates use.

A value with i integer bits is raw * 2**(i - 15). Numbers are int64, wrapped or saturated as gemmlowp's int16
is. Source: gemmlowp fixedpoint/fixedpoint.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pilite.compiler.fixedpoint import Int64, Multiplier, round_half_away, rounding_shift_right

INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1
EVERY_INT16 = np.arange(INT16_MIN, INT16_MAX + 1, dtype=np.int64)
GATE_INTEGER_BITS = 3  # of a gate before its function: Q3.12


def sigmoid(integer_bits: int) -> Int64:
    """1 / (1 + e**-x) as Q0.15."""
    x = EVERY_INT16
    positive = _reciprocal(_exp(-np.abs(x), integer_bits)) << 1
    above = saturated(positive)
    result = np.where(x > 0, above, wrapped(INT16_MAX - above))
    return np.where(x == 0, 1 << 14, result)


def tanh(integer_bits: int) -> Int64:
    """(1 - e**-2x) / (1 + e**-2x) as Q0.15; doubling moves the point, not the bits."""
    x = EVERY_INT16
    size = saturated(wrapped(_reciprocal(_exp(-np.abs(x), integer_bits + 1)) - (1 << 13)) << 2)
    return np.where(x == 0, 0, np.where(x < 0, wrapped(-size), size))


def reduced(real: float) -> tuple[int, int]:
    """(mantissa, right) of 16 bits: x * real = (x * mantissa + 2**(right - 1)) >> right, for 64-bit x.

    TFLite's MultiplyByQuantizedMultiplier of an int64.
    """
    m = Multiplier.of(real)
    mantissa = (m.mantissa + (1 << 15)) >> 16 if m.mantissa < 0x7FFF0000 else INT16_MAX
    return mantissa, 15 - m.exponent


# --- LOGISTIC and TANH of 16-bit values: kernels/activations.cc, integer_ops/logistic.h and tanh.h ---------

NODES = 256  # of the table, which holds sigmoid(i / 24) as Q0.16
# Where TFLite's table is one above the nearest.
RAISED = (
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41, 43, 44, 45,
    46, 49, 50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
)  # fmt: skip


def interpolated_sigmoid(scale: float) -> Int64:
    """1 / (1 + e**-x) as Q0.15, between two entries of the table; x is scale * q."""
    x, size = _in_table_steps(scale, 9)
    above = np.where(size >> 9 >= NODES - 1, INT16_MAX << 10, _between(size, 9))
    return np.where(x >= 0, above + (1 << 9), (1 << 25) - above + (1 << 9) - 1) >> 10


def interpolated_tanh(scale: float) -> Int64:
    """2 * sigmoid(2 * x) - 1 as Q0.15."""
    x, size = _in_table_steps(scale, 8)
    above = np.where(size >> 8 >= NODES - 1, 0xFFFF << 8, _between(size, 8))
    signed = np.where(x >= 0, above - (1 << 23), -above + (1 << 23) - 1)
    return (signed + (1 << 7)) >> 8


CLOSE = 1e-3  # in log2: what TFLite takes for a power of two
LOGF = 1e-5  # more than float32 logarithms of machines differ by, there


def from_power(scale: float) -> float:
    """How far a scale is from a power of two, in log2."""
    return abs(math.log2(scale) - round(math.log2(scale)))


def powers(*scales: float) -> tuple[int, ...] | None:
    """The exponents of scales that TFLite all takes for powers of two."""
    if any(from_power(scale) >= CLOSE for scale in scales):
        return None
    return tuple(round(math.log2(scale)) for scale in scales)


def _in_table_steps(scale: float, bits: int) -> tuple[Int64, Int64]:
    """scale * 3 * 4096 * q, rounded, of every q; and its size. The multiplier has 15 bits.

    2**-12 (for tanh also 2**-11) is taken for what it is, and so is what lies within 0.001 of it in log2.
    """
    multiplier, shift = scale * 4096 * 3, 0
    power = round(math.log2(scale))
    if from_power(scale) < CLOSE and power in ((-12,) if bits == 9 else (-12, -11)):
        multiplier = 3 << (12 + power)
    else:
        while multiplier <= INT16_MAX / 2 and shift <= 30:
            multiplier, shift = multiplier * 2, shift + 1
    half = 1 << (shift - 1) if shift else 0
    x = (EVERY_INT16 * int(multiplier) + half) >> shift
    return x, np.abs(x)


def _between(size: Int64, bits: int) -> Int64:
    """The table at size / 2**bits, with as many more bits."""
    node = np.minimum(size >> bits, NODES - 2)
    table = np.rint(65536 / (1 + np.exp(-np.arange(NODES) / 24))).astype(np.int64)
    table[list(RAISED)] += 1
    slope = table[node + 1] - table[node]
    return np.asarray((table[node] << bits) + (size & ((1 << bits) - 1)) * slope)


# --- SOFTMAX of 16-bit values: internal/common.h LUTPopulateInt16, in double --------------------------------

STEPS = 512  # of a table with a value for every 128th 16-bit number


def table(function: Callable[[float], float], first: float, last: float) -> npt.NDArray[np.int16]:
    """`function` as Q0.15 at 513 places, moved by half of what a line to the next is off in the middle."""
    step = (last - first) / STEPS

    def at(x: float) -> float:
        return function(x) * ONE

    def entry(i: int) -> int:
        here, middle = at(first + i * step), at(first + i * step + step / 2)
        line = (at(first + (i + 1) * step) + round_half_away(here)) / 2
        off = round_half_away(line) - round_half_away(middle)
        return round_half_away(here) - round_half_away(off / 2)

    entries = [*map(entry, range(STEPS)), round_half_away(at(last))]
    return saturated(np.array(entries)).astype(np.int16)


RANGE = 10.0  # exp(-10) counts as the least value of the table
ONE = 65536 / (2.0 / 65535 * 32767 + 2.0 / 65535 * 32768)  # of a result, in steps


def exponentials() -> npt.NDArray[np.int16]:
    """e**x for x in [-10, 0]."""
    return table(math.exp, RANGE / 65535 * -65535, 0.0)


def reciprocals() -> npt.NDArray[np.int16]:
    """1 / (1 + x) for x in [0, 1]."""
    return table(lambda x: 1 / (1 + x), 0.0, 1.0 / 65535 * 65535)


def saturated(x: Int64) -> Int64:
    return np.clip(x, INT16_MIN, INT16_MAX)


def wrapped(x: Int64) -> Int64:
    return ((x + (1 << 15)) & 0xFFFF) - (1 << 15)


def _high_mul(a: Int64, b: Int64 | int) -> Int64:
    """floor((a * b + 2**14) / 2**15), saturated."""
    return saturated((a * b + (1 << 14)) >> 15)


def _constant(raw32: int) -> int:
    """A 32-bit constant of gemmlowp in 16 bits."""
    return min((raw32 + (1 << 15)) >> 16, INT16_MAX)


EXP_EIGHTH, THIRD = _constant(1895147668), _constant(715827882)  # exp(-1/8), 1/3
# exp(-2**e) for e = -2 to 4, as Q0.31.
FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def _exp(a: Int64, integer_bits: int) -> Int64:
    """exp of values <= 0 as Q0.15: a Taylor step near the next quarter, then a product per set bit."""
    fraction = 15 - integer_bits
    quarter = 1 << (fraction - 2)
    near = (a & (quarter - 1)) - quarter
    result = _exp_near_zero(saturated(near << integer_bits))
    remainder = near - a
    for e, factor in zip(range(-2, 5), FACTORS, strict=True):
        if integer_bits > e:
            bit = (remainder >> (fraction + e)) & 1
            result = np.where(bit == 1, _high_mul(result, _constant(factor)), result)
    if integer_bits > 5:  # exp(-32) and less: the factors end before
        result = np.where(a < -(32 << fraction), 0, result)
    return np.where(a == 0, INT16_MAX, result)


def _exp_near_zero(a: Int64) -> Int64:
    """exp of a Q0.15 value in [-1/4, 0): fourth-order Taylor expansion around -1/8."""
    x = a + (1 << 12)
    x2 = _high_mul(x, x)
    x3, x4 = _high_mul(x2, x), _high_mul(x2, x2)
    tail = _high_mul(wrapped(rounding_shift_right(x4, 2) + x3), THIRD) + x2
    polynomial = wrapped(x + rounding_shift_right(wrapped(tail), 1))
    return saturated(EXP_EIGHTH + _high_mul(np.asarray(polynomial), EXP_EIGHTH))


def _reciprocal(a: Int64) -> Int64:
    """2 / (1 + a) as Q2.13 for a in [0, 1): three Newton steps from 48/17 - 32/17 * (1 + a) / 2."""
    half = (a + INT16_MAX + 1) >> 1
    x = wrapped(_constant(1515870810) + _high_mul(half, _constant(-1010580540)))
    for _ in range(3):
        error = wrapped((1 << 13) - _high_mul(half, x))
        x = wrapped(x + saturated(_high_mul(x, error) << 2))
    return x
