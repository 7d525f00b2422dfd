"""What is computed element by element on 16-bit values, whose zero points are 0: more of spec.py."""

from __future__ import annotations

from dataclasses import dataclass

from pilite.compiler.fixedpoint import Multiplier


@dataclass(frozen=True)
class QAdd16:
    """y = clamp((a * 2**left_shift * m0 +- b * 2**left_shift * m1) * output): int16; operands broadcast."""

    left_shift: int
    multipliers: tuple[Multiplier, Multiplier]
    output: Multiplier
    clamp_min: int
    clamp_max: int
    subtract: bool = False


@dataclass(frozen=True)
class QMul16:
    """y = clamp(a * b * multiplier): int16 values, zero points 0; operands broadcast."""

    multiplier: Multiplier
    clamp_min: int
    clamp_max: int
