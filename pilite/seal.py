"""Put an ELF library and its manifest into one artifact, and take them apart again.

File, as in loader/pilite_abi.h:
    [ELF .so][canonical JSON manifest, padded with blanks to a multiple of 8][footer, 64 bytes]
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, NoReturn

import xxhash

from pilite.errors import ModelError

MAGIC = b"PILITE01"
FORMAT = 1
ABI_MAJOR, ABI_MINOR = 1, 1
MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine

_HASHED = struct.Struct("<8sIIQQQII")  # the 48 bytes that footer_hash covers
_REST = struct.Struct("<QQ")  # footer_hash, reserved
FOOTER_BYTES = _HASHED.size + _REST.size
_MACHINE_AT = 18  # e_machine in the ELF header
_ELF_HEADER = 64


@dataclass(frozen=True)
class Footer:
    """The last 64 bytes of an artifact, without what is computed from the rest."""

    machine: int
    elf_bytes: int
    json_bytes: int
    content_hash: int
    format: int = FORMAT
    abi_major: int = ABI_MAJOR
    abi_minor: int = ABI_MINOR

    def pack(self) -> bytes:
        hashed = _HASHED.pack(
            MAGIC,
            self.format,
            self.machine,
            self.elf_bytes,
            self.json_bytes,
            self.content_hash,
            self.abi_major,
            self.abi_minor,
        )
        return hashed + _REST.pack(_xxh64(hashed), 0)


def canonical(manifest: dict[str, Any]) -> bytes:
    """The one way to write a manifest: sorted keys, no blanks, ASCII. Raises ValueError for NaN."""
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def seal(elf: bytes, manifest: dict[str, Any]) -> bytes:
    """The artifact made of `elf` and `manifest`.

    The loader compares `manifest["build_id"]`, 64 hex digits, with the one in the library's descriptor.
    """
    text = canonical(manifest)
    text += b" " * (-(len(elf) + len(text)) % 8)
    body = elf + text
    machine = int.from_bytes(elf[_MACHINE_AT : _MACHINE_AT + 2], "little")
    return body + Footer(machine, len(elf), len(text), _xxh64(body)).pack()


def unseal(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """The library and the manifest of an artifact. Raises ModelError if it is damaged or too new."""
    footer = _read_footer(data)
    body = data[:-FOOTER_BYTES]
    if _xxh64(body) != footer.content_hash:
        _refuse("its checksum differs")
    return body[: footer.elf_bytes], _read_manifest(body[footer.elf_bytes :])


def _read_footer(data: bytes) -> Footer:
    if len(data) < _ELF_HEADER + FOOTER_BYTES:
        _refuse(f"it has only {len(data)} bytes")
    start = len(data) - FOOTER_BYTES
    magic, version, machine, elf, text, content, major, minor = _HASHED.unpack_from(data, start)
    footer_hash, reserved = _REST.unpack_from(data, start + _HASHED.size)
    if magic != MAGIC:
        _refuse("it has no footer: it is truncated, stripped or was never sealed")
    if _xxh64(data[start : start + _HASHED.size]) != footer_hash or reserved:
        _refuse("its footer is damaged")
    if version != FORMAT or major != ABI_MAJOR:
        _refuse(f"it has format {version} and ABI {major}.{minor}; this is for {FORMAT} and {ABI_MAJOR}.x")
    if elf + text != start or elf < _ELF_HEADER:
        _refuse(f"its footer describes {elf} + {text} bytes and there are {start}")
    return Footer(machine, elf, text, content, version, major, minor)


def _read_manifest(text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except ValueError:
        _refuse("its manifest is not JSON")
    if not isinstance(manifest, dict):
        _refuse("its manifest is not a JSON object")
    return manifest


def _refuse(reason: str) -> NoReturn:
    raise ModelError(f"This is not an intact pilite artifact: {reason}. Build or copy it again.")


def _xxh64(data: bytes) -> int:
    return xxhash.xxh64_intdigest(data)
