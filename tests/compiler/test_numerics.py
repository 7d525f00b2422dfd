"""XNNPACK's roundings, by name: ties, extremes, the vectors of each target; and who uses which."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilite.compiler import cpu as cpus
from pilite.compiler.fixedpoint import (
    DTYPES,
    Factor,
    Multiplier,
    Requant,
    Rndnu,
    Rndnu16,
    Rounding,
    Scale,
    activation_range,
    fma32,
    is_large,
    multiply_float32,
    multiply_rndnu,
    multiply_rndnu16,
    nearest_tflite,
    nearest_xnnpack,
    operands,
    rounding_doubling_high_mul,
    shift_right_ties_up,
)
from pilite.compiler.graph import Tensor
from pilite.compiler.kernels.emit import Param, constant, function, load, loop, store
from pilite.compiler.kernels.isa import ISAS, Isa
from pilite.compiler.numerics import Numerics, by_depthwise_kernel
from pilite.compiler.requantize import requantize
from tests.kernels import KernelRun, results
from tests.native import EVERY_CPU

Array = npt.NDArray[Any]
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
REALS = st.floats(2.0**-32, 255.0, width=32)


# numpy.


@pytest.mark.parametrize(
    ("x", "factor", "expected"),
    [
        pytest.param(1, 0.5, 0, id="one half: to even"),
        pytest.param(3, 0.5, 2, id="one and a half: to even"),
        pytest.param(5, 0.5, 2, id="two and a half: to even"),
        pytest.param(-5, 0.5, -2, id="minus two and a half: to even"),
        pytest.param(-7, 0.5, -4, id="minus three and a half: to even"),
        pytest.param((1 << 24) + 1, 0.5, 1 << 23, id="the accumulator itself loses its last bit"),
        pytest.param(INT32_MAX, 255.0, INT32_MAX, id="saturates"),
        pytest.param(INT32_MIN, 255.0, INT32_MIN, id="saturates below"),
        pytest.param(INT32_MIN, 1.0, INT32_MIN, id="smallest"),
    ],
)
def test_float32_rounds_ties_to_even(x: int, factor: float, expected: int) -> None:
    assert multiply_float32(x, factor) == expected


@pytest.mark.parametrize(
    ("x", "real", "expected"),
    [
        pytest.param(1, 0.25, 0, id="below a tie"),
        pytest.param(2, 0.25, 1, id="tie: up"),
        pytest.param(-2, 0.25, 0, id="negative tie: up"),
        pytest.param(-6, 0.25, -1, id="minus one and a half: up"),
        pytest.param(-1, 0.5, 0, id="minus one half, shifted left first: up"),
        pytest.param(3, 1.0, 3, id="one"),
        pytest.param(INT32_MAX, 1.0, 1 << 29, id="saturates before it multiplies"),
        pytest.param(1, 2.0**-32, 0, id="smallest multiplier"),
        pytest.param(INT32_MIN, 2.0**-32, 0, id="minus one half by the smallest multiplier: up"),
    ],
)
def test_rndnu_rounds_ties_up(x: int, real: float, expected: int) -> None:
    assert multiply_rndnu(x, Rndnu.of(real)) == expected


@given(REALS)
def test_a_float32_is_stored_for_rndnu_without_loss(real: float) -> None:
    m = Rndnu.of(real)
    assert 1 << 30 <= m.mantissa < 1 << 31
    assert m.right >= 1
    assert m.left >= 0
    assert Fraction(m.mantissa) * Fraction(2) ** (m.left - m.right - 31) == Fraction(real)


@given(st.integers(-(1 << 22), 1 << 22), REALS)
def test_rndnu_is_within_one_half_and_a_bit_of_the_exact_product(x: int, real: float) -> None:
    if abs(x * real) < 2**20:
        assert abs(int(multiply_rndnu(x, Rndnu.of(real))) - x * Fraction(real)) <= Fraction(17, 16)


@pytest.mark.parametrize(
    ("x", "real", "expected"),
    [
        pytest.param(2, 0.25, 1, id="tie: up"),
        pytest.param(-2, 0.25, 0, id="negative tie: up"),
        pytest.param(5, 0.1875, 1, id="0.94 of 1.25, of which 1 is left before the product"),
        pytest.param(3, 0.1875, 1, id="0.56"),
        pytest.param(1, 0.375, 1, id="a half becomes one, of which three quarters become one"),
        pytest.param(3, 0.99999, 3, id="a mantissa that would need 16 bits"),
        pytest.param(40000, 0.75, 24575, id="saturates to 16 bits before it multiplies"),
        pytest.param(INT32_MIN, 255.0, -32640, id="saturates below"),
        pytest.param(INT32_MAX, 2.0**-32, 1, id="one half, rounded twice"),
    ],
)
def test_rndnu16_rounds_before_and_after_it_multiplies(x: int, real: float, expected: int) -> None:
    assert multiply_rndnu16(x, Rndnu16.of(real)) == expected


@given(REALS)
def test_a_float32_is_stored_for_rndnu16_in_15_bits(real: float) -> None:
    m = Rndnu16.of(real)
    assert 1 << 30 <= m.mantissa < 1 << 31
    assert m.mantissa % (1 << 16) == 0
    assert min(m.left, m.right) == 0
    assert abs(
        Fraction(m.mantissa) * Fraction(2) ** (m.left - m.right - 31) / Fraction(real) - 1
    ) <= Fraction(1, 1 << 14)


@given(st.integers(INT32_MIN, INT32_MAX), st.integers(1, 31))
def test_shift_right_ties_up_is_the_exact_quotient(x: int, bits: int) -> None:
    assert shift_right_ties_up(x, bits) == (Fraction(x, 1 << bits) + Fraction(1, 2)).__floor__()


@given(st.integers(-(1 << 24), 1 << 24), st.floats(2.0**-20, 2.0, width=32), st.integers(-128, 255))
def test_fma32_rounds_once(a: int, b: float, c: int) -> None:
    found, exact = fma32(a, b, c), a * Fraction(b) + c
    assert found == float(np.float32(found))
    for end in (-np.inf, np.inf):
        assert abs(found - exact) <= abs(
            Fraction(float(np.nextafter(np.float32(found), np.float32(end)))) - exact
        )


def test_fma32_differs_from_two_roundings() -> None:
    a, b = (1 << 12) + 1, float(np.float32(1 + 2.0**-12))
    assert fma32(a, b, -a - 1) != float(np.float32(np.float32(a) * np.float32(b)) - np.float32(a + 1))


@pytest.mark.parametrize(
    ("scale", "zero_point", "tflite", "xnnpack"),
    [
        pytest.param(4.0, 0, 2, 2, id="one and a half: both up"),
        pytest.param(12.0, 0, 1, 0, id="one half: up, to even"),
        pytest.param(12.0, 1, 2, 2, id="the zero point makes it one and a half"),
        pytest.param(12.0, -3, -2, -2, id="minus two and a half"),
        pytest.param(0.1, 3, 63, 63, id="no tie"),
    ],
)
def test_the_bound_of_an_activation_is_rounded_with_its_zero_point(
    scale: float, zero_point: int, tflite: int, xnnpack: int
) -> None:
    for nearest, expected in ((nearest_tflite, tflite), (nearest_xnnpack, xnnpack)):
        assert activation_range("RELU6", scale, zero_point, -128, 127, nearest)[1] == expected


# The vectors of each target.

ACCUMULATORS = np.unique(
    [
        INT32_MIN,
        INT32_MIN + 1,
        INT32_MAX - 1,
        INT32_MAX,
        *range(-515, 516),
        *(sign * (1 << n) + d for n in range(31) for sign in (1, -1) for d in (-1, 0, 1)),
        *(3 * sign * (1 << n) for n in range(29) for sign in (1, -1)),
    ]
).astype(np.int32)
ACCUMULATORS = np.append(ACCUMULATORS, ACCUMULATORS[: -ACCUMULATORS.size % 8])
FACTORS = (0.5, 0.25, 1.5, 1 / 3, 0.0123, 1.0, 2.0**-20, 2.0**-32, 37.5, 255.99)
REFERENCES: dict[type, Callable[[Array, Any], Array]] = {
    Factor: lambda x, m: multiply_float32(x, m.value),
    Rndnu: multiply_rndnu,
    Rndnu16: multiply_rndnu16,
}


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_vectors_round_as_xnnpack_does(cpu: str) -> None:
    """Ties, powers of two and the ends of int32, through zero point, saturation and clamp."""
    isa = ISAS[cpus.load(cpu).isa]
    scales: list[Scale] = [
        scale
        for real in np.array(FACTORS, np.float32).tolist()
        for scale in (Factor(real), Rndnu.of(real), Rndnu16.of(real))
    ]
    requants = [(m, Requant(m.rounding, z, low, high, m.is_large)) for m in scales for z, low, high in ENDS]

    found = results([run(isa, m, requant) for m, requant in requants], cpu)
    for (m, requant), got in zip(requants, found, strict=True):
        wanted = REFERENCES[type(m)](ACCUMULATORS, m) + requant.zero_point
        np.testing.assert_array_equal(
            got, np.clip(wanted, requant.clamp_min, requant.clamp_max), err_msg=f"{m} {requant}"
        )


ENDS = ((0, -128, 127), (-128, -128, 127), (127, -40, 100))


def run(isa: Isa, m: Scale | Fused, requant: Requant) -> KernelRun:
    values = dict(m.constants)
    if "right" in values:
        values["right"] = isa.encode_right(int(values["right"]))

    def operand(name: str) -> Any:
        return constant(values[name], DTYPES.get(name, "int32"), isa.lanes)

    def body(xs: Any, ys: Any) -> None:
        with loop(ACCUMULATORS.size // 8) as k:
            parts = [load(xs, k * 8 + i, isa.lanes) for i in range(0, 8, isa.lanes)]
            q = [requantize(isa, part, requant, operand) for part in parts]
            store(ys, k * 8, isa.narrow8(q, requant.zero_point, requant.clamp_min, requant.clamp_max), 8)

    size = ACCUMULATORS.size
    params = [Param("x", "int32", size), Param("y", "int8", size)]
    return KernelRun(function("kernel", params, body), (ACCUMULATORS,), np.empty(size, np.int8))


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_vectors_round_as_the_families_that_only_explain(cpu: str) -> None:
    """ties-up rounds the product and then the shift, single rounds once."""
    isa, half, third = ISAS[cpus.load(cpu).isa], Multiplier(1 << 30, -3), Multiplier(0x5555_5555, -7)
    cases = [
        (m, Requant(rounding, 0, -128, 127))
        for rounding in (Rounding.TIES_UP, Rounding.SINGLE)
        for m in (half, third)
    ]

    found = results([run(isa, m, requant) for m, requant in cases], cpu)
    for (m, requant), got in zip(cases, found, strict=True):
        product = ACCUMULATORS.astype(np.int64) * m.mantissa
        if requant.rounding is Rounding.SINGLE:
            wanted = shift_right_ties_up(product, 31 + m.right)
        else:
            wanted = shift_right_ties_up(rounding_doubling_high_mul(ACCUMULATORS, m.mantissa), m.right)
        np.testing.assert_array_equal(got, np.clip(wanted, -128, 127), err_msg=f"{m} {requant}")


@dataclass(frozen=True)
class Fused:
    """Constants of Rounding.FUSED with one accumulator that is mended."""

    factor: float
    addend: float
    at0: int
    by0: int

    @property
    def constants(self) -> dict[str, float]:
        return asdict(self)


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_vectors_fuse_the_product_with_an_addend_of_its_sign_and_mend_one(cpu: str) -> None:
    isa, m = ISAS[cpus.load(cpu).isa], Fused(float(np.float32(0.0123)), 0.5 - 2.0**-7, at0=-515, by0=1)
    signed, unsigned = (Requant(Rounding.FUSED, 5, low, 127, fixes=1) for low in (-128, 5))
    assert (signed.negative_ties_show, unsigned.negative_ties_show) == (True, False)

    found = results([run(isa, m, requant) for requant in (signed, unsigned)], cpu)
    for requant, got in zip((signed, unsigned), found, strict=True):
        wanted = [
            fused(int(x), m, negate=requant is signed and x < 0) + requant.zero_point for x in ACCUMULATORS
        ]
        np.testing.assert_array_equal(got, np.clip(wanted, requant.clamp_min, requant.clamp_max))
    assert np.any(found[0] != found[1])


def fused(x: int, m: Fused, negate: bool) -> int:
    addend = Fraction(-m.addend if negate else m.addend)
    return math.trunc(fma32(x, m.factor, addend)) + (m.by0 if x == m.at0 else 0)


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_vectors_of_float32_round_to_even(cpu: str) -> None:
    isa = ISAS[cpus.load(cpu).isa]
    x = np.array(
        [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, -0.0, 1e9, -1e9, 7.5, 8, 1, 2, 3, 4], np.float32
    )

    def body(xs: Any, ys: Any) -> None:
        with loop(x.size // isa.lanes) as k:
            value = isa.round_float32(load(xs, k * isa.lanes, isa.lanes), False)
            store(ys, k * isa.lanes, value, isa.lanes)

    params = [Param("x", "float32", x.size), Param("y", "int32", x.size)]
    (got,) = results([KernelRun(function("kernel", params, body), (x,), np.empty(x.size, np.int32))], cpu)
    np.testing.assert_array_equal(got, np.rint(x).astype(np.int32))


# Who uses which.


def test_multipliers_that_need_more_are_known_by_their_size() -> None:
    def large(rounding: Rounding, *reals: float) -> bool:
        return is_large(rounding, reals)

    assert not large(Rounding.GEMMLOWP, 0.5, 0.999)
    assert large(Rounding.GEMMLOWP, 0.1, 1.0)
    assert not large(Rounding.FLOAT32, 0.999)
    assert large(Rounding.FLOAT32, 1.0)
    assert not large(Rounding.RNDNU, 0.499)
    assert large(Rounding.RNDNU, 0.5)
    assert not large(Rounding.RNDNU16, 0.999)
    assert large(Rounding.RNDNU16, 1.0)
    assert not large(Rounding.FLOAT64, 1e9)


# FUSED stands for GEMMLOWP: its constants come from a proof (test_prove.py), not from a multiplier.
@pytest.mark.parametrize("rounding", [rounding for rounding in Rounding if rounding is not Rounding.FUSED])
def test_every_rounding_has_its_constants(rounding: Rounding) -> None:
    requant = Requant(rounding, 0, -128, 127, left=True)
    arrays = operands(rounding, [0.25, 3.0])
    assert set(requant.operands) <= set(arrays)
    assert all(str(arrays[n].dtype) == DTYPES.get(n, "int32") for n in requant.operands)


def test_numerics_choose_the_rounding_by_dtype() -> None:
    def sums(numerics: Numerics, dtype: str) -> Sequence[Rounding]:
        x = Tensor(0, "x", (1,), dtype)
        return numerics.sums(x), numerics.matrix(x)

    assert sums(Numerics(), "int8") == (Rounding.GEMMLOWP,) * 2
    assert sums(Numerics("ref", Rounding.FLOAT64), "uint8") == (Rounding.GEMMLOWP, Rounding.FLOAT64)
    assert sums(Numerics("xnnpack"), "int8") == (Rounding.FLOAT32,) * 2
    assert sums(Numerics("xnnpack"), "uint8") == (Rounding.RNDNU,) * 2
    assert sums(Numerics("xnnpack", uint8=Rounding.RNDNU16), "uint8") == (Rounding.RNDNU16,) * 2


def test_depthwise_kernels_round_alike_on_every_core() -> None:
    numerics, x = Numerics("xnnpack", uint8=Rounding.RNDNU16), Tensor(0, "x", (1,), "uint8")
    assert numerics.sums(x, by_depthwise_kernel=True) is Rounding.RNDNU
    assert numerics.sums(x) is Rounding.RNDNU16
    for group, taps, known in (
        ((1, 1), 25, True),
        ((1, 1), 26, False),
        ((1, 2), 9, False),
        ((3, 1), 1, False),
    ):
        assert by_depthwise_kernel(group, taps) is known
