"""No host has a choice: of the operands that C++ may compute in any order, one at most is code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.script.ir_builder import tirx as T
from tvm_ffi import structural_walk

from pilite.compiler import aot, order, sharing
from pilite.compiler import cpu as cpus
from pilite.compiler.kernels import select
from pilite.compiler.kernels.emit import Param, Share, emitting, function
from tests.kernels import KernelRun, results
from tests.samples import SMALL, samples

NAMES = ("cortex-a53", "cortex-a76", "x86-64-v3", "x86-64-v4")


def is_kept(node: Any) -> bool:
    """Whether it is a register that was filled before."""
    return isinstance(node, TensorLoad) and node.source.name == order.OPERAND


def choices(kernel: tirx.PrimFunc) -> list[Any]:
    """The expressions with two operands, and loops with two bounds, that C++ may compute in any order."""
    found = []

    def visit(node: Any) -> None:
        of_select = isinstance(node, tirx.Select)
        parts = (node.condition, node.true_value, node.false_value) if of_select else (node.a, node.b)
        if sum(order.is_computed(part) and not is_kept(part) for part in parts) > 1:
            found.append(node)

    def visit_loop(node: tirx.For) -> None:
        begins = order.is_computed(node.min) and not is_kept(node.min)
        if begins or (node.kind == tirx.ForKind.PARALLEL and node.extent != sharing.ONCE):
            found.append(node)

    structural_walk(kernel.body, [((tirx.Select, *order.BINARY), visit), (tirx.For, visit_loop)])
    return found


def kernels(cpu: cpus.Cpu) -> dict[str, tirx.PrimFunc]:
    """A kernel for every sample."""
    made = {}
    for number, sample in enumerate(samples(SMALL)):
        family = select(sample.spec, sample.arrays, cpu).family
        variant, _ = family.prepare(sample.spec, sample.arrays)
        name = f"kernel_{number}"
        made[name] = family.emit(name, sample.spec, variant, sample.xs, sample.y, cpu)
        if family.share:
            with emitting(Share.BLOCKS):
                made[f"{name}_blocks"] = family.emit(name, sample.spec, variant, sample.xs, sample.y, cpu)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_no_kernel_leaves_a_choice(name: str) -> None:
    cpu = cpus.load(name)
    module = aot.lowered(kernels(cpu), cpu)

    assert [found for kernel in module.functions.values() for found in choices(kernel)] == []


def test_what_is_kept_before_a_statement_changes_no_result() -> None:
    """Of operands that contain operands, in a loop and under a condition that a store in the loop changes."""

    def body(x: Any, y: Any) -> None:
        with T.serial(0, 7) as i, T.If(x[i] * x[i + 1] > y[0] + y[1]):
            with T.Then():
                T.buffer_store(y, (x[i] - x[i + 1]) * (x[i] + y[1] * x[i + 1]) - (x[i] ^ x[i + 1]), [0])
            with T.Else():
                T.buffer_store(y, tirx.Select(x[i] < x[i + 1], y[0] - x[i], y[1] * x[i] + y[0]), [1])

    kernel = function("kernel", [Param("x", "int32", 8), Param("y", "int32", 2)], body)
    x = np.array([3, -5, 7, 2, 2, -9, 4, 1], np.int32)
    y = [0, 0]
    for a, b in zip(x.tolist(), x.tolist()[1:], strict=False):
        if a * b > y[0] + y[1]:
            y[0] = (a - b) * (a + y[1] * b) - (a ^ b)
        else:
            y[1] = y[0] - a if a < b else y[1] * a + y[0]
    run = KernelRun(kernel, [x], np.zeros(2, np.int32))

    assert choices(kernel)
    assert not choices(order.ordered(kernel))
    for cpu in ("x86-64-v3", "cortex-a53"):
        np.testing.assert_array_equal(results([run], cpu)[0], np.array(y, np.int32))


def test_an_expression_that_may_not_be_computed_early_is_refused() -> None:
    def body(x: Any, y: Any) -> None:
        T.buffer_store(y, tirx.if_then_else(x[0] > 0, x[1] * x[2], T.int32(0)), [0])

    with pytest.raises(AssertionError, match="say in which order"):
        order.ordered(function("kernel", [Param("x", "int32", 3), Param("y", "int32", 1)], body))
