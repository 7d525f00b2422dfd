"""Offsets of every value: one arena for what lives between stages, one blob for constants.

Greedy by size: values in falling order of size take the best-fitting gap among those alive at the same time
(Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGN = 64
SLACK = 64  # bytes that a kernel may read past the end of a buffer


def align(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


@dataclass(frozen=True)
class Need:
    """A buffer that must keep its bytes from stage `first` to stage `last`, both included."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Arena:
    offsets: tuple[int, ...]  # one per need
    nbytes: int


def plan(needs: Sequence[Need]) -> Arena:
    """Offsets so that no two needs alive at once overlap."""
    offsets = [0] * len(needs)
    placed: list[int] = []
    for i in sorted(range(len(needs)), key=lambda i: (-needs[i].nbytes, i)):
        others = [j for j in placed if needs[j].first <= needs[i].last and needs[i].first <= needs[j].last]
        offsets[i] = _best_gap(
            _size(needs[i]), sorted((offsets[j], offsets[j] + _size(needs[j])) for j in others)
        )
        placed.append(i)
    return Arena(tuple(offsets), max((offsets[i] + _size(needs[i]) for i in placed), default=0))


def _size(need: Need) -> int:
    return align(need.nbytes + SLACK)


def _best_gap(size: int, taken: Sequence[tuple[int, int]]) -> int:
    """Start of the smallest gap that holds `size`, else the end of the last buffer."""
    best: tuple[int, int] | None = None
    end = 0
    for start, stop in taken:
        if start - end >= size and (best is None or start - end < best[0]):
            best = (start - end, end)
        end = max(end, stop)
    return best[1] if best else end


class Blob:
    """Constants one after another, each aligned; equal bytes are stored once."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._offsets: dict[bytes, int] = {}

    def add(self, data: bytes) -> int:
        """Offset of `data`."""
        if data not in self._offsets:
            self._bytes.extend(bytes(-len(self._bytes) % ALIGN))
            self._offsets[data] = len(self._bytes)
            self._bytes.extend(data)
        return self._offsets[data]

    def finish(self) -> bytes:
        return bytes(self._bytes) + bytes(SLACK)
