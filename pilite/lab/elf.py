"""What a board's kernel asks of a shared library before anything is sent: its machine and its alignment."""

from __future__ import annotations

import struct
from pathlib import Path

from pilite.errors import BoardError

PAGE = 16384  # of a Raspberry Pi 5's kernel; smaller pages are content with it
MACHINES = {"aarch64": 183, "x86_64": 62}  # e_machine
_PT_LOAD = 1


def check(path: Path, arch: str) -> None:
    """Raises BoardError if a library or program is for another machine, or its segments are too close.

    elf(5): a 64-bit little-endian header, program headers of e_phentsize bytes at e_phoff.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
        raise BoardError(f"{path}: no 64-bit ELF file. Build it again.")
    (machine,) = struct.unpack_from("<H", data, 18)
    if machine != MACHINES[arch]:
        named = {number: name for name, number in MACHINES.items()}.get(machine, f"machine {machine}")
        raise BoardError(f"{path}: code for {named}; the board needs {arch}. Build it for the board's CPU.")
    alignment = min(_alignments(data), default=PAGE)
    if alignment < PAGE:
        raise BoardError(
            f"{path}: its segments are aligned to {alignment} bytes; a kernel with 16 KiB pages "
            f"(Raspberry Pi 5) cannot map it. Link it with -z max-page-size={PAGE}."
        )


def _alignments(data: bytes) -> list[int]:
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [data[offset + i * size :][:56] for i in range(count)]
    return [
        struct.unpack_from("<Q", header, 48)[0]
        for header in headers
        if len(header) == 56 and struct.unpack_from("<I", header)[0] == _PT_LOAD
    ]
