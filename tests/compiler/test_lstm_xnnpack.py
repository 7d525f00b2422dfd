"""LSTMs in numerics xnnpack: sums of LiteRT's kernel for NEON, whose pairs of products wrap in 16 bits."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilite.compiler import cpu as cpus
from pilite.compiler import lower, tflite
from pilite.compiler.numerics import Numerics
from pilite.compiler.spec import QLstm
from pilite.lab import oracle
from tests import native
from tests.batch import OPTIONS, check_bits, compiled
from tests.compiler.test_xnnpack import litert
from tests.draw import Array, Draw, OneOp, Shape
from tests.native import EVERY_CPU, HERE
from tests.recurrent_ops import Sizes, network

XNNPACK = {**OPTIONS, "numerics": "xnnpack"}
AROUND_BLOCKS = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 41)  # of 8 or 16 products, and 32 gates
SMALL = 0.0005  # a scale of weights
STEPS, RESET = 6, 4
SLOW = 5  # a network whose outputs still change in the last run


def case(sizes: Sizes, seed: int) -> OneOp:
    """Half of its weights and of its input are -128, and its gates seldom saturate."""
    d = Draw(np.random.default_rng(seed), "int8")

    def values(shape: Shape) -> Array:
        return np.where(d.rng.random(shape) < 0.5, np.int8(-128), d.values(shape))

    return replace(network(d, sizes, values, SMALL), name=f"case({sizes}, {seed})")


@pytest.fixture(scope="module")
def cases() -> list[OneOp]:
    ends = ((1, 3, False), (2, 2, True), (5, 2, False))
    sizes = [(n, m) for n in AROUND_BLOCKS for m in (n, 16, 33)]
    return [
        case(Sizes(batch, steps, inputs, cells, time_major), i)
        for i, (inputs, cells) in enumerate(sizes)
        for batch, steps, time_major in (ends[i % len(ends)],)
    ]


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_sizes_around_blocks_give_the_bits_of_litert_on_a_pi(cpu: str, cases: list[OneOp]) -> None:
    truth = litert(cases, f"litert@{oracle.promised_core(cpu)}")

    check_bits(cases, cpu, truth=truth, numerics="xnnpack")


@pytest.mark.slow
@pytest.mark.qemu
def test_older_litert_gives_the_same_bits(cases: list[OneOp]) -> None:
    check_bits(cases, HERE, truth=litert(cases, "litert-1.4@cortex-a76"), numerics="xnnpack")


@pytest.mark.slow
@pytest.mark.qemu
def test_sums_that_do_not_wrap_fail(cases: list[OneOp]) -> None:
    """Negative control: the bits of `ref` are others, and only where sixteen products meet."""
    short = [one for one in cases if "inputs=7" in one.name and "cells=7" in one.name]
    long = [one for one in cases if "inputs=16" in one.name]

    check_bits(short, HERE, truth=litert(short, "litert@cortex-a72"))
    with pytest.raises(AssertionError, match="wrong results"):
        check_bits(long, HERE, truth=litert(long, "litert@cortex-a72"))
    assert short


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_state_is_that_of_litert_from_run_to_run_until_a_reset(
    batch: int, cpu: str, tmp_path: Path
) -> None:
    """Runs of two steps in a row are one run of as many steps."""
    short, long = (case(Sizes(batch, 2 * runs, 24, 19, time_major=True), SLOW) for runs in (1, STEPS))
    (x,) = short.inputs
    repeated = replace(long, inputs=[np.tile(x, (STEPS, 1, 1))])
    wanted = litert([repeated], f"litert@{oracle.promised_core(cpu)}")(repeated.model, repeated.inputs)[0]
    runs = [*np.split(wanted, STEPS)[:RESET], *np.split(wanted, STEPS)[: STEPS - RESET]]

    found = in_a_row(
        compiled(tflite.parse(short.model, "m", "xnnpack"), cpu, tmp_path / "m.so", XNNPACK), cpu, x
    )
    np.testing.assert_array_equal(found, runs)
    assert all((runs[i] != runs[i + 1]).any() for i in range(RESET - 1))


def in_a_row(path: Path, cpu: str, x: Array) -> list[Array]:
    """The outputs of STEPS runs of pilite-run on `x`, the state forgotten before run RESET."""
    arch = cpus.load(cpu).arch
    native.opened(path, cpu)  # skips where this machine cannot
    np.save(path.with_name("x.npy"), x)
    words = ["--input", str(path.with_name("x.npy")), "--output", str(path.with_name("y"))]
    words += ["--steps", str(STEPS), "--reset", str(RESET)]
    emulator = [] if arch == platform.machine() else native.emulator(cpu)
    native.run_command([*emulator, native.loader(arch).runner, path, *words])
    return [np.load(path.with_name(f"y.{step}.0.npy")) for step in range(STEPS)]


# When sums are paired.


def spec(values: Callable[[Shape], Array], numerics: str, inputs: int = 17) -> QLstm:
    d = Draw(np.random.default_rng(0), "int8")
    model = network(d, Sizes(1, 1, inputs, 3), values).model
    stages = lower.lower(tflite.parse(model, "m", numerics), Numerics(numerics)).stages
    (found,) = (stage.spec for stage in stages if isinstance(stage.spec, QLstm))
    return found


def lowest_at(*columns: int) -> Callable[[Shape], Array]:
    """Of the second row of every matrix that is wide enough."""

    def values(shape: Shape) -> Array:
        array = np.full(shape, -127, np.int8)
        if shape[-1] > max(columns, default=0):
            array[1:2, ..., columns] = -128
        return array

    return values


@pytest.mark.parametrize(
    ("columns", "paired"),
    [((0, 8), 8), ((7, 15), 8), ((3,), 0), ((0, 7), 0), ((0, 9), 0), ((7, 8), 0), ((8, 16), 0)],
)
def test_sums_are_paired_only_where_two_products_may_wrap(columns: tuple[int, ...], paired: int) -> None:
    assert spec(lowest_at(*columns), "xnnpack").paired == paired
    assert spec(lowest_at(*columns), "ref").paired == 0


def test_blocks_of_sixteen_that_are_not_full_are_not_paired() -> None:
    assert spec(lowest_at(0, 8), "xnnpack", inputs=15).paired == 0
    assert spec(lowest_at(0, 8), "xnnpack", inputs=16).paired == 8


def test_weights_without_the_lowest_value_are_compiled_as_in_ref() -> None:
    assert spec(lowest_at(), "xnnpack") == spec(lowest_at(), "ref")
