"""Random models of one operator against TFLite's reference kernels: every operator and dtype, bit for bit.

    pytest tests/compiler/test_one_op.py -m long --random-models 6000      # other numbers, on two CPUs

A failure names the model: `seeded("CONV_2D", "int8", 17)` of tests/one_op.py makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from pilite.compiler import cpu as cpus
from pilite.compiler import tflite
from pilite.compiler.ops import OPS
from pilite.errors import ModelError
from tests import draw, one_op, oracle
from tests.batch import check_bits, difference
from tests.compiler.test_xnnpack import WIDE
from tests.draw import OneOp
from tests.native import EVERY_CPU, HERE

# Models per operator and dtype where they run in this process: over 3,000 in all, a third on other CPUs.
FEW = 24
MANY = {"CONV_2D": 160, "DEPTHWISE_CONV_2D": 160, "FULLY_CONNECTED": 100, "ADD": 54}  # kernels differ by core
FRACTION = 3
ONE_CORE = "cortex-a53"  # stands for all others where they share the kernel


def seeds(op: str, dtype: str, cpu: str) -> range:
    many = op in MANY and dtype != "int16"  # whose kernel is the same on every core
    if not many and cpu not in (HERE, ONE_CORE):
        return range(0)
    if dtype == "int16" and op not in (*MANY, *WIDE) and cpu != HERE:  # test_xnnpack.py has one on every core
        return range(0)
    count = MANY[op] if many else FEW
    return range(count if cpu == HERE else count // FRACTION)


LARGE = [
    pytest.param(op, dtype, *cpu.values, marks=cpu.marks)
    for cpu in EVERY_CPU
    for op, dtype in one_op.ROWS
    if seeds(op, dtype, str(cpu.values[0]))
]


@pytest.mark.parametrize("op", one_op.OPS)
def test_a_few_models_of_every_operator_give_the_bits_of_tflite(op: str) -> None:
    """The quick check of every dtype; numbers that the large one does not use."""
    dtypes = [dtype for name, dtype in one_op.ROWS if name == op]
    cases = [one_op.seeded(op, dtype, 1_000_000 + i) for dtype in dtypes for i in range(4)]

    check_bits(cases, HERE)


@pytest.mark.slow
@pytest.mark.parametrize(("op", "dtype", "cpu"), LARGE)
def test_random_models_give_the_bits_of_tflite(op: str, dtype: str, cpu: str) -> None:
    cases = [one_op.seeded(op, dtype, seed) for seed in seeds(op, dtype, cpu)]

    check_bits(cases, cpu)


@pytest.mark.slow
def test_any_number_of_dimensions_gives_the_bits_of_tflite(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 to 6, where TFLite takes them: two models of each operator whose shape is free, dtypes in turn."""
    monkeypatch.setattr(draw.Draw, "shape", any_shape)
    ops = sorted({op for op, _ in one_op.ROWS} - NO_DIMENSIONS)
    cases = [case for i, op in enumerate(ops) for case in of_any_shape(op, i)]

    ranks = {x.ndim for case in cases for x in case.inputs}
    assert ranks >= {*range(7)}
    assert len(cases) > 1.5 * len(ops)
    check_bits(cases, HERE)


NO_DIMENSIONS = {"MIRROR_PAD", "SLICE", "STRIDED_SLICE", "TRANSPOSE"}  # TFLite's kernels refuse 0, or 6


def any_shape(d: draw.Draw, least: int = 1, most: int = 6) -> tuple[int, ...]:
    rank = int(d.rng.integers(max(least - 1, 0), most + 1))
    return tuple(d.pick((1, 1, 2, 3, 4, 5, 6, 11, 19)) for _ in range(rank))


def of_any_shape(op: str, turn: int) -> Iterator[OneOp]:
    """Without those that cannot be, as a position along an axis of none, and those that are refused."""
    dtypes = [dtype for name, dtype in one_op.ROWS if name == op]
    for i in range(2):
        dtype = dtypes[(turn + i) % len(dtypes)]
        with suppress(ValueError, ModelError):
            case = one_op.seeded(op, dtype, 7_000_000 + i)
            tflite.parse(case.model, case.name)
            yield case


@pytest.mark.long
@pytest.mark.parametrize("cpu", [cpu for cpu in EVERY_CPU if cpu.values[0] in (HERE, "cortex-a72")])
@pytest.mark.parametrize(("op", "dtype"), one_op.ROWS)
def test_every_row_has_its_share_of_as_many_models_as_asked_for(
    op: str, dtype: str, cpu: str, request: pytest.FixtureRequest
) -> None:
    """At least FEW of each row; test_xnnpack.py does the same for the other numerics."""
    share = max(FEW, -(-request.config.getoption("--random-models") // len(one_op.ROWS)))
    cases = [one_op.seeded(op, dtype, 6_000_000 + i) for i in range(share)]

    assert len({(case.model, *(x.tobytes() for x in case.inputs)) for case in cases}) >= FEW
    check_bits(cases, cpu)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("dtype", one_op.DTYPES)
def test_the_float64_variant_of_fully_connected_gives_the_bits_of_litert(dtype: str, cpu: str) -> None:
    cases = [one_op.seeded("FULLY_CONNECTED", dtype, 2_000_000 + i) for i in range(24)]

    check_bits(cases, cpu, "f64", oracle.litert_ref)


def test_the_two_variants_of_fully_connected_differ() -> None:
    """Negative control: float64 results are not taken for those of 2.14."""
    cases = [one_op.seeded("FULLY_CONNECTED", "int8", 2_000_000 + i) for i in range(24)]

    with pytest.raises(AssertionError, match=r"wrong results:\n(?s:.*)instead of"):
        check_bits(cases, HERE, "f64", oracle.tflite_ref)


def test_the_large_check_is_as_large_as_it_says() -> None:
    totals = {cpu: sum(len(seeds(op, dtype, cpu)) for op, dtype in one_op.ROWS) for cpu in cpus.names()}

    assert {op for op, _ in one_op.ROWS} == set(OPS)
    assert totals[HERE] >= 3_000
    assert min(len(seeds(op, dtype, HERE)) for op, dtype in one_op.ROWS) >= 24
    assert min(totals.values()) >= 300


def test_one_wrong_element_is_seen_and_named() -> None:
    """Negative control: a model that says what the oracle does not."""
    right = one_op.seeded("RESHAPE", "int8", 0)
    spoiled = np.array(right.inputs[0])
    spoiled.flat[-1] ^= 1

    assert difference(right.inputs, right.inputs) == ""
    assert f"1 of {spoiled.size} differ" in difference([spoiled], right.inputs)
    assert "not int8" in difference([spoiled.view(np.uint8)], right.inputs)
