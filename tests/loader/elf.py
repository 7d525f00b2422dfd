"""Read the few facts of a 64-bit little-endian ELF file that the tests promise something about."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
DT_NEEDED, DT_STRTAB, DT_VERNEED, DT_VERNEEDNUM, DT_SONAME, DT_FLAGS_1 = (
    1,
    5,
    0x6FFFFFFE,
    0x6FFFFFFF,
    14,
    0x6FFFFFFB,
)
PF_X = 1


@dataclass(frozen=True)
class Segment:
    type: int
    flags: int
    offset: int
    address: int
    file_bytes: int
    align: int


@dataclass(frozen=True)
class Elf:
    """`path` as bytes, with its program headers and dynamic section decoded on demand."""

    data: bytes

    @classmethod
    def read(cls, path: Path) -> Elf:
        return cls(path.read_bytes())

    @property
    def segments(self) -> list[Segment]:
        start, size, count = self._header_table()
        rows = (struct.unpack_from("<IIQQQQQQ", self.data, start + i * size) for i in range(count))
        return [Segment(r[0], r[1], r[2], r[3], r[5], r[7]) for r in rows]

    @property
    def needed(self) -> list[str]:
        return [self._string(value) for tag, value in self._dynamic() if tag == DT_NEEDED]

    @property
    def glibc_versions(self) -> list[tuple[int, ...]]:
        """Every GLIBC_x.y that a symbol is bound to, e.g. (2, 17)."""
        names = [name.removeprefix("GLIBC_") for name in self._needed_versions() if name.startswith("GLIBC_")]
        return [tuple(int(part) for part in name.split(".")) for name in names]

    def _header_table(self) -> tuple[int, int, int]:
        (start,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        return start, size, count

    def _dynamic(self) -> Iterator[tuple[int, int]]:
        (segment,) = (s for s in self.segments if s.type == PT_DYNAMIC)
        for at in range(segment.offset, segment.offset + segment.file_bytes, 16):
            tag, value = struct.unpack_from("<QQ", self.data, at)
            yield tag, value

    def _value(self, wanted: int) -> int:
        return next(value for tag, value in self._dynamic() if tag == wanted)

    def _offset(self, address: int) -> int:
        for s in self.segments:
            if s.type == PT_LOAD and s.address <= address < s.address + s.file_bytes:
                return address - s.address + s.offset
        raise ValueError(f"address {address:#x} is in no segment")

    def _string(self, index: int) -> str:
        start = self._offset(self._value(DT_STRTAB)) + index
        return self.data[start : self.data.index(b"\0", start)].decode()

    def _needed_versions(self) -> Iterator[str]:
        at = self._offset(self._value(DT_VERNEED))
        for _ in range(self._value(DT_VERNEEDNUM)):
            _, count, _, first, following = struct.unpack_from("<HHIII", self.data, at)
            entry = at + first
            for _ in range(count):
                _, _, _, name, later = struct.unpack_from("<IHHII", self.data, entry)
                yield self._string(name)
                entry += later
            at += following
