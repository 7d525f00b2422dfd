"""An addition as one linear form, where trying all pairs of inputs proves it equal to the three roundings.

y = clamp(floor((w0 * a + w1 * b + constant) / 2**shift)): 8 elements take 4 multiplies and 3 narrowing
shifts on NEON instead of 12 shifts and 6 doubling multiplies; with AVX2, which has no high product of 32
bits, 2 multiplies and a shift instead of 6 products of 64 bits. With AVX-512, 64 elements at a time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import INT8_MAX, INT8_MIN, Int64, Multiplier, Requant, multiply
from pilite.compiler.kernels.emit import (
    constant,
    function,
    load,
    shuffle,
    store,
    store_first,
)
from pilite.compiler.kernels.isa import Isa, Neon
from pilite.compiler.kernels.isa_avx512 import Zmm
from pilite.compiler.kernels.pointwise import groups, operands
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QAdd

SHIFTS = (23, 22, 21, 20, 19, 18, 17)  # 16 bits with the first narrowing, the rest with the second
WIDE = 64  # elements at a time with AVX-512
INPUTS = np.arange(INT8_MIN, INT8_MAX + 1)


@dataclass(frozen=True)
class Linear:
    """floor((w0 * a + w1 * b + constant) / 2**shift)."""

    weights: tuple[int, int]
    constant: int
    shift: int

    def total(self, isa: Isa, left: Any, right: Any) -> Any:
        """Before the shift, of two int32 vectors."""
        first, second = (isa.fill(w) for w in self.weights)
        return left * first + (right * second + isa.fill(self.constant))


@functools.cache
def linear(spec: QAdd) -> Linear | None:
    """The form with the largest shift that equals `spec` for all 65,536 pairs of inputs, if any does."""
    if not all(isinstance(m, Multiplier) for m in (*spec.multipliers, spec.output)):
        return None
    wanted = results(spec)
    return next((found for shift in SHIFTS if (found := _with_shift(spec, wanted, shift))), None)


def wants(spec: QAdd, arrays: object) -> bool:
    """Whether there is a proved form."""
    return not spec.square and linear(spec) is not None


def results(spec: QAdd) -> Int64:
    """y[a + 128, b + 128] by the reference formula."""
    terms = [
        multiply((INPUTS - zero_point) << spec.left_shift, m)
        for zero_point, m in zip(spec.zero_points, spec.multipliers, strict=True)
    ]
    total = np.add.outer(terms[0], -terms[1] if spec.subtract else terms[1])
    y = multiply(total, spec.output) + spec.requant.zero_point
    return np.clip(y, spec.requant.clamp_min, spec.requant.clamp_max)


def _with_shift(spec: QAdd, wanted: Int64, shift: int) -> Linear | None:
    """Every pair bounds the constant from below and above, a clamped result from one side only."""
    first, second = (
        _real(m) * _real(spec.output) * 2.0 ** (spec.left_shift + shift) for m in spec.multipliers
    )
    weights = (round(first), round(-second if spec.subtract else second))
    products = np.add.outer(INPUTS * weights[0], INPUTS * weights[1])
    low, high = (wanted << shift) - products, ((wanted + 1) << shift) - 1 - products
    low = low[wanted > spec.requant.clamp_min].max(initial=-(1 << 40))
    high = high[wanted < spec.requant.clamp_max].min(initial=1 << 40)
    middle = int(low + high) // 2
    fits = 128 * sum(map(abs, weights)) + abs(middle) < 1 << 31
    return Linear(weights, middle, shift) if low <= high and fits else None


def _real(m: Any) -> float:
    return float(m.mantissa * 2.0 ** (m.exponent - 31))


def add(name: str, isa: Isa, spec: QAdd, a: Layout, b: Layout, y: Layout, size: int = 8) -> tirx.PrimFunc:
    """The kernel of a spec that has a linear form. `size`: elements at a time, 8 or, with AVX-512, WIDE."""
    form = linear(spec)
    assert form is not None, f"{spec} has no linear form: `wants` was not asked"

    def body(x0: Any, x1: Any, out: Any, *blocks: Any) -> None:
        def group(at: list[Any], count: int) -> None:
            left, right = (isa.widen8(load(x, offset, 8)) for x, offset in zip((x0, x1), at, strict=False))
            totals = [form.total(isa, p, q) for p, q in zip(left, right, strict=True)]
            store_first(out, at[2], _narrow(isa, totals, form.shift, spec.requant), 8, count)

        def wide(at: list[Any]) -> None:
            zmm, requant = Zmm(), spec.requant
            totals = []
            for i in range(0, WIDE, zmm.lanes):
                left, right = (
                    T.Cast(zmm.i32, load(x, offset + i, zmm.lanes))
                    for x, offset in zip((x0, x1), at, strict=False)
                )
                totals.append(form.total(zmm, left, right) >> zmm.fill(form.shift))
            packed = zmm.narrow(totals, 0, requant.clamp_min, requant.clamp_max)
            store(out, at[2], T.reinterpret("int8x64", zmm.words(packed)), WIDE)

        groups((a, b, y), blocks, lambda at, count: wide(at) if count == WIDE else group(at, count), size)

    return function(name, operands(a, b, y), body)


def _narrow(isa: Isa, totals: list[Any], shift: int, requant: Requant) -> Any:
    """Eight int32 shifted down as clamped int8x8; the form's constant holds the zero point."""
    if isinstance(isa, Neon):
        return _narrow_neon(isa, totals, shift, requant)
    shifted = [total >> isa.fill(shift) for total in totals]
    return isa.narrow8(shifted, 0, requant.clamp_min, requant.clamp_max)


def _narrow_neon(isa: Neon, totals: list[Any], shift: int, requant: Requant) -> Any:
    """The same by narrowing shifts: 16 bits first, the rest with saturation."""
    halves = [T.Cast("int16x4", total >> isa.fill(16)) for total in totals]
    q = isa.neon("int8x8", "sqshrn.v8i8", shuffle(halves, range(8)), T.int32(shift - 16))
    low, high = (constant(v, "int8", 8) for v in (requant.clamp_min, requant.clamp_max))
    return tirx.min(tirx.max(q, low), high)
