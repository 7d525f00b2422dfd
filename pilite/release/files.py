"""Files on their way into a release, and the containers that hold them: tar.gz, wheel (PEP 427), .deb.

Every container is a function of its files alone: sorted, owned by root, dated EPOCH.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

EPOCH = 1748736000  # 2025-06-01, the date of every file in every release
EPOCH_ZIP = (2025, 6, 1, 0, 0, 0)
EXECUTABLE, PLAIN = 0o755, 0o644


@dataclass(frozen=True, order=True)
class File:
    """A regular file, or a symbolic link if `link` is its target."""

    name: str
    data: bytes = b""
    mode: int = PLAIN
    link: str = ""


def below(folder: str, files: Iterable[File]) -> list[File]:
    """The same files in a folder."""
    return [File(f"{folder}/{one.name}", one.data, one.mode, one.link) for one in files]


def tar(files: Sequence[File], prefix: str = "") -> bytes:
    """A tar with a member for every folder above a file; `prefix` is "./" in a .deb."""
    stream = io.BytesIO()
    folders = {str(parent) for file in files for parent in PurePosixPath(file.name).parents} - {"."}
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted([*folders, *(file.name for file in files)]):
            found = next((file for file in files if file.name == name), None)
            archive.addfile(_member(prefix + name, found), io.BytesIO(found.data if found else b""))
    return stream.getvalue()


def _member(name: str, file: File | None) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mtime, member.uname, member.gname = EPOCH, "root", "root"
    if file is None:
        member.type, member.mode = tarfile.DIRTYPE, EXECUTABLE
    elif file.link:
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, file.link
    else:
        member.size, member.mode = len(file.data), file.mode
    return member


def tar_gz(files: Sequence[File]) -> bytes:
    return gzip(tar(files))


def gzip(data: bytes) -> bytes:
    """A gzip file without a time or a name in it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x02\xff"  # no flags, no time, best compression, unknown system
    ends = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return head + packer.compress(data) + packer.flush() + ends


def wheel(files: Sequence[File], info: str) -> bytes:
    """A zip of `files` and their RECORD, which PEP 376 wants in `info`, the .dist-info folder."""
    rows = [f"{f.name},sha256={_urlsafe(f.data)},{len(f.data)}\n" for f in sorted(files)]
    record = File(f"{info}/RECORD", "".join([*rows, f"{info}/RECORD,,\n"]).encode())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in [*sorted(files), record]:
            entry = zipfile.ZipInfo(file.name, EPOCH_ZIP)
            entry.create_system, entry.external_attr = 3, (0o100000 | file.mode) << 16
            archive.writestr(entry, file.data)
    return stream.getvalue()


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def deb(control: str, files: Sequence[File]) -> bytes:
    """A Debian package, deb(5): an ar archive of version, control and data. `files` are relative to /."""
    sums = "".join(f"{hashlib.md5(f.data).hexdigest()}  {f.name}\n" for f in sorted(files) if not f.link)
    meta = [File("control", control.encode()), File("md5sums", sums.encode())]
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip(tar(meta, "./")),
        "data.tar.gz": gzip(tar(files, "./")),
    }
    return b"!<arch>\n" + b"".join(_ar(name, data) for name, data in members.items())


def _ar(name: str, data: bytes) -> bytes:
    head = f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
    return head.encode() + data + b"\n" * (len(data) % 2)
