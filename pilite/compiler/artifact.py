"""The manifest, the build_id and the file on disk; a build whose inputs did not change is reused."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from pilite import seal
from pilite.compiler.cpu import TOOLCHAINS, Cpu
from pilite.compiler.graph import Graph, Tensor
from pilite.compiler.link import LOADER, Descriptor, End
from pilite.errors import CompileError, ModelError

if TYPE_CHECKING:  # imports TVM, which a build that is reused does without
    from pilite.compiler.schedule import Row

SCHEMA = "pilite.manifest/1"
TOOLS = ("apache-tvm", "apache-tvm-ffi", "numpy", "ziglang")  # whose versions decide the bytes
SOURCES = Path(__file__).parents[1]


def end(tensor: Tensor) -> End:
    """How a model input or output shows itself."""
    q = tensor.quant
    scale, zero_point = (None, None) if q is None else (q.scale, q.zero_point)
    return End(tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, scale, zero_point)


@cache
def versions() -> dict[str, str]:
    return {tool: importlib.metadata.version(tool) for tool in TOOLS}


@cache
def compiler_hash() -> str:
    """sha256 of the files that decide the bytes: the compiler itself, its data and the ABI."""
    digest = hashlib.sha256()
    files = [
        *SOURCES.glob("compiler/**/*.py"),
        *SOURCES.glob("compiler/**/*.c"),
        SOURCES / "zig.py",
        SOURCES / "seal.py",
        LOADER / "pilite_abi.h",
    ]
    for path in sorted(
        (*files, *TOOLCHAINS.glob("**/*.toml")), key=lambda p: p.relative_to(SOURCES.parent).as_posix()
    ):
        digest.update(path.relative_to(SOURCES.parent).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build_id(model_sha256: str, name: str, cpu: Cpu, options: dict[str, Any]) -> str:
    """sha256 over every input of a build: model, name, CPU, options, tool versions, compiler sources.

    The host is none (ARCHITECTURE.md, D41).
    """
    inputs = {
        "model": model_sha256,
        "name": name,
        "cpu": cpu.name,
        "options": options,
        "versions": versions(),
        "compiler": compiler_hash(),
    }
    return hashlib.sha256(seal.canonical(inputs)).hexdigest()


def manifest(
    graph: Graph, cpu: Cpu, options: dict[str, Any], d: Descriptor, kernels: dict[str, int]
) -> dict[str, Any]:
    """What the artifact says about itself, readable without loading it."""
    return {
        "schema": SCHEMA,
        "name": d.name,
        "build_id": d.build_id,
        "source_sha256": graph.sha256,
        "cpu": cpu.name,
        "arch": cpu.arch,
        "target": d.target,
        "features": sorted(cpu.features),
        "cpu_required": d.cpu_required,
        "options": options,
        "numerics": options["numerics"],
        "inputs": [_end_row(e) for e in d.inputs],
        "outputs": [_end_row(e) for e in d.outputs],
        "arena_bytes": d.arena_bytes,
        "weights_bytes": d.weights_bytes,
        "state_bytes": d.state_bytes,
        "kernels": kernels,
        "versions": versions(),
        "abi": [seal.ABI_MAJOR, seal.ABI_MINOR],
        **({"layers": layer_rows(graph)} if options["layers"] else {}),
    }


def layer_rows(graph: Graph) -> list[dict[str, Any]]:
    """What each output of a layers artifact is, in the order of the outputs."""
    return [
        {"operator": node.index, "op": node.op, "tensor": tensor}
        for node in graph.nodes
        for tensor in node.outputs
    ]


def stage_rows(graph: Graph, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What each kernel call is, in their order; operator -1: the model's own ends. class: see tuning.py.

    The call of a chain counts for its first operator.
    """
    ops = {node.index: node.op for node in graph.nodes}
    return [
        {
            "operator": row.operators[0],
            "op": " + ".join(ops.get(node, "") for node in row.operators),
            "kernel": " + ".join(row.kernels),
            "class": row.tuned_by,
        }
        for row in rows
    ]


def _end_row(e: End) -> dict[str, Any]:
    row: dict[str, Any] = {"name": e.name, "dtype": e.dtype, "shape": list(e.shape), "bytes": e.nbytes}
    return row if e.scale is None else {**row, "scale": e.scale, "zero_point": e.zero_point}


def reusable(path: Path, wanted: str) -> dict[str, Any] | None:
    """The manifest at `path` if that file is whole and has this build_id."""
    try:
        _, found = seal.unseal(path.read_bytes())
    except (OSError, ModelError):
        return None
    return found if found.get("build_id") == wanted else None


def write(path: Path, data: bytes) -> None:
    """Replace `path` in one step: a killed run leaves the old file whole. Raises CompileError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as problem:
        raise CompileError(
            f"{path}: cannot be written: {problem.strerror}. What was there before is unchanged; make "
            f"room or give yourself the right to write, and run again."
        ) from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
