"""From calls to code: every distinct kernel once, called in order, and never mixed with another one."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler import aot, lower, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler.kernels.emit import (
    HIDDEN,
    IMPORT,
    IN_ORDER,
    Param,
    Share,
    emitting,
    function,
    load,
    loop,
    reload,
    stack,
    store,
)
from pilite.compiler.numerics import Numerics
from pilite.compiler.schedule import Scheduled, schedule
from pilite.errors import CompileError
from tests import native, one_op
from tests.batch import check_bits, compiled
from tests.few_ops import GRAPHS, made
from tests.kernels import KernelRun, results, undefined_symbols
from tests.nets import Net

X86 = cpus.load("x86-64-v3")
IN, OUT = aot.Pointer("io", 0), aot.Pointer("io", 1)


def scheduled(net_graph: Any, cpu: cpus.Cpu = X86) -> Scheduled:
    case = made(net_graph, "int8", 0)
    return schedule(lower.lower(tflite.parse(case.model, case.name), Numerics()), cpu)


def calls_of(graph: Any, cpu: cpus.Cpu = X86) -> list[aot.Call]:
    """Without chains and regions, which `schedule` makes only if it is asked to."""
    return [call for call in scheduled(graph, cpu).calls if isinstance(call, aot.Call)]


def increment(by: int, count: int = 16) -> tirx.PrimFunc:
    def body(x: Any, y: Any) -> None:
        store(y, 0, load(x, 0, count) + T.broadcast(T.int8(by), count), count)

    return function("kernel", [Param("x", "int8", count), Param("y", "int8", count)], body)


# The entry.


def test_calls_of_equal_kernels_share_one_function() -> None:
    one = increment(1)
    calls = [
        aot.Call("a", one, (IN, OUT)),
        aot.Call("b", increment(2), (IN, OUT)),
        aot.Call("a", one, (OUT, IN)),
    ]
    code = aot.compile_calls(calls, X86)

    assert Counter(re.findall(r"if \((kernel_\d+)\(", code.entry)) == {"kernel_0": 2, "kernel_1": 1}
    assert code.entry.count("extern int kernel_") == 2


def test_a_text_that_kernels_bring_along_is_linked_once_and_serves_all_of_them() -> None:
    def body(x: Any, y: Any) -> None:
        for at in (0, 4):
            store(y, at, reload(x, at), 4)

    kernel = function("kernel", [Param("x", "int32", 8), Param("y", "int32", 8)], body)
    module = tvm.IRModule({tvm.ir.GlobalVar(name): kernel for name in ("a", "b")})
    a53 = cpus.load("cortex-a53")
    calls = [aot.Call(name, kernel, (IN, OUT)) for name in ("a", "b")]

    assert str(module).count(IMPORT) == 4
    assert str(aot.imported_once(module)).count(IMPORT) == 1
    assert "pilite_reload" not in aot.assembly(calls, a53)  # in line, everywhere


@pytest.mark.parametrize(
    ("cpu", "start", "hidden"),
    [("cortex-a53", IN_ORDER, True), ("cortex-a72", IN_ORDER, False), ("cortex-a72", HIDDEN, True)],
)
def test_llvm_does_not_know_where_a_shared_loop_starts_on_these_cores(
    cpu: str, start: str, hidden: bool
) -> None:
    def body(x: Any, y: Any) -> None:
        with loop(4, parallel=True, start=start) as i:
            store(y, i * 4, load(x, i * 4, 4), 4)

    with emitting(Share.ROWS):
        kernel = function("kernel", [Param("x", "int32", 16), Param("y", "int32", 16)], body)

    assert ("pilite_unknown" in str(aot.lowered({"kernel": kernel}, cpus.load(cpu)))) is hidden


def test_equal_operators_of_a_model_are_compiled_once() -> None:
    def pools(net: Net) -> list[int]:
        x = net.input(1, 8, 8, 16)
        for _ in range(5):
            x = net.pool(x, "MAX")
        return [x]

    keys = Counter(call.key for call in calls_of(pools) if "Pool" in call.key)
    assert list(keys.values()) == [5]


def test_calls_stay_in_order() -> None:
    calls = calls_of(GRAPHS[1])
    entry = aot.compile_calls(calls, X86).entry
    order = dict.fromkeys(call.key for call in calls)
    expected = [f"kernel_{list(order).index(call.key)}" for call in calls]

    assert re.findall(r"if \((kernel_\d+)\(", entry) == expected


@pytest.mark.parametrize(
    ("pointer", "text"),
    [
        (aot.Pointer("arena", 128), "arena + 128"),
        (aot.Pointer("weights", 0), "weights + 0"),
        (aot.Pointer("io", 3), "io[3]"),
    ],
)
def test_an_argument_is_a_place_in_a_buffer(pointer: aot.Pointer, text: str) -> None:
    call = aot.Call("a", increment(1), (pointer, OUT))

    assert f"kernel_0({text}, io[1])" in aot.compile_calls([call], X86).entry


def test_every_argument_lies_inside_its_buffer() -> None:
    """Offsets from the scheduler, aligned, for all graphs."""
    for graph in GRAPHS:
        s = scheduled(graph)
        sizes = {"arena": s.arena_bytes, "weights": len(s.weights), "io": 100}
        pointers = [p for call in calls_of(graph) for p in call.arguments]
        assert all(0 <= p.offset < sizes[p.base] for p in pointers), graph.__name__
        assert all(p.base == "io" or p.offset % 64 == 0 for p in pointers), graph.__name__


# Code.


@pytest.mark.parametrize("cpu", ["x86-64-v3", "cortex-a53"])
def test_kernels_are_separate_functions(cpu: str) -> None:
    """None is inlined into another: TVM's alias types are wrong across kernels (see aot.py)."""
    calls = calls_of(GRAPHS[1], cpus.load(cpu))
    text = aot.assembly(calls, cpus.load(cpu))
    defined = set(re.findall(r"^(\w+):", text, re.MULTILINE))

    assert {f"kernel_{i}" for i in range(len({call.key for call in calls}))} <= defined
    assert aot.ENTRY not in defined


@pytest.mark.parametrize("cpu", native.EVERY_CPU)
def test_a_fill_is_not_moved_behind_the_copy_into_it(cpu: str) -> None:
    """Models whose kernels are so small that LLVM inlined them, and then reordered their stores."""
    names = (
        ("PADV2", "int8", 1000003),
        ("PADV2", "int8", 1000001),
        ("PAD", "uint8", 3),
        ("ADD", "int8", 1000003),
    )

    check_bits([one_op.seeded(*name) for name in names], cpu)


def test_the_object_needs_only_the_thread_pool_slot() -> None:
    for graph in GRAPHS[:3]:
        code = aot.compile_calls(scheduled(graph).calls, X86)
        assert undefined_symbols(code.kernels) <= {"memcpy", "memset", "_GLOBAL_OFFSET_TABLE_"}


def test_the_same_calls_give_the_same_code() -> None:
    first, second = (aot.compile_calls(scheduled(GRAPHS[1]).calls, X86) for _ in range(2))

    assert first == second


# Failures.


def test_a_failure_of_tvm_names_the_cpu_and_the_reason() -> None:
    def body(y: Any) -> None:
        store(y, 0, tirx.Var("nowhere", "int32"), 1)

    with pytest.raises(CompileError, match=r"TVM failed for x86-64-v3: .+\. This is a bug of pilite"):
        aot.compile_calls([aot.Call("a", function("k", [Param("y", "int32", 4)], body), ())], X86)


def test_a_buffer_that_would_go_to_the_heap_is_refused() -> None:
    def body(y: Any) -> None:
        stack(1024, "int8", 1)

    with pytest.raises(AssertionError, match="does not fit the stack rule"):
        function("k", [Param("y", "int8", 4)], body)


# Threads.


def test_a_parallel_loop_runs_every_step_once(tmp_path: Path) -> None:
    """Odd numbers of steps over odd numbers of threads."""
    steps = 1001

    def body(x: Any, y: Any) -> None:
        with loop(steps, parallel=True) as i:
            store(y, i, y[i] + x[i] + T.int32(1), 1)

    run = KernelRun(
        function("k", [Param("x", "int32", steps), Param("y", "int32", steps)], body),
        [np.arange(steps, dtype=np.int32)],
        np.empty(steps, np.int32),
    )
    for threads in (1, 2, 3, 7):
        (got,) = results([run], native.HERE, threads)
        np.testing.assert_array_equal(got, np.arange(1, steps + 1))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(tmp_path: Path, threads: int) -> None:
    def graph(net: Net) -> list[int]:
        x = net.conv(net.input(1, 33, 35, 8), 24)
        return [net.softmax(net.mean(net.add(x, net.depthwise(x))))]

    case = made(graph, "uint8", 0)
    path = compiled(tflite.parse(case.model, case.name), native.HERE, tmp_path / "model.so")
    (alone,) = native.opened(path, native.HERE, 1)(*case.inputs)
    runner = native.opened(path, native.HERE, threads)

    for _ in range(20):
        np.testing.assert_array_equal(runner(*case.inputs)[0], alone)
