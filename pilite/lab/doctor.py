"""What this machine has, and what each missing part costs. Only looks: nothing is installed or started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from pilite.lab import emulation

SCHEMA = "pilite.doctor/1"
SECONDS = 20  # a tool that does not answer in this time counts as missing
ROOM_GB = 3  # an environment is 1.3 GB, the zig cache and a board image about as much
RIVALS = ("tflite-runtime", "ai-edge-litert")
FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "asimd", "asimddp")


@dataclass(frozen=True)
class Places:
    """Where to look: the checkout, and the folder of real models."""

    root: Path
    models: Path


@dataclass(frozen=True)
class Answer:
    """What `look` saw: a version or a place, or why it counts as missing."""

    found: bool
    detail: str


@dataclass(frozen=True)
class Part:
    """One thing to look for, and what does not work without it."""

    name: str
    required: bool
    look: Callable[[Places], Answer]
    cost: str


@dataclass(frozen=True)
class Finding:
    """A part and its answer; `cost` says what does not work without it and what to do."""

    name: str
    required: bool
    found: bool
    detail: str
    cost: str

    def row(self) -> dict[str, object]:
        state = "ok" if self.found else "MISSING" if self.required else "missing"
        return {
            "part": self.name,
            "state": state,
            "found": self.detail,
            "without it": "" if self.found else self.cost,
        }


def examine(places: Places) -> list[Finding]:
    """Look for every part of PARTS, in that order."""
    findings = []
    for part in PARTS:
        answer = part.look(places)
        findings.append(Finding(part.name, part.required, answer.found, answer.detail, part.cost))
    return findings


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """The machine-readable form of `examine`."""
    return {"schema": SCHEMA, "parts": [asdict(finding) for finding in findings]}


def output_of(*command: str) -> Answer:
    """The first line that a command prints, if it ends with exit code 0."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False, text=True
        )
    except FileNotFoundError:
        return Answer(False, f"no {command[0]} on the PATH")
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Answer(False, str(problem))
    first = (done.stdout.strip().splitlines() or [""])[0]
    return Answer(done.returncode == 0, first)


def python(places: Places) -> Answer:
    major, minor, micro = sys.version_info[:3]
    return Answer((3, 10) <= (major, minor) <= (3, 12), f"{major}.{minor}.{micro} at {sys.executable}")


def locked(lock: Path) -> dict[str, str]:
    """name -> version of the lines of requirements.lock that are meant for this Python and machine."""
    lines = [
        line.rstrip("\\ \n")
        for line in lock.read_text(encoding="utf-8").splitlines()
        if re.match(r"[a-z]", line)
    ]
    pins = [Requirement(line) for line in lines]
    return {
        pin.name: str(pin.specifier).removeprefix("==")
        for pin in pins
        if not pin.marker or pin.marker.evaluate()
    }


def installed(name: str) -> str:
    """The installed version of a distribution; "" if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def pins(places: Places) -> Answer:
    """The locked packages, the rivals apart, in their locked versions."""
    try:
        wanted = locked(places.root / "requirements.lock")
    except OSError as problem:
        return Answer(False, f"{problem.filename}: {problem.strerror}")
    wrong = [name for name, version in wanted.items() if name not in RIVALS and installed(name) != version]
    if wrong:
        return Answer(False, f"not as locked: {', '.join(wrong)}")
    return Answer(True, f"{len(wanted)} packages as locked")


def distribution(name: str) -> Callable[[Places], Answer]:
    """Look for an installed Python package."""

    def look(places: Places) -> Answer:
        version = installed(name)
        return Answer(
            bool(version), version or f"no wheel for Python {sys.version_info[0]}.{sys.version_info[1]}"
        )

    return look


def command(*words: str) -> Callable[[Places], Answer]:
    """Look for a tool by asking for its version."""
    return lambda places: output_of(*words)


def tool(name: str) -> Callable[[Places], Answer]:
    """Look for a tool that has no harmless way to ask for its version."""

    def look(places: Places) -> Answer:
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        return Answer(path is not None, path or f"no {name} on the PATH")

    return look


def sysroot(places: Places) -> Answer:
    libc = Path("/usr/aarch64-linux-gnu/lib/libc.so.6")
    if os.uname().machine == "aarch64":
        return Answer(True, "not needed on aarch64")
    return Answer(libc.exists(), str(libc) if libc.exists() else f"no {libc}")


def emulator(places: Places) -> Answer:
    if os.uname().machine == "aarch64":
        return Answer(True, "not needed on aarch64")
    return output_of("qemu-aarch64", "--version")


def static_emulator(places: Places) -> Answer:
    """Containers need an emulator without libraries of its own; see emulation.py."""
    if os.uname().machine == "aarch64":
        return Answer(True, "not needed on aarch64")
    path = emulation.static_emulator()
    return Answer(path is not None, str(path or "no static qemu-aarch64 on the PATH"))


def engine(places: Places) -> Answer:
    """Ask the Docker engine for its version, the way deploy does."""
    import docker

    try:
        client = docker.from_env(timeout=SECONDS)
        with_version = client.version()
    except (docker.errors.DockerException, OSError) as problem:
        return Answer(False, str(problem).splitlines()[0][:100])
    return Answer(True, f"engine {with_version['Version']}")


def shared_models(places: Places) -> Answer:
    count = len(list(places.models.glob("*.tflite")))
    return Answer(count > 0, f"{count} models in {places.models}")


def disk(places: Places) -> Answer:
    free = shutil.disk_usage(places.root).free / 1e9
    return Answer(free >= ROOM_GB, f"{free:.0f} GB free")


def cpu(places: Places) -> Answer:
    """The features that kernels ask for; a CPU without any of them still runs the generic schedules."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        words = set()
    here = [feature for feature in FEATURES if feature in words]
    return Answer(
        bool(here), f"{os.uname().machine}, {os.cpu_count()} cores, {' '.join(here) or 'no vector features'}"
    )


PARTS = (
    Part("python", True, python, "nothing runs; install Python 3.10, 3.11 or 3.12"),
    Part("locked packages", True, pins, "results differ from those published; delete .venv and run again"),
    Part(
        "zig",
        True,
        command(sys.executable, "-m", "ziglang", "version"),
        "no link: delete .venv and run again",
    ),
    Part("disk", True, disk, f"builds and board images fail; make {ROOM_GB} GB of room"),
    Part("cpu", False, cpu, "local builds use slow generic schedules; --board local is not worth measuring"),
    Part(
        "tflite-runtime",
        False,
        distribution("tflite-runtime"),
        "no tflite rival, no compare; use Python 3.11",
    ),
    Part(
        "ai-edge-litert",
        False,
        distribution("ai-edge-litert"),
        "no litert rival in bench; delete .venv, run again",
    ),
    Part("qemu-aarch64", False, emulator, "no aarch64 run or compare on x86; apt-get install qemu-user"),
    Part(
        "aarch64 libc", False, sysroot, "no aarch64 run or compare on x86; apt-get install libc6-arm64-cross"
    ),
    Part("docker engine", False, engine, "no container board; apt-get install docker.io and start dockerd"),
    Part(
        "static qemu", False, static_emulator, "no container board on x86; apt-get install qemu-user-static"
    ),
    Part(
        "mmdebstrap",
        False,
        command("mmdebstrap", "--version"),
        "no container board, no rivals in estimate; apt-get install mmdebstrap",
    ),
    Part(
        "qemu-system-aarch64",
        False,
        command("qemu-system-aarch64", "--version"),
        "no vm board; apt-get install qemu-system-arm",
    ),
    Part("sqfstar", False, tool("sqfstar"), "no vm board; apt-get install squashfs-tools"),
    Part("mkfs.ext4", False, tool("mkfs.ext4"), "no vm board; apt-get install e2fsprogs"),
    Part("ssh", False, command("ssh", "-V"), "no log-in by hand to boards; apt-get install openssh-client"),
    Part(
        "ssh-keygen",
        False,
        tool("ssh-keygen"),
        "no keys for the container board; apt-get install openssh-client",
    ),
    Part(
        "clang",
        False,
        command("clang", "--version"),
        "no sanitizer tests of the loader; apt-get install clang",
    ),
    Part("gcc", False, command("gcc", "--version"), "no estimate; apt-get install gcc"),
    Part("llvm-mca", False, command("llvm-mca-19", "--version"), "no estimate; apt-get install llvm-19"),
    Part(
        "shared models", False, shared_models, "tests on real models skip; set PILITE_MODELS to their folder"
    ),
)
