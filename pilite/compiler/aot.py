"""Kernels and the order to call them in -> one object file, and the C source of the function that calls them.

    int pilite_entry(char* weights, char* arena, void* const* io)

No packed functions, no workspace, no dispatch: kernels are functions on raw pointers, called directly. The
only service that the object wants is the slot `__TVMBackendParallelLaunch`, which the glue has (sharing.py).

The entry is another translation unit, so that no kernel is ever inlined next to another: TVM gives every
buffer of every function its own alias type (TBAA). That is true inside a kernel, whose parameters never
overlap, and false between two kernels that use the same bytes of the arena. LLVM was seen to move the stores
of one past those of the other.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PrimType
from tvm.target import Target
from tvm_ffi import StructuralMutator, structural_mutate

from pilite.compiler import entry, order, sharing
from pilite.compiler.cpu import Cpu
from pilite.compiler.entry import ENTRY, AnyCall, Call, Pointer
from pilite.compiler.kernels.emit import HIDDEN, IMPORT, IN_ORDER, SHARED, SOURCE
from pilite.compiler.link import Code
from pilite.compiler.sharing import knowing, unknown
from pilite.errors import CompileError

__all__ = ["ENTRY", "Call", "Pointer", "assembly", "compile_calls", "target"]


def target(cpu: Cpu) -> Target:
    """TVM's description of `cpu`."""
    spec: dict[str, Any] = {"kind": "llvm", "mtriple": cpu.triple, "mcpu": cpu.mcpu}
    if cpu.mattr:
        spec["mattr"] = list(cpu.mattr)
    return Target(spec)


def compile_calls(calls: Sequence[AnyCall], cpu: Cpu, markers: bool = False) -> Code:
    """The code of `calls`, in order. `markers`: tells a profiler which call runs; the kernels are the same.

    Raises:
        CompileError: TVM or LLVM failed; the text names the CPU and TVM's last line.
    """
    names = entry.names(calls)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        _built(calls, names, cpu).write_to_file(str(path), "o")
        return Code(path.read_bytes(), entry.source(calls, markers), _sources(calls))


def assembly(calls: Sequence[AnyCall], cpu: Cpu) -> str:
    """The kernels of `calls` as assembler text, to be read by tests and people. Raises CompileError."""
    return str(_built(calls, entry.names(calls), cpu).inspect_source("asm"))


def _sources(calls: Sequence[AnyCall]) -> tuple[str, ...]:
    """The C files that kernels call, beside them in kernels/."""
    functions = [function for call in calls for function in call.functions.values()]
    named = (function.attrs[SOURCE] for function in functions if SOURCE in (function.attrs or {}))
    return tuple(sorted(set(map(str, named))))


def _built(calls: Sequence[AnyCall], names: dict[str, str], cpu: Cpu) -> Any:
    """TVM's module of machine code."""
    functions = {names[key]: function for call in calls for key, function in call.functions.items()}
    try:
        return tvm.get_global_func("target.build.llvm")(lowered(functions, cpu), target(cpu))
    except (ValueError, RuntimeError, TypeError) as error:  # InternalError of TVM is a RuntimeError
        last = str(error).strip().splitlines()[-1]
        raise CompileError(
            f"TVM failed for {cpu.name}: {last}. This is a bug of pilite: please report the model."
        ) from error


def _symbol(function: tirx.PrimFunc, name: str, tgt: Target) -> tirx.PrimFunc:
    """`function` as int32 name(...): 0 when done. TVM's CPU lowering expects to find the two attributes."""
    body: Any = tirx.SeqStmt([function.body, tirx.Return(tirx.IntImm("int32", 0))])
    for attribute, value in (("device_id", 0), ("device_type", 1)):
        body = tirx.AttrStmt("default", attribute, tirx.IntImm("int32", value), body)
    returning = tirx.PrimFunc(function.params, body, ret_type=PrimType("int32"))
    return returning.with_attr("target", tgt).with_attr("tirx.noalias", True).with_attr("global_symbol", name)


def lowered(functions: Mapping[str, tirx.PrimFunc], cpu: Cpu) -> tvm.IRModule:
    """Kernels by name as LLVM gets them.

    No StmtSimplify, NarrowDataType or RemoveNoOp: their analyzer assumes that integers never wrap,
    and it was seen to drop the min() of a clamp (softmax). LLVM simplifies what kernels leave.
    """
    tgt = target(cpu)
    module = tvm.IRModule({tvm.ir.GlobalVar(name): _symbol(f, name, tgt) for name, f in functions.items()})
    with tgt:
        for step in _passes(cpu):
            module = step(module)
    return module


def _passes(cpu: Cpu) -> Iterable[Any]:
    transform = tirx.transform
    starts = (HIDDEN, IN_ORDER) if cpu.in_order else (HIDDEN,)
    return (
        transform.VectorizeLoop(True),
        transform.LowerTVMBuiltin(),
        transform.LowerIntrin(),
        _of_each(sharing.shared),
        _of_each(order.ordered),
        _of_each(functools.partial(unknown_starts, starts=starts)),
        imported_once,
    )


def _of_each(change: Callable[[tirx.PrimFunc], tirx.PrimFunc]) -> Callable[[tvm.IRModule], tvm.IRModule]:
    """The pass that changes every function."""
    return lambda module: tvm.IRModule({name: change(f) for name, f in module.functions.items()})


def unknown_starts(function: tirx.PrimFunc, starts: Sequence[str]) -> tirx.PrimFunc:
    """The same function, where LLVM does not know that loops of emit.SHARED with these `starts` begin at 0.

    Neither does it know where the share of a thread starts in the body of a parallel loop; so what is inside
    becomes the same code in both. Of constants it proves more: it unrolls depthwise tiles, which spill, and
    orders stores so that an in-order core waits. Out-of-order cores gain from shorter addresses,
    except in loops of emit.HIDDEN. Nor does it know how many steps there are, for the end is asked for apart.
    """

    def visit(node: tirx.For, mutator: StructuralMutator) -> Any:
        made = mutator.default_mutate(node)
        if node.annotations.get(SHARED) not in starts:
            return made
        last, end = order.stored(unknown(made.min) + made.extent)
        first, start = order.stored(unknown(made.min))
        loop = tirx.For(made.loop_var, start, end - start, made.kind, made.body)
        return knowing(tirx.SeqStmt([*last, *first, loop]))

    return function.with_body(structural_mutate(function.body, (tirx.For, visit)))


def imported_once(module: tvm.IRModule) -> tvm.IRModule:
    """The same module, where every LLVM text that kernels bring along (`emit.reload`) is linked once.

    TVM links it at every use, in time proportional to what the module holds by then.
    """
    known: set[str] = set()

    def visit(node: tirx.AttrStmt, mutator: StructuralMutator) -> Any:
        if node.attr_key != IMPORT:
            return mutator.default_mutate(node)
        if node.value.value in known:
            return mutator.mutate(node.body)
        known.add(node.value.value)
        return mutator.default_mutate(node)

    functions = sorted(module.functions.items(), key=lambda item: str(item[0].name_hint))
    once = {name: f.with_body(structural_mutate(f.body, (tirx.AttrStmt, visit))) for name, f in functions}
    return tvm.IRModule(once)
