"""Shares of a parallel loop: together every step once, for any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm_ffi import structural_walk

from pilite.compiler import sharing
from pilite.compiler.kernels.emit import Param, function
from tests.kernels import KernelRun, results

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
    found: list[tirx.For] = []
    body = sharing.shared(counting(9)).body
    structural_walk(body, (tirx.For, found.append))

    parallel = [int(loop.extent) for loop in found if loop.kind == tirx.ForKind.PARALLEL]
    assert parallel == [sharing.ONCE]
    assert [loop.kind for loop in found].count(tirx.ForKind.SERIAL) == 2
