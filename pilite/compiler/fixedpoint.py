"""All rounding of the project: scaling an integer by a real number exactly as a named TFLite kernel does.

A real multiplier m >= 0 is stored as m = mantissa * 2**(exponent - 31) with 2**30 <= mantissa < 2**31.

The functions are numpy on int64 (compile-time tables, tests); requantize.py has the same on vectors of the
target. Sources: TensorFlow Lite `internal/quantization_util.cc`, `internal/common.cc`, `kernel_util.cc`,
`reference/softmax.h`; gemmlowp `fixedpoint/fixedpoint.h`; XNNPACK `src/xnnpack/requantization-stubs.h`,
`src/microparams-init.c`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

INT8_MIN, INT8_MAX = -128, 127
INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1
INT32_MAX = (1 << 31) - 1
MOST_FIXES = 2  # a third would cost more than integers

Int64 = npt.NDArray[np.int64]


class Rounding(str, Enum):
    """How an int32 accumulator becomes an 8-bit output, before the zero point is added."""

    GEMMLOWP = (
        "gemmlowp"  # doubling-high-mul, ties up; then shift, ties away from zero. TFLite's reference kernels
    )
    FLOAT64 = "float64"  # round_half_away(double(acc) * scale). FULLY_CONNECTED of newer reference kernels
    FLOAT32 = "float32"  # round_half_even(float(acc) * factor). XNNPACK's fp32 kernels, int8 models
    FUSED = "fused"  # truncated(fma(float(acc), factor, addend)), constants proved equal to GEMMLOWP's
    RNDNU = "rndnu"  # doubling-high-mul, truncated; then shift, ties up. XNNPACK's NEON kernels, uint8 models
    RNDNU16 = (
        "rndnu16"  # shift, ties up; then 16-bit doubling-high-mul, ties up. XNNPACK on Cortex-A53, uint8
    )
    # Nobody promises these two; `compare --layers` knows them to explain what LiteRT's and tflite-runtime's
    # builtin kernels do.
    TIES_UP = "ties-up"  # as gemmlowp, ties of the shift up. ruy on x86-64, matrix-vector products on aarch64
    SINGLE = "single"  # floor(acc * multiplier + 1/2), one rounding. ruy on aarch64


XNNPACK = (Rounding.FLOAT32, Rounding.RNDNU, Rounding.RNDNU16)


@dataclass(frozen=True)
class Constants:
    """What a rounding reads, in the order of a kernel's parameters; `large` only from `limit` on."""

    names: tuple[str, ...]
    limit: float = math.inf
    large: tuple[str, ...] = ()


CONSTANTS: dict[Rounding, Constants] = {
    Rounding.GEMMLOWP: Constants(("mantissa", "right"), 1 - 2.0**-32, ("left",)),
    Rounding.FLOAT64: Constants(("scale",)),
    Rounding.FLOAT32: Constants(("factor",), 1.0),
    Rounding.RNDNU: Constants(("mantissa", "right"), 0.5, ("left",)),
    Rounding.RNDNU16: Constants(("mantissa", "right"), 1.0, ("left",)),
    Rounding.TIES_UP: Constants(("mantissa", "right"), 1 - 2.0**-32, ("left",)),
    Rounding.FUSED: Constants(("factor", "addend")),
    Rounding.SINGLE: Constants(("mantissa", "right"), 1 - 2.0**-32, ("left",)),
}
SPACED_BY_ONE = 1.5 * 2.0**23  # float32 are, for 2**22 to both sides: its bits plus n are its value plus n
RAISED = int(
    np.float32(SPACED_BY_ONE).view(np.int32)
)  # its bits; the lower 16 are zero, so those of a value are n's
DTYPES = {
    "scale": "float64",
    "factor": "float32",
    "addend": "float32",
}  # of the constants; the others are int32


@dataclass(frozen=True)
class Requant:
    """The int32 -> int8 step of one operator: round, add `zero_point`, clamp. All in the int8 domain."""

    rounding: Rounding
    zero_point: int
    clamp_min: int
    clamp_max: int
    left: bool = False  # some multiplier reaches the limit of CONSTANTS: shift left, or guard the conversion
    right: tuple[int, int] = (0, 31)  # least and largest right shift of the channels
    fits16: bool = False  # proved: what is scaled lies in int16 before the zero point is added
    raised: bool = False  # of FLOAT32: RAISED is part of the bias, so sums are float32 values by their bits
    fixes: int = 0  # of FUSED: accumulators of a channel that are mended: at0 by by0, at1 by by1

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the arrays that the kernel needs."""
        needed = CONSTANTS[self.rounding]
        names = needed.names + (needed.large if self.left else ())
        fixes = tuple(f"{name}{i}" for i in range(self.fixes) for name in ("at", "by"))
        return tuple(name for name in names if name != "right" or not self.common_right) + fixes

    @property
    def common_right(self) -> int:
        """The right shift of every channel, if it is one from 1 to 16 and comes last; else 0."""
        low, high = self.right
        last = self.rounding is not Rounding.RNDNU16
        return low if last and low == high and 1 <= low <= 16 else 0

    @property
    def narrowing(self) -> tuple[int, int, int, int, bool]:
        """What remains once sums are scaled: zero point, least and largest value, shift, `fits16`."""
        return self.zero_point, self.clamp_min, self.clamp_max, self.common_right, self.fits16

    @property
    def negative_ties_show(self) -> bool:
        """Whether a tie of a negative value can reach the output.

        Ties away from zero and ties up differ only at x.5 with x < 0, by one; both results are <= 0.
        Where the clamp starts at the zero point (fused RELU, RELU6) both become `clamp_min`.
        """
        return self.clamp_min < self.zero_point


@dataclass(frozen=True)
class Multiplier:
    """A real number as TFLite stores it."""

    mantissa: int
    exponent: int  # > 0: shift left; < 0: shift right

    rounding: ClassVar[Rounding] = Rounding.GEMMLOWP

    @property
    def is_large(self) -> bool:
        return self.left > 0

    @property
    def constants(self) -> dict[str, float]:
        return {"mantissa": self.mantissa, "right": self.right, "left": self.left}

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


@dataclass(frozen=True)
class Factor:
    """A float32 multiplier of Rounding.FLOAT32."""

    value: float

    rounding: ClassVar[Rounding] = Rounding.FLOAT32

    @property
    def is_large(self) -> bool:
        return is_large(self.rounding, [self.value])

    @property
    def constants(self) -> dict[str, float]:
        return {"factor": self.value}


def is_large(rounding: Rounding, reals: Iterable[float]) -> bool:
    """`Requant.left` for these real multipliers."""
    return any(real >= CONSTANTS[rounding].limit for real in reals)


def operands(rounding: Rounding, reals: Sequence[float]) -> dict[str, npt.NDArray[np.generic]]:
    """Every constant of `rounding`, one entry per real multiplier. XNNPACK's are float32 values already."""
    if rounding in (Rounding.FLOAT64, Rounding.FLOAT32):
        (name,) = CONSTANTS[rounding].names
        return {name: np.array(reals, DTYPES[name])}
    parts = [STORED.get(rounding, Multiplier).of(real).constants for real in reals]
    return {
        name: np.array([part[name] for part in parts], np.int32) for name in ("mantissa", "right", "left")
    }


@dataclass(frozen=True)
class Rndnu:
    """A float32 multiplier as XNNPACK's rndnu kernels hold it: mantissa * 2**(left - right - 31)."""

    mantissa: int  # the 24 bits of the float32, moved to 2**30 <= mantissa < 2**31
    left: int
    right: int  # at least 1 for rndnu

    rounding: ClassVar[Rounding] = Rounding.RNDNU

    @staticmethod
    def of(real: float) -> Rndnu:
        """xnn_init_qu8_conv_minmax_rndnu_neon_params: parts of a float32, 0 < real < 256."""
        fraction, exponent = math.frexp(real)
        right = max(-exponent, 1)
        return Rndnu(int(fraction * (1 << 31)), right + exponent, right)

    @property
    def is_large(self) -> bool:
        return self.left > 0

    @property
    def constants(self) -> dict[str, float]:
        return {"mantissa": self.mantissa, "right": self.right, "left": self.left}


@dataclass(frozen=True)
class Rndnu16(Rndnu):
    """A float32 multiplier as XNNPACK's rndnu16 kernels hold it, of whose mantissa 15 bits are used.

    floor((x * m + 2**14) / 2**15) is the 32-bit doubling-high-mul of x by m * 2**16. XNNPACK saturates x to
    int16 first; what that changes is beyond 2**14 - 1 either way, hence the same end of 8 bits.
    """

    rounding: ClassVar[Rounding] = Rounding.RNDNU16

    @staticmethod
    def of(real: float) -> Rndnu16:
        """xnn_init_qu8_conv_minmax_rndnu16_scalar_params: the 24 bits of a float32 to 15, ties up."""
        fraction, exponent = math.frexp(real)
        mantissa = (int(fraction * (1 << 24)) + (1 << 8)) >> 9
        return Rndnu16(min(mantissa, INT16_MAX) << 16, max(exponent, 0), max(-exponent, 0))


STORED: dict[Rounding, type[Rndnu]] = {Rounding.RNDNU: Rndnu, Rounding.RNDNU16: Rndnu16}
Scale: TypeAlias = Multiplier | Factor | Rndnu  # a real multiplier with its rounding


def round_half_away(x: float) -> int:
    """C's round(): the nearest integer, ties away from zero. Exact for every double."""
    whole = math.trunc(x)
    return whole + int(math.copysign(abs(x - whole) >= 0.5, x))


Nearest: TypeAlias = Callable[[float, float, int, int], int]


def nearest_tflite(real: float, scale: float, zero_point: int, shift: int) -> int:
    """zero_point + round_half_away(float32(real / scale)). CalculateActivationRangeQuantized."""
    return zero_point + round_half_away(float(np.float32(real) / np.float32(scale)))


def nearest_xnnpack(real: float, scale: float, zero_point: int, shift: int) -> int:
    """round_half_even(float32(real / scale) + zero_point): xnn_qs8_quantize.

    `shift` is 128 for a uint8 model (xnn_qu8_quantize): its own zero point is that much larger.
    """
    sum_ = np.float32(real) / np.float32(scale) + np.float32(zero_point + shift)
    return round(float(sum_)) - shift


def ends(dtype: str) -> tuple[int, int]:
    """The least and the largest value of an integer dtype."""
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def every(dtype: str) -> Int64:
    """All values of an integer dtype, in order."""
    low, high = ends(dtype)
    return np.arange(low, high + 1, dtype=np.int64)


def activation_range(
    activation: str,
    scale: float,
    zero_point: int,
    low: int,
    high: int,
    nearest: Nearest = nearest_tflite,
    shift: int = 0,
) -> tuple[int, int]:
    """The limits [low, high] narrowed by a fused activation, whose real bounds `nearest` quantizes."""

    def quantize(f: float) -> int:
        return nearest(f, scale, zero_point, shift)

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


def multiply_float32(x: npt.ArrayLike, factor: float) -> Int64:
    """round_half_even(float32(x) * factor), saturated to int32."""
    product = np.asarray(x, np.int64).astype(np.float32) * np.float32(factor)
    return np.clip(np.rint(product.astype(np.float64)), -(1 << 31), INT32_MAX).astype(np.int64)


def multiply_rndnu(x: npt.ArrayLike, m: Rndnu) -> Int64:
    """floor(saturated(x << left) * mantissa / 2**31), then shifted right with ties up."""
    shifted = np.clip(np.asarray(x, np.int64) << m.left, -(1 << 31), INT32_MAX)
    return shift_right_ties_up((shifted * m.mantissa) >> 31, m.right)


def multiply_rndnu16(x: npt.ArrayLike, m: Rndnu16) -> Int64:
    """floor(saturated to int16(x << left, or x / 2**right with ties up) * mantissa / 2**15 + 1/2).

    What reaches the product has hardly more bits than the result: many results differ from rndnu's by one.
    """
    shifted = shift_right_ties_up(np.asarray(x, np.int64) << m.left, m.right)
    return (np.clip(shifted, INT16_MIN, INT16_MAX) * (m.mantissa >> 16) + (1 << 14)) >> 15


def fma32(a: int, b: float, c: int | Fraction) -> float:
    """float32(float32(a) * b + c) with one rounding; b is a float32 value."""
    exact = Fraction(float(np.float32(a))) * Fraction(b) + c
    near = np.float32(float(exact))
    around = (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf)))

    def distance(x: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(x)) - exact), int(x.view(np.uint32)) & 1

    return float(min(around, key=distance))


def shift_right_ties_up(x: npt.ArrayLike, bits: int) -> Int64:
    """floor(x / 2**bits + 1/2). NEON srshl."""
    value = np.asarray(x, np.int64)
    return (value + ((1 << bits) >> 1)) >> bits
