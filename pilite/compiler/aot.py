"""Kernels and the order to call them in -> one object file with one C entry point.

    int pilite_entry(void* weights, void* arena, void* io0, void* io1, ...)

No packed functions, no workspace, no dispatch: kernels are private functions on raw pointers, called
directly. The
only service that the object wants is the slot `__TVMBackendParallelLaunch`, which the glue fills at load
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType
from tvm.target import Target

from pilite.compiler.cpu import Cpu
from pilite.errors import CompileError

ENTRY = "pilite_entry"


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


def compile_object(calls: Sequence[Call], io_count: int, cpu: Cpu) -> bytes:
    """The object file (ELF, position independent) for `calls` in order.

    Raises:
        CompileError: TVM or LLVM failed; the text names the CPU and TVM's last line.
    """
    try:
        return _emit(_lower(_module(calls, io_count, target(cpu)), target(cpu)), target(cpu))
    except (tvm.error.TVMError, ValueError, RuntimeError) as error:
        last = str(error).strip().splitlines()[-1]
        raise CompileError(
            f"TVM failed for {cpu.name}: {last}. This is a bug of pilite: please report the model."
        ) from error


def _module(calls: Sequence[Call], io_count: int, tgt: Target) -> tvm.IRModule:
    functions: dict[tvm.ir.GlobalVar, tirx.PrimFunc] = {}
    symbols: dict[str, tvm.ir.GlobalVar] = {}
    for call in calls:
        if call.key not in symbols:
            symbols[call.key] = tvm.ir.GlobalVar(f"kernel_{len(symbols)}")
            functions[symbols[call.key]] = _returning(call.function, tgt)
    functions[tvm.ir.GlobalVar(ENTRY)] = _entry(calls, symbols, io_count, tgt)
    return tvm.IRModule(functions)


def _int32(value: int) -> tirx.IntImm:
    return tirx.IntImm("int32", value)


def _returning(function: tirx.PrimFunc, tgt: Target) -> tirx.PrimFunc:
    """`function` as int32 f(...): 0 when done. The two attributes are what TVM's CPU lowering expects to
    find.
    """
    body: Any = tirx.SeqStmt([function.body, tirx.Return(_int32(0))])
    for attribute, value in (("device_id", 0), ("device_type", 1)):
        body = tirx.AttrStmt("default", attribute, _int32(value), body)
    returning = tirx.PrimFunc(function.params, body, ret_type=PrimType("int32"))
    return returning.with_attr("target", tgt).with_attr("tirx.noalias", True)


def _entry(
    calls: Sequence[Call], symbols: dict[str, tvm.ir.GlobalVar], io_count: int, tgt: Target
) -> tirx.PrimFunc:
    def pointer(name: str) -> tirx.Var:
        return tirx.Var(name, PointerType(PrimType("int8")))

    bases = {"weights": pointer("weights"), "arena": pointer("arena")}
    io = [pointer(f"io{i}") for i in range(io_count)]

    def argument(p: Pointer) -> Any:
        if p.base == "io":
            return io[p.offset]
        return tirx.op.handle_add_byte_offset(bases[p.base], _int32(p.offset))

    def statement(call: Call) -> Any:
        code = tvm.ir.Call(symbols[call.key], [argument(p) for p in call.arguments], ret_ty=PrimType("int32"))
        # A kernel's failure is sticky in the loader's pool; LLVM code generation allows only "return 0" here.
        return tirx.IfThenElse(tirx.NE(code, _int32(0)), tirx.Return(_int32(0)), None)

    body = tirx.SeqStmt([*map(statement, calls), tirx.Return(_int32(0))])
    entry = tirx.PrimFunc([*bases.values(), *io], body, ret_type=PrimType("int32"))
    return entry.with_attr("global_symbol", ENTRY).with_attr("target", tgt).with_attr("calling_conv", 1)


def _lower(module: tvm.IRModule, tgt: Target) -> tvm.IRModule:
    """The few passes that flat kernels need before LLVM.

    No StmtSimplify, NarrowDataType or RemoveNoOp: their analyzer assumes that integers never wrap, and it
    was seen to
    drop the min() of a clamp (softmax). LLVM simplifies what kernels leave.
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


def _emit(module: tvm.IRModule, tgt: Target) -> bytes:
    import tempfile
    from pathlib import Path

    built = tvm.get_global_func("target.build.llvm")(module, tgt)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.o"
        built.write_to_file(str(path), "o")
        return path.read_bytes()
