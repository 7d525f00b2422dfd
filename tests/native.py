"""Runs compiled artifacts: those for this machine in this process, aarch64 ones elsewhere under qemu-user."""

from __future__ import annotations

import functools
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pytest

from loader.pilite import Model
from loader.pilite import PiliteError as LoaderError
from pilite.compiler import cpu as cpus
from pilite.lab.execute import placed, places
from pilite.lab.loader import Arch, LoaderFiles, build_loader
from tests.conftest import HARDWARE, ROOT

ARTIFACTS = ROOT / "artifacts"
SYSROOT = Path("/usr/aarch64-linux-gnu")
TIMEOUT_SECONDS = 600
MAX_INPUTS = 64  # of pilite-run

Array = npt.NDArray[Any]

# A CPU whose code runs in this process, on any machine that pilite is developed on.
HERE = {"x86_64": "x86-64-v3", "aarch64": "cortex-a53"}[platform.machine()]
# The CPUs that every claim about numbers is tested on: their kernels differ.
EVERY_CPU = tuple(
    pytest.param(name, marks=[pytest.mark.qemu] if cpus.load(name).arch == "aarch64" else [])
    for name in cpus.names()
)


class Runner(Protocol):
    """One opened artifact."""

    def __call__(self, *inputs: Array) -> list[Array]:
        """The outputs for these inputs."""


@functools.cache
def loader(arch: str) -> LoaderFiles:
    """The loader of this checkout for `arch`."""
    return build_loader(cast(Arch, arch), ARTIFACTS)


def opened(path: Path, cpu: str, threads: int = 1) -> Runner:
    """`path` ready to run as on `cpu`; skips where this machine cannot."""
    arch = cpus.load(cpu).arch
    if arch == platform.machine():
        return _in_process(path, threads)
    if arch != "aarch64":
        pytest.skip(f"{HARDWARE} {arch} code needs an {arch} machine")
    return functools.partial(_emulated, path, cpu, threads)


def _in_process(path: Path, threads: int) -> Runner:
    try:
        model = Model(path, threads=threads, cpus=places(threads), library=loader(platform.machine()).library)
    except LoaderError as refusal:
        if refusal.status == "CPU":
            pytest.skip(f"{HARDWARE} {refusal}")
        raise

    def run(*inputs: Array) -> list[Array]:
        model.reset()
        return model.run(*inputs)

    return run


def _emulated(path: Path, cpu: str, threads: int, *inputs: Array) -> list[Array]:
    """pilite-run under qemu-aarch64; arrays travel as .npy files."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*emulator(cpu), str(loader("aarch64").runner), str(path), *placed(threads)]
        for i, array in enumerate(inputs):
            np.save(f"{folder}/in{i}.npy", array)
            command += ["--input", f"{folder}/in{i}.npy"]
        run_command([*command, "--output", f"{folder}/out"])
        outputs = len(list(Path(folder).glob("out.*.npy")))
        return [np.load(f"{folder}/out.{i}.npy") for i in range(outputs)]


def emulator(cpu: str) -> list[str]:
    """The command prefix that runs an aarch64 program as on `cpu`."""
    return ["qemu-aarch64", "-cpu", cpu, "-L", str(SYSROOT)]


def run_command(command: Sequence[str | Path]) -> str:
    """What the command prints; a failure shows its words."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, f"{' '.join(words[:8])} ... gave {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout
