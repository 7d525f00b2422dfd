"""Numerics xnnpack against LiteRT's default as on a Pi's core: random models of every operator, bit for bit.

    pytest tests/compiler/test_xnnpack.py --random-models 6000      # 24 of each row, instead of CI's share

A failure names the model: `seeded("CONV_2D", "int8", 17)` of tests/one_op.py makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from models.zoo.writer import OpSpec, write
from pilite.compiler import delegation, tflite
from pilite.compiler.graph import Binary
from pilite.errors import ModelError
from pilite.lab import oracle
from tests import one_op
from tests.batch import TURNS, Truth, check_bits, turned
from tests.draw import Array, OneOp
from tests.native import ARTIFACTS, EVERY_CPU, HERE
from tests.small import value

WIDE = ("EQUAL", "SUM")  # of int16 compare by scale and saturate, where those of `ref` do not
REFUSED = [("SUM", "float32")]  # in an order that is XNNPACK's own
ROWS = [row for row in one_op.ROWS if row[0] in delegation.POLICIES and row not in REFUSED]
FIRST = 3_000_000  # of the numbers, which no other test uses
TRIES = 60  # to find one that is not refused

pytestmark = [pytest.mark.slow, pytest.mark.qemu]


def share(request: pytest.FixtureRequest, leave_out: Sequence[str] = ()) -> list[OneOp]:
    """Models over all rows, as many as --random-models asks for; else one per operator, its dtype in turn,
    and one of int16.
    """
    rows = [row for row in ROWS if row[0] not in leave_out]
    total = request.config.getoption("--random-models")
    if not total:
        wide = [row for row in rows if row[1] == "int16"]
        ops = sorted({op for op, _ in rows})
        narrow = [[row for row in rows if row[0] == op and row not in wide] for op in ops]
        rows = [*wide, *(of_op[i % 2 - 1] for i, of_op in enumerate(narrow))]
    return [case for op, dtype in rows for case in promised(op, dtype, max(-(-total // len(rows)), 1))]


def promised(op: str, dtype: str, count: int) -> Iterator[OneOp]:
    """The first `count` models of this row that numerics xnnpack accepts."""
    found = 0
    for number in range(FIRST, FIRST + TRIES * count):
        case = one_op.seeded(op, dtype, number)
        if found < count and is_promised(case):
            found += 1
            yield case
    assert found == count, f"{op} {dtype}: {found} of {TRIES * count} models are not refused"


def is_promised(case: OneOp) -> bool:
    try:
        tflite.parse(case.model, case.name, "xnnpack")
    except ModelError:
        return False
    return True


def litert(cases: Sequence[OneOp], runtime: str) -> Truth:
    """What `runtime` (RUNTIME@CPU) gives for every turn of every case; one guest computes all."""
    key = runtime, tuple(case.name for case in cases)
    if key not in KNOWN:
        KNOWN[key] = asked(cases, runtime)
    return KNOWN[key]


KNOWN: dict[tuple[str, tuple[str, ...]], Truth] = {}  # CPUs share guests
REFUSALS: dict[str, dict[str, str]] = {}  # of a runtime, by model


def asked(cases: Sequence[OneOp], runtime: str) -> Truth:
    core = runtime.partition("@")[2]
    jobs = [(case.model, [turned(case, change) for change in TURNS.values()]) for case in cases]
    known: dict[bytes, list[Array]] = {}
    answers = oracle.emulated(oracle.choose(runtime, core), jobs, ARTIFACTS)
    for case, (model, sets), found in zip(cases, jobs, answers, strict=True):
        if isinstance(found, str):
            REFUSALS.setdefault(runtime, {})[case.name] = found
            continue
        known |= {_key(model, inputs): outputs for inputs, outputs in zip(sets, found, strict=True)}

    def truth(model: bytes, inputs: Sequence[Array]) -> list[Array]:
        assert _key(model, inputs) in known, f"LiteRT refuses models: {REFUSALS.get(runtime)}"
        return known[_key(model, inputs)]

    return truth


def _key(model: bytes, inputs: Sequence[Array]) -> bytes:
    return b"".join((model, *(x.tobytes() for x in inputs)))


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_random_models_give_the_bits_of_litert_on_a_pi(cpu: str, request: pytest.FixtureRequest) -> None:
    cases = share(request)

    assert len(cases) >= len({op for op, _ in ROWS})
    check_bits(cases, cpu, truth=litert(cases, f"litert@{oracle.promised_core(cpu)}"), numerics="xnnpack")


def test_older_litert_gives_the_same_bits_except_where_the_readme_says(
    request: pytest.FixtureRequest,
) -> None:
    """Models that it refuses are those of UNPREPARED."""
    cases, runtime = share(request, NEWER), "litert-1.4@cortex-a76"
    truth = litert(cases, runtime)
    refused = REFUSALS.get(runtime, {})

    assert all(op in name for op in UNPREPARED for name in refused), refused
    left = [case for case in cases if case.name not in refused]
    assert all(any(op in case.name for case in left) for op in UNPREPARED)
    check_bits(left, HERE, truth=truth, numerics="xnnpack")


# Older XNNPACK adds the zero point of a MEAN after it rounds; older kernels compare int16 as it is stored.
NEWER = ("EQUAL", "MEAN")
UNPREPARED = ("REDUCE_",)  # older XNNPACK takes some of REDUCE_MAX and REDUCE_MIN and then fails


def test_xnnpack_is_not_ref() -> None:
    """Negative control: the reference kernels' bits are not taken for LiteRT's."""
    cases = [case for dtype in one_op.DTYPES for case in promised("CONV_2D", dtype, 12)]

    with pytest.raises(AssertionError, match=r"wrong results:\n(?s:.*)instead of"):
        check_bits(cases, HERE, truth=litert(cases, "litert@cortex-a72"))


def test_ties_of_means_and_squares_are_decided_by_their_zero_points_and_one_rounding() -> None:
    """fma, not a product and a sum: this is where a MEAN of XNNPACK on x86-64 differs."""
    cases = [one_op.seeded("MEAN", dtype, number) for dtype, number in (("int8", 17), ("uint8", 15))]
    cases += [squares(dtype, *activation) for dtype in one_op.DTYPES for activation in ACTIVATIONS]

    check_bits(cases, HERE, truth=litert(cases, "litert@cortex-a76"), numerics="xnnpack")
    assert all(np.prod(case.inputs[0].shape) for case in cases)


ACTIVATIONS = (("NONE", 0.1), ("RELU", 0.02), ("RELU6", 0.4))  # with the output's scale


def squares(dtype: str, activation: str, scale: float) -> OneOp:
    """Of every value, a product of one tensor with itself; many are ties."""
    every = np.arange(256, dtype=np.uint8).view(dtype)
    x, y = (
        value(256, dtype=dtype, scale=s, zero_point=z, name=n)
        for n, s, z in (("x", 0.05, 77), ("y", scale, 9))
    )
    model = write([x, y], [OpSpec("MUL", (0, 0), (1,), Binary(activation))], [0], [1])
    return OneOp(f"square of {dtype}, {activation}", model, [every])
