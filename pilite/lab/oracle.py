"""What is right: outputs of TFLite's reference kernels, computed here and kept below artifacts/oracle/.

BUILTIN_REF gives the same bytes on every machine, so an emulated board need not compute it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.errors import PiliteError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Oracle:
    """A TFLite in this environment; `name` is what results say: "tflite-runtime 2.14.0 BUILTIN_REF"."""

    module: str
    package: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.package} {self.version} BUILTIN_REF"


# The first that is installed. tflite-runtime defines `ref`; it has no wheel for Python 3.12.
CANDIDATES = (
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
)


def find() -> Oracle:
    """The oracle of this environment. Raises PiliteError if no TFLite is installed."""
    for module, package in CANDIDATES:
        try:
            return Oracle(module, package, metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    raise PiliteError(
        "No TFLite to compare with: neither tflite-runtime nor ai-edge-litert is installed here."
    )


def expected(oracle: Oracle, model: Path, inputs: Sequence[Array], artifacts: Path) -> list[Array]:
    """The model's outputs for one set of inputs; computed once per (oracle, model, inputs)."""
    kept = artifacts / "oracle" / f"{_key(oracle, model, inputs)}.npz"
    if not kept.is_file():
        _keep(kept, compute(oracle, model, inputs))
    with np.load(kept, allow_pickle=False) as arrays:
        return [arrays[name] for name in arrays.files]


def compute(oracle: Oracle, model: Path, inputs: Sequence[Array]) -> list[Array]:
    """Run the reference kernels; slow, a second or more for a MobileNet."""
    tflite = importlib.import_module(oracle.module)
    interpreter = tflite.Interpreter(
        model_path=str(model), experimental_op_resolver_type=tflite.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]


def _key(oracle: Oracle, model: Path, inputs: Sequence[Array]) -> str:
    digest = hashlib.sha256(oracle.name.encode() + hashlib.sha256(model.read_bytes()).digest())
    for array in inputs:
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:32]


def _keep(path: Path, outputs: Sequence[Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    np.savez(data, *outputs)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data.getvalue())
    beside.replace(path)
