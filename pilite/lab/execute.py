"""Run an artifact on this machine, for its outputs: in this process, or aarch64 code under qemu-user.

What runs under an emulator is exact in its bytes and says nothing about time.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from loader.pilite import Model
from loader.pilite import PiliteError as Refusal
from pilite.errors import BoardError, CheckFailed
from pilite.lab.artifact import Artifact
from pilite.lab.loader import Arch, build_loader

Array = npt.NDArray[Any]
Arrays = Sequence[Array]

SYSROOT = Path("/usr/aarch64-linux-gnu")  # of Debian's libc6-arm64-cross
LIMIT_S = 600.0  # of one emulated run
REFUSED = 2  # pilite-run's exit code for an artifact that it does not open


def outputs(artifact: Artifact, sets: Sequence[Arrays], threads: int, artifacts: Path) -> list[list[Array]]:
    """The artifact's outputs for each set of inputs.

    Raises:
        BoardError: this machine can neither run nor emulate the artifact's CPU, or the loader refused it.
        CheckFailed: a run failed or crashed.
    """
    if artifact.arch == platform.machine():
        return _in_process(artifact, sets, threads, artifacts)
    if artifact.arch != "aarch64":
        raise BoardError(
            f"{artifact.path} is for {artifact.arch}; this machine is {platform.machine()}. Run it there."
        )
    return _emulated(artifact, sets, threads, artifacts)


def places(threads: int) -> list[int] | None:
    """A CPU for every thread if this process may use fewer; else the loader would start only as many."""
    here = sorted(os.sched_getaffinity(0))
    return [here[i % len(here)] for i in range(threads)] if threads > len(here) else None


def placed(threads: int) -> list[str]:
    """Words of pilite-run for exactly so many threads."""
    cpus = places(threads)
    return ["--threads", str(threads), *(["--cpus", ",".join(map(str, cpus))] if cpus else [])]


def emulator(cpu: str, root: Path = SYSROOT) -> list[str]:
    """The words before an aarch64 program that run it as on `cpu`; it sees the libraries below `root`.

    Raises BoardError without an emulator.
    """
    if shutil.which("qemu-aarch64") is None or not root.is_dir():
        raise BoardError(f"Code for {cpu} needs an emulator here: apt install qemu-user libc6-arm64-cross.")
    return ["qemu-aarch64", "-cpu", cpu, "-L", str(root)]


def _in_process(
    artifact: Artifact, sets: Sequence[Arrays], threads: int, artifacts: Path
) -> list[list[Array]]:
    library = build_loader(cast(Arch, artifact.arch), artifacts).library
    try:
        with Model(artifact.path, threads=threads, cpus=places(threads), library=library) as model:
            return [_fresh(model, arrays) for arrays in sets]
    except Refusal as problem:
        raise (CheckFailed if problem.status == "RUN" else BoardError)(str(problem)) from None


def _fresh(model: Model, arrays: Arrays) -> list[Array]:
    """As the first run: an LSTM must not remember the set before."""
    model.reset()
    return model.run(*arrays)


def _emulated(artifact: Artifact, sets: Sequence[Arrays], threads: int, artifacts: Path) -> list[list[Array]]:
    """One emulator per set, as many at a time as there are CPUs."""
    runner = build_loader("aarch64", artifacts).runner
    command = [*emulator(artifact.cpu), str(runner), str(artifact.path), *placed(threads)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda arrays: _run(command, arrays, len(artifact.outputs)), sets))


def _run(command: Sequence[str], arrays: Sequence[Array], count: int) -> list[Array]:
    """One run of pilite-run; arrays travel as .npy files."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/in.{i}.npy" for i in range(len(arrays))]
        for file, array in zip(files, arrays, strict=True):
            np.save(file, array)
        given = [word for file in files for word in ("--input", file)]
        words = [*command, *given, "--output", f"{folder}/out"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{' '.join(command)}: no end after {LIMIT_S:.0f} s.") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [""])[-1]
            failure = BoardError if done.returncode == REFUSED else CheckFailed
            raise failure(f"{' '.join(command)}: {_ending(done.returncode)}: {last}")
        return [np.load(f"{folder}/out.{i}.npy", allow_pickle=False) for i in range(count)]


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
