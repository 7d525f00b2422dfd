"""Kernels and the order to call them in -> one object file, and the C source of the function that calls them.

    int pilite_entry(char* weights, char* arena, void* const* io)

No packed functions, no workspace, no dispatch: kernels are functions on raw pointers, called directly. The
only service that the object wants is the slot `__TVMBackendParallelLaunch`, filled by the glue at load time.

The entry is another translation unit, so that no kernel is ever inlined next to another: TVM gives every
buffer of every function its own alias type (TBAA). That is true inside a kernel, whose parameters never
overlap, and false between two kernels that use the same bytes of the arena. LLVM was seen to move the stores
of one past those of the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PrimType
from tvm.target import Target

from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels.emit import SOURCE
from pilite.compiler.link import Code
from pilite.errors import CompileError

ENTRY = "pilite_entry"
# A system call that the kernel refuses and a profiler sees: from here on runs stage number `stage`.
_MARK = "  getpriority(0x5A3, {stage});\n"


@dataclass(frozen=True)
class Pointer:
    """An argument of a call: `offset` bytes into the weights or the arena, or the io buffer `offset`."""

    base: str  # "weights" | "arena" | "io"
    offset: int


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel invocation; calls with the same `key` share one compiled function."""

    key: str
    function: tirx.PrimFunc
    arguments: tuple[Pointer, ...]


def target(cpu: Cpu) -> Target:
    """TVM's description of `cpu`."""
    spec: dict[str, Any] = {"kind": "llvm", "mtriple": cpu.triple, "mcpu": cpu.mcpu}
    if cpu.mattr:
        spec["mattr"] = list(cpu.mattr)
    return Target(spec)


def compile_calls(calls: Sequence[Call], cpu: Cpu, markers: bool = False) -> Code:
    """The code of `calls`, in order. `markers`: tells a profiler which call runs; the kernels are the same.

    Raises:
        CompileError: TVM or LLVM failed; the text names the CPU and TVM's last line.
    """
    names = _names(calls)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        _built(calls, names, cpu).write_to_file(str(path), "o")
        return Code(path.read_bytes(), _entry(calls, names, markers), _sources(calls))


def assembly(calls: Sequence[Call], cpu: Cpu) -> str:
    """The kernels of `calls` as assembler text, to be read by tests and people. Raises CompileError."""
    return str(_built(calls, _names(calls), cpu).inspect_source("asm"))


def _sources(calls: Sequence[Call]) -> tuple[str, ...]:
    """The C files that kernels call, beside them in kernels/."""
    named = (call.function.attrs[SOURCE] for call in calls if SOURCE in (call.function.attrs or {}))
    return tuple(sorted(set(map(str, named))))


def _names(calls: Sequence[Call]) -> dict[str, str]:
    """Symbol of the function of every key."""
    return {key: f"kernel_{i}" for i, key in enumerate(dict.fromkeys(call.key for call in calls))}


def _built(calls: Sequence[Call], names: dict[str, str], cpu: Cpu) -> Any:
    """TVM's module of machine code."""
    tgt = target(cpu)
    functions = {names[call.key]: call.function for call in calls}
    try:
        module = tvm.IRModule(
            {tvm.ir.GlobalVar(name): _symbol(function, name, tgt) for name, function in functions.items()}
        )
        return tvm.get_global_func("target.build.llvm")(_lower(module, tgt), tgt)
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


def _entry(calls: Sequence[Call], names: dict[str, str], markers: bool) -> str:
    """The C function that calls the kernels; the first failure ends it. Marks count from 1; 0 is outside."""
    shapes = {names[call.key]: len(call.arguments) for call in calls}
    externs = [f"extern int {name}({', '.join(['void*'] * count)});\n" for name, count in shapes.items()]
    lines = [f"  if ({names[c.key]}({', '.join(map(_argument, c.arguments))})) return 1;\n" for c in calls]
    if markers:
        externs.insert(0, "extern int getpriority(int, unsigned);\n")
        lines = [_MARK.format(stage=i) + line for i, line in enumerate(lines, 1)] + [_MARK.format(stage=0)]
    return (
        f"{''.join(externs)}int {ENTRY}(char* weights, char* arena, void* const* io) {{\n"
        f"{''.join(lines)}  return 0;\n}}\n"
    )


def _argument(p: Pointer) -> str:
    return f"io[{p.offset}]" if p.base == "io" else f"{p.base} + {p.offset}"


def _lower(module: tvm.IRModule, tgt: Target) -> tvm.IRModule:
    """The few passes that flat kernels need before LLVM.

    No StmtSimplify, NarrowDataType or RemoveNoOp: their analyzer assumes that integers never wrap,
    and it was seen to drop the min() of a clamp (softmax). LLVM simplifies what kernels leave.
    """
    with tgt:
        for step in _passes():
            module = step(module)
    return module


def _passes() -> Iterable[Any]:
    transform = tirx.transform
    return (
        transform.VectorizeLoop(True),
        transform.LowerTVMBuiltin(),
        transform.LowerIntrin(),
    )
