"""The int32 -> int8 step on vectors of the target, by the formulas of fixedpoint.py.

An instruction set is reached through `Primitives`, so that no CPU is named here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pilite.compiler.fixedpoint import Requant, Rounding


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

    def less_if_negative(self, x: Any) -> Any:
        """x - 1 where x < 0."""

    def right(self, bits: int) -> Any:
        """A right shift as `shift_right_ties_up` reads it."""

    def scale_float64(self, x: Any, scale: Any) -> Any:
        """round_half_away(float64(x) * scale)."""

    def mul_high(self, x: Any, m: Any) -> Any:
        """floor(x * m / 2**31)."""

    def shift_left_saturating(self, x: Any, n: Any) -> Any:
        """x * 2**n, or a value of the same sign beyond 2**30 where that leaves int32."""

    def scale_fused(self, x: Any, factor: Any, addend: Any, signed: bool) -> Any:
        """truncated(fma(float32(x), factor, addend)); `signed`: the addend has the sign of x."""

    def mend(self, y: Any, x: Any, at: Any, by: Any) -> Any:
        """y + by where x is `at`."""

    def scale_float32(self, x: Any, factor: Any, requant: Requant) -> Any:
        """round_half_even(float32(x) * factor).

        `requant.left`: beyond 32,767 it may be any larger number. `fits16`: its upper half may be anything.
        `raised`: x is that much larger than the sum.
        """


SATURATING = (Rounding.RNDNU, Rounding.RNDNU16)  # their left shift


def requantize(
    v: Primitives, acc: Any, requant: Requant, operand: Callable[[str], Any], *, shifted: bool = True
) -> Any:
    """The real-multiplier part of `requant` on one int32 vector; `operand(name)` loads the channel constants.

    shifted=False leaves a common right shift, ties up, to the narrowing that follows.
    """
    if requant.rounding is Rounding.FLOAT64:
        return v.scale_float64(acc, operand("scale"))
    if requant.rounding is Rounding.FLOAT32:
        return v.scale_float32(acc, operand("factor"), requant)
    if requant.rounding is Rounding.FUSED:
        y = v.scale_fused(acc, operand("factor"), operand("addend"), requant.negative_ties_show)
        for i in range(requant.fixes):
            y = v.mend(y, acc, operand(f"at{i}"), operand(f"by{i}"))
        return y
    if requant.left:
        move = v.shift_left_saturating if requant.rounding in SATURATING else v.shift_left
        acc = move(acc, operand("left"))
    if requant.rounding is Rounding.RNDNU16:  # its product needs no saturation to 16 bits: see Rndnu16
        return v.mul_high_round(v.shift_right_ties_up(acc, operand("right")), operand("mantissa"))
    truncates = requant.rounding in (Rounding.RNDNU, Rounding.SINGLE)
    x = (v.mul_high if truncates else v.mul_high_round)(acc, operand("mantissa"))
    away = requant.rounding is Rounding.GEMMLOWP and requant.negative_ties_show
    if away and requant.right[0] == 0:
        return v.shift_right_ties_away(x, operand("right"))
    return _shift(v, v.less_if_negative(x) if away else x, requant, operand, shifted)


def _shift(v: Primitives, x: Any, requant: Requant, operand: Callable[[str], Any], shifted: bool) -> Any:
    """x / 2**right, ties up. With one less than a negative x that is ties away from zero, for 1 bit and more.

    x - 1 stays in int32: x is at least -(2**31 - 1), since a mantissa is below 2**31.
    """
    if not requant.common_right:
        return v.shift_right_ties_up(x, operand("right"))
    return v.shift_right_ties_up(x, v.right(requant.common_right)) if shifted else x
