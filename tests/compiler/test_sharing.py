"""Shares of a parallel loop: together every step once, for any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm_ffi import structural_walk

from pilite.compiler import cpu as cpus
from pilite.compiler import fuse, lower, sharing, tflite
from pilite.compiler.entry import Call
from pilite.compiler.kernels.emit import Param, function
from pilite.compiler.numerics import Numerics
from pilite.compiler.schedule import schedule
from tests.few_ops import made
from tests.kernels import KernelRun, results
from tests.native import EVERY_CPU

EXTENTS = (1, 2, 3, 4, 5, 7, 8, 9, 64, 100)


def counting(extent: int) -> tirx.PrimFunc:
    """Counts how often every step of a parallel loop is done."""

    def body(x: Any, y: Any) -> None:
        with T.serial(0, extent) as i:
            T.buffer_store(y, x[0], [i])
        with T.parallel(0, extent) as i:
            T.buffer_store(y, y[i] + 1, [i])

    return function("kernel", [Param("x", "int32", 1), Param("y", "int32", extent)], body)


@pytest.mark.parametrize("cpu", ["x86-64-v3", "cortex-a53"])
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_every_step_is_done_once(cpu: str, threads: int) -> None:
    runs = [KernelRun(counting(n), [np.zeros(1, np.int32)], np.zeros(n, np.int32)) for n in EXTENTS]

    for extent, counts in zip(EXTENTS, results(runs, cpu, threads), strict=True):
        np.testing.assert_array_equal(counts, np.ones(extent, np.int32), err_msg=f"{extent} steps")


def test_a_parallel_loop_is_one_step_for_every_thread() -> None:
    found = loops(sharing.shared(counting(9)))

    assert shared(found) == [sharing.ONCE]
    assert [loop.kind for loop in found].count(tirx.ForKind.SERIAL) == 2


def loops(kernel: tirx.PrimFunc) -> list[tirx.For]:
    found: list[tirx.For] = []
    structural_walk(kernel.body, (tirx.For, found.append))
    return found


def shared(found: list[tirx.For]) -> list[int]:
    """The steps of every parallel loop."""
    return [int(loop.extent) for loop in found if loop.kind == tirx.ForKind.PARALLEL]


@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("channels", [16, 64, 96, 160, 320])
def test_threads_share_a_convolution_evenly_however_few_its_blocks_are(cpu: str, channels: int) -> None:
    """Weights exceed every first-level cache: a block of channels meets all pixels, then the next."""
    case = made(lambda net: [net.conv(net.input(1, 28, 28, 576), channels, (1, 1))], "int8", 0)
    program = lower.lower(tflite.parse(case.model, case.name), Numerics())
    kernels = [
        call.function for call in schedule(program, cpus.load(cpu), fuse.OFF).calls if isinstance(call, Call)
    ]
    steps = [n for kernel in kernels for n in shared(loops(kernel))]

    assert steps
    assert max(fuse.longest(n, 4) for n in steps) < 1.1 / 4
