"""Python packages for a board without pip: fetched and hash-checked here, unpacked there."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from pilite.errors import BoardError
from pilite.lab.boards import ROOT, Board
from pilite.lab.connection import Connection

LOCK = ROOT / "requirements.lock"
NUMPY = "numpy"
# A rival's interpreter needs numpy beside its own wheel; what else it requires is for other uses of it.
RIVALS = {"tflite": "tflite-runtime", "litert": "ai-edge-litert"}
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17")


@dataclass(frozen=True)
class Target:
    """A board's Python: "3.11" and "aarch64"."""

    python: str
    arch: str


def target_of(board: Board, connection: Connection) -> Target:
    """Ask the board. Raises BoardError if it has no Python."""
    code = "import platform, sys; print('%d.%d' % sys.version_info[:2], platform.machine())"
    version, machine = connection.check([board.python, "-c", code]).split()
    return Target(version, machine)


def site(
    board: Board, connection: Connection, packages: Sequence[str], artifacts: Path, lock: Path = LOCK
) -> str:
    """A folder on the board with `packages` unpacked, for PYTHONPATH; sent once.

    Raises BoardError if a package has no wheel for the board.
    """
    target = target_of(board, connection)
    files = [fetch(name, target, artifacts, lock) for name in packages]
    digest = hashlib.sha256("\n".join(sorted(path.name for path in files)).encode()).hexdigest()[:16]
    folder = f"{board.root}/site/{digest}"
    if connection.run(["test", "-d", folder]).code == 0:
        return folder
    _send(connection, files, folder)
    return folder


def fetch(name: str, target: Target, artifacts: Path, lock: Path = LOCK) -> Path:
    """The wheel of a locked package for a board, in artifacts/wheels/. Raises BoardError if there is none."""
    requirement, hashes = locked(name, lock)
    folder = artifacts / "wheels" / f"{target.python}-{target.arch}"
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in folder.glob("*.whl"):
        if _is(wheel, requirement) and hashlib.sha256(wheel.read_bytes()).hexdigest() in hashes:
            return wheel
    return _download(requirement, hashes, target, folder)


def locked(name: str, lock: Path = LOCK) -> tuple[Requirement, frozenset[str]]:
    """The pin of a package and the sha256 of its files. Raises BoardError if it is not in the lock."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith(f"{name}=="):
            requirement = Requirement(line.split(" --hash")[0].strip())
            return requirement, frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    raise BoardError(f"{lock.name} has no package {name}.")


def _is(wheel: Path, requirement: Requirement) -> bool:
    """Whether a file name begins with the pinned name and version."""
    name, version = wheel.name.split("-")[:2]
    same = re.sub(r"[-_.]+", "-", name).lower() == re.sub(r"[-_.]+", "-", requirement.name).lower()
    return same and requirement.specifier.contains(version)


def _download(requirement: Requirement, hashes: frozenset[str], target: Target, folder: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        pin = f"{requirement.name}{requirement.specifier}"
        wanted.write_text(" ".join([pin, *(f"--hash=sha256:{value}" for value in sorted(hashes))]) + "\n")
        platforms = [word for p in PLATFORMS for word in ("--platform", f"{p}_{target.arch}")]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--only-binary=:all:", "--python-version", target.python, *platforms]
        command += ["--require-hashes", "--dest", scratch, "-r", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            why = " ".join(done.stderr.split())[-200:]
            raise BoardError(f"{pin} has no wheel for Python {target.python} on {target.arch}: {why}")
        return wheels[0].rename(folder / wheels[0].name)


def _send(connection: Connection, wheels: Sequence[Path], folder: str) -> None:
    """One archive is one transfer; numpy alone has 1,000 files. The folder appears whole or not at all."""
    parent, beside = folder.rsplit("/", 1)[0], f"{folder}.new"
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "site.tar"
        _pack(wheels, Path(scratch) / "site", archive)
        connection.check(["sh", "-c", 'rm -rf "$1" && mkdir -p "$1"', "site", beside])
        connection.put(archive, f"{beside}/site.tar")
    script = 'cd "$1" && tar -xf site.tar && rm site.tar && cd "$2" && mv -T "$1" "$3" && sync .'
    connection.check(["sh", "-c", script, "site", beside, parent, folder], timeout=300)


def _pack(wheels: Sequence[Path], folder: Path, archive: Path) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".", filter=_without_tests)


def _without_tests(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """numpy's own tests are a quarter of its files."""
    return None if "/tests" in member.name else member
