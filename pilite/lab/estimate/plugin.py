"""Build QEMU's plugin, and run a guest under it."""

from __future__ import annotations

import functools
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
COMPILE = (
    *("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"),
    *("-fPIC", "-shared", "-fvisibility=hidden"),
)
SECONDS = 1800


@dataclass(frozen=True)
class Guest:
    """A program for another CPU: QEMU's name of the CPU, the root that it sees, command and environment.

    `settings` and the bytes of `files` decide what it does: equal ones, the same profile.
    """

    cpu: str
    root: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    settings: tuple[str, ...]
    files: tuple[Path, ...]


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


def emulator() -> str:
    """QEMU's path. Raises PiliteError if it is not installed."""
    path = shutil.which("qemu-aarch64")
    if path is None:
        raise PiliteError("estimate runs code under QEMU, which is missing: apt-get install qemu-user.")
    return path


@functools.cache
def emulator_version() -> str:
    """The first line of `qemu-aarch64 --version`. Raises PiliteError if it is not installed."""
    done = subprocess.run([emulator(), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def run(guest: Guest, levels: Sequence[str], artifacts: Path) -> Profile:
    """The guest's profile; of an equal guest that ran before, the one kept in artifacts/estimate/profiles/.

    Raises:
        PiliteError: QEMU or a C compiler is missing.
        CheckFailed: the guest failed, or never reached the marks.
    """
    plugin = build(artifacts)
    kept = artifacts.resolve() / "estimate" / "profiles" / key(guest, levels, artifacts)
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            made = Path(scratch) / "profile"
            _emulate(guest, plugin, levels, made)
            profile.read(made)
            os.replace(made, kept)
    return profile.read(kept)


def run_anew(guest: Guest, levels: Sequence[str], artifacts: Path) -> Profile:
    """The same without looking for a kept profile, and without keeping this one."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "profile"
        _emulate(guest, build(artifacts), levels, made)
        return profile.read(made)


def key(guest: Guest, levels: Sequence[str], artifacts: Path) -> str:
    """Equal for guests that do the same under the same profiler: by content, not by path or time."""
    tools = (build(artifacts).name, emulator_version(), *levels)
    digest = hashlib.sha256(repr((guest.cpu, guest.root.name, guest.settings, tools)).encode())
    for path in guest.files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _emulate(guest: Guest, plugin: Path, levels: Sequence[str], out: Path) -> None:
    options = ",".join([str(plugin), f"out={out}", *(f"level={level}" for level in levels)])
    command = [emulator(), "-cpu", guest.cpu, "-plugin", options, "-L", str(guest.root), *guest.command]
    try:
        done = subprocess.run(
            command,
            env=dict(guest.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{guest.settings[0]} under QEMU did not end within {SECONDS} s.") from None
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-300:]
        raise CheckFailed(f"{guest.settings[0]} failed under QEMU with code {done.returncode}: {words}")
