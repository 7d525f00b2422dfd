"""Build QEMU's plugin, and run a guest under it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.estimate import profile
from pilite.lab.estimate.profile import Profile

SOURCES = ("profiler.c", "cache.h", "qemu_api.h")
COMPILE = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")
SECONDS = 1800


@dataclass(frozen=True)
class Guest:
    """A program for another CPU: QEMU's name of the CPU, the root that it sees, its command line and environment."""

    cpu: str
    root: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]


def build(artifacts: Path) -> Path:
    """The plugin, compiled once per version of its sources.

    Raises:
        PiliteError: there is no C compiler, or it refuses the sources.
    """
    folder = Path(__file__).parent
    digest = hashlib.sha256(repr(COMPILE).encode())
    for name in SOURCES:
        digest.update((folder / name).read_bytes())
    path = artifacts.resolve() / "estimate" / f"profiler-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _compile(folder / SOURCES[0], path)
    return path


def _compile(source: Path, path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise PiliteError("estimate compiles a plugin for QEMU and found no C compiler: apt-get install gcc.")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        command = [compiler, *COMPILE, "-o", str(made), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PiliteError(f"{source.name}: {compiler} failed: {done.stderr.strip()[:300]}")
        os.replace(made, path)


def run(guest: Guest, levels: Sequence[str], artifacts: Path) -> tuple[Profile, str]:
    """Run the guest under the profiler; its profile and what it printed.

    Raises:
        PiliteError: QEMU is missing.
        CheckFailed: the guest failed, or never reached the marks.
    """
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        raise PiliteError("estimate runs code under QEMU, which is missing: apt-get install qemu-user.")
    with tempfile.TemporaryDirectory(prefix="pilite-estimate-") as scratch:
        out = Path(scratch) / "profile"
        plugin = ",".join([str(build(artifacts)), f"out={out}", *(f"level={level}" for level in levels)])
        command = [emulator, "-cpu", guest.cpu, "-plugin", plugin, "-L", str(guest.root), *guest.command]
        done = subprocess.run(
            command, env={**guest.environment}, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-300:]
            raise CheckFailed(f"{Path(guest.command[0]).name} failed under QEMU ({done.returncode}): {words}")
        return profile.read(out), done.stdout
