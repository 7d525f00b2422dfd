"""What is computed on 16-bit values alone, whose zero points are 0: more of spec.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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
class QMean16:
    """y = clamp(sum(x) * multiplier) over `axes`: int16."""

    axes: tuple[int, ...]
    multiplier: Multiplier
    clamp_min: int
    clamp_max: int


@dataclass(frozen=True)
class Softmax16:
    """Softmax over the last axis: int16. Arrays: exp, reciprocal int16 (513,), tables of fixedpoint16.py."""

    multiplier: Multiplier  # of a distance from the maximum, which gives the distance in the table of exp


@dataclass(frozen=True)
class QMul16:
    """y = clamp(a * b * multiplier): int16 values, zero points 0; operands broadcast."""

    multiplier: Multiplier
    clamp_min: int
    clamp_max: int


Spec16: TypeAlias = QAdd16 | QMean16 | QMul16 | Softmax16
