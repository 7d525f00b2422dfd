"""What a release has to compute before a board switches to it: TFLite's bytes for one seeded input."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pilite.errors import PiliteError
from pilite.lab import inputs, oracle
from pilite.lab.artifact import Artifact
from pilite.lab.deploy import HEALTH_SEED

Array = npt.NDArray[Any]


def expected(built: Artifact, tflite: Path, artifacts: Path) -> list[Array] | None:
    """The outputs for the input of the health check; None where the TFLite of the promise has no wheel.

    Raises PiliteError if the artifact was built from another file.
    """
    if hashlib.sha256(tflite.read_bytes()).hexdigest() != built.source_sha256:
        raise PiliteError(
            f"{built.path} was built from another file than {tflite}. Build it again, then deploy."
        )
    judge = oracle.promised(built.numerics, built.fully_connected, built.cpu)
    if not oracle.is_promised(judge, built.numerics, built.fully_connected):
        return None
    return oracle.expected(judge, tflite, inputs.random_inputs(built.inputs, HEALTH_SEED), artifacts)
