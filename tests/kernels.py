"""Runs single kernels, without a model around them."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite import seal
from pilite.compiler import aot, link
from pilite.compiler import cpu as cpus
from tests import native

Array = npt.NDArray[Any]
BUILD_ID = "0" * 64


@dataclass(frozen=True, eq=False)
class KernelRun:
    """One call: `function` takes pointers to `inputs` and to an output like `output`."""

    function: Any  # tirx.PrimFunc
    inputs: Sequence[Array]
    output: Array  # its dtype and shape


def results(runs: Sequence[KernelRun], cpu: str, threads: int = 1) -> list[Array]:
    """The output of every call, as computed on `cpu`."""
    arrays = [x for run in runs for x in run.inputs]
    if len(arrays) > native.MAX_INPUTS and len(runs) > 1:
        half = len(runs) // 2
        return results(runs[:half], cpu, threads) + results(runs[half:], cpu, threads)
    calls, taken = [], 0
    for i, run in enumerate(runs):
        places = [*range(taken, taken + len(run.inputs)), len(arrays) + i]
        pointers = tuple(aot.Pointer("io", place) for place in places)
        calls.append(aot.Call(f"kernel {i}", run.function, pointers))
        taken += len(run.inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        path.write_bytes(_sealed(calls, arrays, [run.output for run in runs], cpu))
        return native.opened(path, cpu, threads)(*arrays)


def _sealed(calls: Sequence[aot.Call], inputs: Sequence[Array], outputs: Sequence[Array], cpu: str) -> bytes:
    target = cpus.load(cpu)
    descriptor = link.Descriptor(
        name="kernels",
        build_id=BUILD_ID,
        target=cpu,
        cpu_required=target.required_bits,
        inputs=tuple(_end(x) for x in inputs),
        outputs=tuple(_end(y) for y in outputs),
        arena_bytes=64,
        weights_bytes=64,
    )
    library = link.link(aot.compile_calls(calls, target), bytes(64), descriptor, target)
    return seal.seal(library, {"build_id": BUILD_ID})


def _end(array: Array) -> link.End:
    return link.End("t", str(np.dtype(array.dtype)), array.shape, array.nbytes)


# What an object file asks of others.

_SHT_SYMTAB = 2


def undefined_symbols(elf: bytes) -> set[str]:
    """Names that the relocatable object `elf` (64 bits, little-endian) leaves to the linker."""
    (start,) = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, start + i * size) for i in range(count)]
    (symbols,) = (section for section in sections if section[1] == _SHT_SYMTAB)
    names = sections[symbols[6]][4]
    rows = (
        struct.unpack_from("<IBBHQQ", elf, at)
        for at in range(symbols[4], symbols[4] + symbols[5], symbols[9])
    )
    return {_name(elf, names + row[0]) for row in rows if row[0] and row[3] == 0}


def _name(elf: bytes, start: int) -> str:
    return elf[start : elf.index(b"\0", start)].decode()
