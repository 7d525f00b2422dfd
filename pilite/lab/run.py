"""Run one artifact once on this machine and keep what it computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.errors import PiliteError
from pilite.lab import artifact, execute, inputs
from pilite.lab.artifact import Artifact

Array = npt.NDArray[Any]

LARGEST = 5


@dataclass(frozen=True)
class Ran:
    """An artifact and its outputs for one set of inputs."""

    artifact: Artifact
    outputs: tuple[Array, ...]

    def rows(self) -> list[dict[str, object]]:
        """One row per output, with its largest elements: for a classifier, its answer."""
        return [
            {
                "output": info.name,
                "dtype": info.dtype,
                "shape": "x".join(map(str, info.shape)),
                "smallest": values.min().item(),
                "largest": values.max().item(),
                "at": ", ".join(
                    map(str, np.argsort(-values.astype(np.float64), axis=None, kind="stable")[:LARGEST])
                ),
            }
            for info, values in zip(self.artifact.outputs, self.outputs, strict=True)
        ]


def run(path: Path, texts: Sequence[str], threads: int, artifacts: Path) -> Ran:
    """Run the artifact at `path` on `texts` (values of --input).

    Raises:
        PiliteError: no artifact, or an input that does not fit.
        BoardError: this machine can neither run nor emulate it.
        CheckFailed: the run failed.
    """
    found = artifact.read(path)
    arrays = inputs.parse(texts, found.inputs)
    return Ran(found, tuple(execute.outputs(found, [arrays], threads, artifacts)[0]))


def save(ran: Ran, path: Path) -> None:
    """Write the outputs as arrays "0", "1" ... of an .npz.

    Raises PiliteError if the file cannot be written.
    """
    try:
        with path.open("wb") as file:
            np.savez(file, **{str(index): values for index, values in enumerate(ran.outputs)})
    except OSError as problem:
        raise PiliteError(f"--output {path}: cannot be written: {problem.strerror}.") from None
