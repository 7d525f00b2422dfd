"""An arm64 Debian to run TFLite in, and views of it that look like the boards: libraries choose their
kernels by /proc/cpuinfo and /sys.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import PiliteError
from pilite.lab import wheels

SUITE = "bookworm"
PACKAGES = ("python3.11", "libc6", "libstdc++6", "libgcc-s1", "zlib1g")
PYTHON = "usr/bin/python3.11"
TARGET = wheels.Target("3.11", "aarch64")
CORES = 4


@dataclass(frozen=True)
class Looks:
    """What Linux says about a core on a Raspberry Pi."""

    part: str
    variant: str
    revision: int
    features: str
    khz: int


_BASE = "fp asimd evtstrm crc32 cpuid"
_V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
LOOKS = {
    "cortex-a53": Looks("0xd03", "0x0", 4, _BASE, 1_400_000),
    "cortex-a72": Looks("0xd08", "0x0", 3, _BASE, 1_500_000),
    "cortex-a76": Looks("0xd0b", "0x4", 1, _V82, 2_400_000),
}


def view(cpu: str, artifacts: Path) -> Path:
    """A root for QEMU's -L that is Debian's but for /proc and /sys, which describe four cores of `cpu`.

    Raises:
        PiliteError: mmdebstrap is missing or cannot reach Debian's packages.
    """
    debian = rootfs(artifacts)
    digest = hashlib.sha256(repr((debian.name, LOOKS[cpu])).encode()).hexdigest()[:12]
    folder = debian.parent / f"{cpu}-{digest}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=debian.parent) as scratch:
            made = Path(scratch) / "view"
            _write_view(made, debian, LOOKS[cpu])
            _appear(made, folder)
    return folder


def rootfs(artifacts: Path) -> Path:
    """Debian's packages for arm64, unpacked once (75 MB, 10 to 60 s)."""
    parent = artifacts.resolve() / "estimate"
    digest = hashlib.sha256(repr((SUITE, PACKAGES)).encode()).hexdigest()[:12]
    folder = parent / f"debian-{digest}"
    if not folder.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            made = Path(scratch) / "root"
            made.mkdir()
            _unpack(Path(scratch) / "debian.tar", made)
            _appear(made, folder)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise PiliteError("The rivals need an arm64 Debian: apt-get install mmdebstrap.")
    mode = "root" if os.getuid() == 0 else "unshare"
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", f"--mode={mode}"]
    command += [f"--include={','.join(PACKAGES)}", '--aptopt=Acquire::Languages "none"']
    command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", SUITE, str(archive)]
    extract = ["tar", "-xf", str(archive), "-C", str(folder), "--no-same-owner", "--exclude=./dev"]
    for step in (command, extract):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            words = " ".join(done.stderr[-400:].split())
            raise PiliteError(f"{step[0]} could not unpack Debian {SUITE} arm64 for the rivals: {words}")


def _write_view(folder: Path, debian: Path, looks: Looks) -> None:
    folder.mkdir()
    for name in sorted(path.name for path in debian.iterdir() if path.name not in ("proc", "sys", "dev")):
        (folder / name).symlink_to(Path("..") / debian.name / name)
    cpu = folder / "sys/devices/system/cpu"
    files = {folder / "proc/cpuinfo": "".join(_cpuinfo(looks, i) for i in range(CORES))}
    files |= {cpu / name: f"0-{CORES - 1}" for name in ("possible", "present", "online")}
    for i in range(CORES):
        files |= {cpu / f"cpu{i}" / name: text for name, text in _sysfs(looks, i).items()}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") + "\n", encoding="ascii")


def _cpuinfo(looks: Looks, core: int) -> str:
    lines = {
        "processor\t": core,
        "BogoMIPS\t": "108.00",
        "Features\t": looks.features,
        "CPU implementer\t": "0x41",
        "CPU architecture": 8,
        "CPU variant\t": looks.variant,
        "CPU part\t": looks.part,
        "CPU revision\t": looks.revision,
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items()) + "\n"


def _sysfs(looks: Looks, core: int) -> dict[str, str]:
    every = f"0-{CORES - 1}"
    return {
        "topology/physical_package_id": "0",
        "topology/core_id": str(core),
        "topology/core_siblings": "f",
        "topology/core_siblings_list": every,
        "topology/package_cpus_list": every,
        "topology/thread_siblings_list": str(core),
        "cpufreq/cpuinfo_max_freq": str(looks.khz),
        "cpufreq/cpuinfo_min_freq": "600000",
    }


def site(packages: Mapping[str, Path], artifacts: Path) -> Path:
    """A folder for PYTHONPATH with the wheels of `packages`, each pinned by its lock, unpacked once.

    Raises:
        BoardError: a package has no wheel for arm64.
    """
    files = [wheels.fetch(name, TARGET, artifacts.resolve(), lock) for name, lock in packages.items()]
    digest = hashlib.sha256("\n".join(sorted(path.name for path in files)).encode()).hexdigest()[:12]
    folder = artifacts.resolve() / "estimate" / f"site-{digest}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "site"
            for path in files:
                with zipfile.ZipFile(path) as wheel:
                    wheel.extractall(made)
            _appear(made, folder)
    return folder


def _appear(made: Path, folder: Path) -> None:
    """Rename into place; another process may have been first, with the same content."""
    made.chmod(0o755)
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
