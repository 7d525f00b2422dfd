"""Whether this machine's kernel runs aarch64 programs, also inside containers; and making it do so."""

from __future__ import annotations

import platform
import shutil
import struct
import subprocess
from pathlib import Path

from pilite.errors import BoardError

BINFMT = Path("/proc/sys/fs/binfmt_misc")
NAMES = ("qemu-aarch64-static", "qemu-aarch64")  # Debian 12 and 13 call the static emulator so
# An ELF header: 64 bit, little endian, executable or shared object, EM_AARCH64.
MAGIC = "7f454c460201010000000000000000000200b700"
MASK = "ffffffffffffff00fffffffffffffffffeffffff"
_PT_INTERP = 3


def ensure(binfmt: Path = BINFMT) -> None:
    """Make sure that the kernel hands aarch64 programs to QEMU.

    It needs a static emulator registered with flag F: the kernel keeps it open, so containers need no copy.
    As root this registers one; it stays until the next boot. Raises BoardError with what to do otherwise.
    """
    if platform.machine() == "aarch64" or registered(binfmt):
        return
    emulator = static_emulator()
    if emulator is None:
        raise BoardError(
            "The container board needs a static qemu-aarch64 to run arm64 programs, and there is none. "
            "Debian and Ubuntu: apt-get install qemu-user-static"
        )
    try:
        register(emulator, binfmt)
    except (OSError, subprocess.CalledProcessError):
        raise BoardError(
            f"The kernel does not run arm64 programs yet, and only root can change that. As root: "
            f"mount -t binfmt_misc binfmt_misc {binfmt}; then echo '{rule(emulator)}' > {binfmt}/register"
        ) from None


def registered(binfmt: Path = BINFMT) -> bool:
    """Whether an enabled rule for aarch64 programs with flag F is there."""
    return any(_fits(path) for path in binfmt.glob("*") if path.name not in ("register", "status"))


def _fits(path: Path) -> bool:
    lines = path.read_text().splitlines()
    flags = [line.split(":", 1)[1] for line in lines if line.startswith("flags:")]
    return "enabled" in lines and f"magic {MAGIC}" in lines and any("F" in text for text in flags)


def register(emulator: Path, binfmt: Path = BINFMT) -> None:
    """Tell the kernel. Raises OSError or CalledProcessError if this is not root's process."""
    if not (binfmt / "register").exists():
        command = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(binfmt)]
        subprocess.run(command, check=True, capture_output=True)
    (binfmt / "register").write_text(rule(emulator))


def rule(emulator: Path) -> str:
    """The line for binfmt_misc. F: open the emulator now; P: keep the program's own argv[0]."""
    magic, mask = ("".join(f"\\x{text[i : i + 2]}" for i in range(0, len(text), 2)) for text in (MAGIC, MASK))
    return f":qemu-aarch64:M::{magic}:{mask}:{emulator}:PF"


def static_emulator() -> Path | None:
    """The first static emulator on the PATH; a dynamic one would miss its libraries inside a container."""
    found = [Path(path) for path in map(shutil.which, NAMES) if path]
    return next((path.resolve() for path in found if is_static(path)), None)


def is_static(path: Path) -> bool:
    """Whether a 64-bit ELF program needs no interpreter (ld.so)."""
    with path.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset, size, count = struct.unpack_from("<Q", header, 32)[0], *struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    return all(struct.unpack_from("<I", table, i * size)[0] != _PT_INTERP for i in range(count))
