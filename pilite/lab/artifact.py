"""What the lab needs to know about an artifact, read from its manifest; the code in it is not touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilite import seal
from pilite.errors import ModelError, PiliteError


@dataclass(frozen=True)
class TensorInfo:
    """One input or output; real = scale * (q - zero_point), both None if it is not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Layer:
    """An output that is an operator's: its index and name in the source model, and its tensor there."""

    operator: int
    op: str
    tensor: int


@dataclass(frozen=True)
class Operand:
    """An operator's input: its tensor in the source model, and its position in the model's inputs or -1."""

    tensor: int
    position: int


@dataclass(frozen=True)
class Artifact:
    """A compiled model on this machine."""

    path: Path
    model: str
    cpu: str
    numerics: str
    build_id: str
    source_sha256: str  # of the .tflite file
    arch: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    fully_connected: str = "q31"  # "f64": rounds as newer reference kernels
    layers: tuple[Layer, ...] = ()  # what each output is, where every operator's output is one
    operands: tuple[Operand, ...] = ()  # what each input is, where every operator has its own
    options: Mapping[str, Any] = field(default_factory=dict)  # of the build


def place(artifacts: Path, model: str, cpu: str, numerics: str) -> Path:
    """Where `build` puts an artifact."""
    return artifacts / model / cpu / numerics / "model.so"


def read(path: Path) -> Artifact:
    """Read and check an artifact. Raises PiliteError if it is missing, ModelError if it is damaged."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise PiliteError(f"{path}: {problem.strerror}. `build` makes artifacts.") from None
    try:
        _, manifest = seal.unseal(data)
    except ModelError as problem:
        raise ModelError(f"{path}: {problem}") from None
    return of_manifest(path, manifest)


def of_manifest(path: Path, manifest: dict[str, Any]) -> Artifact:
    """The same from a manifest that was read elsewhere. Raises ModelError if a value is missing."""
    try:
        return _typed(path, manifest)
    except (KeyError, TypeError, ValueError) as problem:
        raise ModelError(f"{path}: its manifest lacks a value ({problem}). Build it again.") from None


def _typed(path: Path, manifest: dict[str, Any]) -> Artifact:
    return Artifact(
        path=path,
        model=str(manifest["name"]),
        cpu=str(manifest["cpu"]),
        numerics=str(manifest["numerics"]),
        build_id=str(manifest["build_id"]),
        source_sha256=str(manifest["source_sha256"]),
        arch=str(manifest["arch"]),
        inputs=tuple(map(_tensor, manifest["inputs"])),
        outputs=tuple(map(_tensor, manifest["outputs"])),
        fully_connected=str(manifest.get("options", {}).get("fully_connected", "q31")),
        layers=tuple(Layer(**row) for row in manifest.get("layers", ())),
        operands=tuple(Operand(*row) for row in manifest.get("operands", ())),
        options=dict(manifest.get("options", {})),
    )


def _tensor(entry: dict[str, Any]) -> TensorInfo:
    return TensorInfo(
        name=str(entry["name"]),
        shape=tuple(int(size) for size in entry["shape"]),
        dtype=str(entry["dtype"]),
        scale=entry.get("scale"),
        zero_point=entry.get("zero_point"),
    )
