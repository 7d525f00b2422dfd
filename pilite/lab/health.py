"""What a release has to compute before a board switches to it: TFLite's bytes for one seeded input."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from pilite.errors import PiliteError
from pilite.lab import inputs, oracle
from pilite.lab.artifact import Artifact
from pilite.lab.boards import Board
from pilite.lab.deploy import HEALTH_SEED, built_artifact

Array = npt.NDArray[Any]


class Source(Protocol):
    """A model by name, and its .tflite."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...


class Answers:
    """`expected`, computed once per artifact for all boards that get it."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts, self._lock = artifacts, threading.Lock()
        self._known: dict[Path, list[Array] | None] = {}

    def of(self, board: Board, source: Source, numerics: str) -> list[Array] | None:
        built = built_artifact(board, source.name, self._artifacts, numerics)
        with self._lock:
            if built.path not in self._known:
                self._known[built.path] = expected(built, source.path, self._artifacts)
            return self._known[built.path]


def expected(built: Artifact, tflite: Path, artifacts: Path) -> list[Array] | None:
    """The outputs for the input of the health check; None where the TFLite of the promise has no wheel.

    Raises PiliteError if the artifact was built from another file.
    """
    if hashlib.sha256(tflite.read_bytes()).hexdigest() != built.source_sha256:
        raise PiliteError(
            f"{built.path} was built from another file than {tflite}. Build it again, then deploy."
        )
    judge = oracle.promised(built.numerics, built.fully_connected, built.cpu)
    if not oracle.is_promised(judge, built.numerics, built.fully_connected, built.cpu):
        return None
    return oracle.expected(judge, tflite, inputs.random_inputs(built.inputs, HEALTH_SEED), artifacts)
