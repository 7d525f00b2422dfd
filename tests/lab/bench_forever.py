"""Bench a stub below a folder until killed; test_history.py does. `python -m tests.lab.bench_forever FOLDER`

Prints "ready", then the name of every run once it is in the history.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pilite.lab import bench, boards, deploy, history, oracle, protocol, trial
from tests.lab.stub import MODEL, Stub


def right(judge: object, model: Path, arrays: Sequence[Any], artifacts: Path) -> list[Any]:
    return [(array + np.int8(1)).astype(np.int8) for array in arrays]


def main(root: Path) -> None:
    artifacts, source = root / "artifacts", root / "stub.tflite"
    board = replace(boards.load("local", artifacts), root=str(root / "board"))
    source.write_bytes(b"the model")
    Stub().write(artifacts, board, hashlib.sha256(b"the model").hexdigest())
    settings = replace(protocol.FUNCTIONAL, limit_s=60, total_s=300)
    vars(oracle)["expected"] = right
    with boards.connect(board, artifacts) as connection:
        deploy.deploy(board, connection, MODEL, artifacts)
        print("ready", flush=True)
        while True:
            subject = trial.Subject(MODEL, source)
            done = bench.bench(
                board, connection, [subject], artifacts, rivals=(), threads=(1,), settings=settings
            )
            with history.opened(artifacts):
                print(done.folder.name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
