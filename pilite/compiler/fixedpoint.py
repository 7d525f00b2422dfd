"""All rounding of the project: scaling an integer by a real number exactly as a named TFLite kernel does.

A real multiplier m >= 0 is stored as m = mantissa * 2**(exponent - 31) with 2**30 <= mantissa < 2**31.

Two halves with the same formulas: numpy on int64 (compile-time tables, tests) and vectors of the target,
reached through
`Primitives` so that no CPU is named here. Sources: TensorFlow Lite `internal/quantization_util.cc`,
`internal/common.cc`,
`kernel_util.cc`, `reference/softmax.h`; gemmlowp `fixedpoint/fixedpoint.h`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

INT8_MIN, INT8_MAX = -128, 127
INT32_MAX = (1 << 31) - 1

Int64 = npt.NDArray[np.int64]


class Rounding(str, Enum):
    """How an int32 accumulator becomes an 8-bit output, before the zero point is added."""

    GEMMLOWP = (
        "gemmlowp"  # doubling-high-mul, ties up; then shift, ties away from zero. TFLite's reference kernels
    )
    FLOAT64 = "float64"  # round_half_away(double(acc) * scale). FULLY_CONNECTED of newer reference kernels


# Per-channel constant arrays that each rounding reads, in the order of a kernel's parameters.
OPERANDS: dict[Rounding, tuple[str, ...]] = {
    Rounding.GEMMLOWP: ("mantissa", "right", "left"),
    Rounding.FLOAT64: ("scale",),
}


@dataclass(frozen=True)
class Requant:
    """The int32 -> int8 step of one operator: round, add `zero_point`, clamp. All in the int8 domain."""

    rounding: Rounding
    zero_point: int
    clamp_min: int
    clamp_max: int
    left: bool = False  # some multiplier is 1.0 or more: shift left before multiplying

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the arrays that the kernel needs."""
        return tuple(o for o in OPERANDS[self.rounding] if o != "left" or self.left)

    @property
    def negative_ties_show(self) -> bool:
        """Whether a tie of a negative value can reach the output.

        Ties away from zero and ties up differ only at x.5 with x < 0, by one; both results are <= 0.
        Where the clamp starts at the zero point (fused RELU, RELU6) both become `clamp_min`.
        """
        return self.clamp_min < self.zero_point


@dataclass(frozen=True)
class Multiplier:
    """A non-negative real number as TFLite stores it."""

    mantissa: int
    exponent: int  # > 0: shift left; < 0: shift right

    @property
    def left(self) -> int:
        return max(self.exponent, 0)

    @property
    def right(self) -> int:
        return max(-self.exponent, 0)

    @staticmethod
    def of(real: float) -> Multiplier:
        """TFLite's QuantizeMultiplier: 31-bit mantissa rounded half away; below 2**-32 it becomes 0."""
        if real == 0.0:
            return Multiplier(0, 0)
        fraction, exponent = math.frexp(real)
        mantissa = round_half_away(fraction * (1 << 31))
        if mantissa == 1 << 31:
            mantissa, exponent = mantissa // 2, exponent + 1
        return Multiplier(mantissa, exponent) if exponent >= -31 else Multiplier(0, 0)


def round_half_away(x: float) -> int:
    """C's round(): the nearest integer, ties away from zero. Exact for every double."""
    whole = math.trunc(x)
    return whole + int(math.copysign(abs(x - whole) >= 0.5, x))


def activation_range(activation: str, scale: float, zero_point: int, low: int, high: int) -> tuple[int, int]:
    """CalculateActivationRangeQuantized: the 8-bit limits [low, high] narrowed by a fused activation.

    A real bound f becomes zero_point + round_half_away(float32(f / scale)).
    """

    def quantize(f: float) -> int:
        return zero_point + round_half_away(float(np.float32(f) / np.float32(scale)))

    bounds: dict[str, tuple[float | None, float | None]] = {
        "NONE": (None, None),
        "RELU": (0.0, None),
        "RELU6": (0.0, 6.0),
        "RELU_N1_TO_1": (-1.0, 1.0),
    }
    lower, upper = bounds[activation]
    return (
        low if lower is None else max(low, quantize(lower)),
        high if upper is None else min(high, quantize(upper)),
    )


# --- numpy, on int64 arrays ----------------------------------------------------------------------------


def wrap_int32(x: npt.ArrayLike) -> Int64:
    """x modulo 2**32 in [-2**31, 2**31)."""
    return ((np.asarray(x, np.int64) + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def rounding_doubling_high_mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64:
    """floor((a * b + 2**30) / 2**31), saturated: ties up. gemmlowp; NEON sqrdmulh."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum((product + (1 << 30)) >> 31, INT32_MAX)


def rounding_shift_right(x: npt.ArrayLike, bits: npt.ArrayLike) -> Int64:
    """x / 2**bits, ties away from zero. gemmlowp RoundingDivideByPOT."""
    value, n = np.asarray(x, np.int64), np.asarray(bits, np.int64)
    mask = (np.int64(1) << n) - 1
    return (value >> n) + ((value & mask) > ((mask >> 1) + (value < 0)))


def multiply(x: npt.ArrayLike, m: Multiplier) -> Int64:
    """MultiplyByQuantizedMultiplier with double rounding, on int32 values held in int64."""
    shifted = wrap_int32(np.asarray(x, np.int64) << m.left)
    return rounding_shift_right(rounding_doubling_high_mul(shifted, m.mantissa), m.right)


# --- vectors of the target -----------------------------------------------------------------------------


class Primitives(Protocol):
    """What an instruction set offers for int32 vectors; `x`, `m`, `n` and results are expressions."""

    def mul_high_round(self, x: Any, m: Any) -> Any:
        """floor((x * m + 2**30) / 2**31)."""

    def shift_left(self, x: Any, n: Any) -> Any:
        """x * 2**n modulo 2**32."""

    def shift_right_ties_up(self, x: Any, n: Any) -> Any:
        """floor(x / 2**n + 1/2); `n` as encoded by `encode_right`."""

    def shift_right_ties_away(self, x: Any, n: Any) -> Any:
        """x / 2**n to nearest, ties away from zero; `n` as encoded by `encode_right`."""

    def scale_float64(self, x: Any, scale: Any) -> Any:
        """round_half_away(float64(x) * scale)."""


def requantize(v: Primitives, acc: Any, requant: Requant, operand: Callable[[str], Any]) -> Any:
    """The real-multiplier part of `requant` on one int32 vector;
    `operand(name)` loads the channel constants.
    """
    if requant.rounding is Rounding.FLOAT64:
        return v.scale_float64(acc, operand("scale"))
    if requant.left:
        acc = v.shift_left(acc, operand("left"))
    x = v.mul_high_round(acc, operand("mantissa"))
    shift = v.shift_right_ties_away if requant.negative_ties_show else v.shift_right_ties_up
    return shift(x, operand("right"))
