"""A cpio archive (newc) in memory: what the kernel unpacks as its first file system."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A file, or a folder if `data` is None; permissions without the type."""

    mode: int
    data: bytes | None = None


def archive(entries: Mapping[str, Entry], folders: Sequence[str] = ()) -> bytes:
    """All of them, owned by root, without times; folders come before what is in them. See cpio(5)."""
    members = {**{name: Entry(0o755) for name in folders}, **entries}
    made = [_member(name, entry, number) for number, (name, entry) in enumerate(members.items(), 1)]
    return b"".join([*made, _member("TRAILER!!!", Entry(0, b""), 0)])


def _member(name: str, entry: Entry, inode: int) -> bytes:
    kind = stat.S_IFDIR if entry.data is None else stat.S_IFREG
    data, path = entry.data or b"", name.encode() + b"\0"
    mode = kind | entry.mode if inode else 0
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
