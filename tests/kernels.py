"""Runs single kernels, without a model around them."""

from __future__ import annotations

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


def results(runs: Sequence[KernelRun], cpu: str) -> list[Array]:
    """The output of every call, as computed on `cpu`."""
    arrays = [x for run in runs for x in run.inputs]
    calls, taken = [], 0
    for i, run in enumerate(runs):
        places = [*range(taken, taken + len(run.inputs)), len(arrays) + i]
        pointers = tuple(aot.Pointer("io", place) for place in places)
        calls.append(aot.Call(f"kernel {i}", run.function, pointers))
        taken += len(run.inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        path.write_bytes(_sealed(calls, arrays, [run.output for run in runs], cpu))
        return native.opened(path, cpu)(*arrays)


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
