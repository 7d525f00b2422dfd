"""Checked access to a flatbuffer: every offset, size and count is compared with the file before it is used.

    Damaged     an offset, a size or a count that does not fit the file

The generated accessors trust the file: on damaged data they read from wrong places or fail in a dozen ways.
Here a table is checked when it is opened and a field when it is read; the worst outcome is `Damaged`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

U16, I32, U32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")


class Damaged(ValueError):
    """The bytes are no valid flatbuffer; the text says what is wrong at which byte."""


def root(data: bytes) -> Table:
    """The table that the first four bytes point to."""
    return Table(data, _u32(data, 0))


class Table:
    """One table: a position in the file and its list of field offsets (the vtable)."""

    __slots__ = ("_fields", "_size", "_vtable", "data", "position")

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self._vtable = position - _read(I32, data, position)
        self._fields = _read(U16, data, self._vtable) // 2 - 2
        self._size = _read(U16, data, self._vtable + 2)
        if self._fields < 0 or self._vtable + 4 + 2 * self._fields > len(data):
            raise Damaged(f"the table at byte {position} has a field list that does not fit the file")
        if self._size < 4 or position + self._size > len(data):
            raise Damaged(f"the table at byte {position} has {self._size} bytes and does not fit the file")

    def locate(self, slot: int, size: int) -> int | None:
        """The byte position of a field of `size` bytes; None when the table leaves it out."""
        if slot >= self._fields:
            return None
        offset = _read(U16, self.data, self._vtable + 4 + 2 * slot)
        if offset == 0:
            return None
        if offset < 4 or offset + size > self._size:
            raise Damaged(f"field {slot} of the table at byte {self.position} lies outside the table")
        return self.position + offset

    def number(self, slot: int, dtype: str, default: int = 0) -> int:
        """An integer or boolean field."""
        return int(self._scalar(slot, dtype, default))

    def real(self, slot: int, default: float = 0.0) -> float:
        """A float32 field."""
        return float(self._scalar(slot, "float32", default))

    def numbers(self, slot: int, dtype: str) -> npt.NDArray[Any] | None:
        """A vector of numbers as a read-only view of the file; None when left out."""
        start = self._target(slot)
        if start is None:
            return None
        count = _u32(self.data, start)
        if count * np.dtype(dtype).itemsize > len(self.data) - start - 4:
            raise Damaged(f"the vector at byte {start} has {count} entries and does not fit the file")
        return np.frombuffer(self.data, _little(dtype), count, start + 4)

    def text(self, slot: int) -> str:
        """A string; empty when left out. Bytes that are no UTF-8 become replacement characters."""
        codes = self.numbers(slot, "uint8")
        return "" if codes is None else codes.tobytes().decode("utf-8", errors="replace")

    def table(self, slot: int) -> Table | None:
        """The table that a field points to; None when left out."""
        start = self._target(slot)
        return None if start is None else Table(self.data, start)

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables; empty when left out."""
        offsets = self.numbers(slot, "uint32")
        if offsets is None:
            return []
        first = self._target(slot)
        assert first is not None
        places = range(first + 4, first + 4 + 4 * len(offsets), 4)
        return [Table(self.data, at + int(offset)) for at, offset in zip(places, offsets, strict=True)]

    def _scalar(self, slot: int, dtype: str, default: float) -> float:
        position = self.locate(slot, np.dtype(dtype).itemsize)
        if position is None:
            return default
        value: float = np.frombuffer(self.data, _little(dtype), 1, position)[0].item()
        return value

    def _target(self, slot: int) -> int | None:
        position = self.locate(slot, 4)
        return None if position is None else position + _u32(self.data, position)


def _little(dtype: str) -> np.dtype[np.generic]:
    return np.dtype(dtype).newbyteorder("<")


def _u32(data: bytes, position: int) -> int:
    return _read(U32, data, position)


def _read(kind: struct.Struct, data: bytes, position: int) -> int:
    if not 0 <= position <= len(data) - kind.size:
        raise Damaged(f"an offset points to byte {position} of a file of {len(data)} bytes")
    value: int = kind.unpack_from(data, position)[0]
    return value
