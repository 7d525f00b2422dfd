"""Data caches of the boards' cores, and what their misses cost in traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilite.lab.estimate.profile import CacheLevel

LINE_BYTES = 64


@dataclass(frozen=True)
class Level:
    """Bytes, ways, and whether all cores share it."""

    name: str
    nbytes: int
    ways: int
    shared: bool

    @property
    def option(self) -> str:
        """As the profiler wants it."""
        return f"{self.nbytes}:{self.ways}:{'shared' if self.shared else 'private'}"


LEVELS: dict[str, tuple[Level, ...]] = {
    "cortex-a53": (Level("L1", 32 << 10, 4, False), Level("L2", 512 << 10, 16, True)),
    "cortex-a72": (Level("L1", 32 << 10, 2, False), Level("L2", 1 << 20, 16, True)),
    "cortex-a76": (
        Level("L1", 64 << 10, 4, False),
        Level("L2", 512 << 10, 8, False),
        Level("L3", 2 << 20, 16, True),
    ),
}


def memory_bytes(counted: Sequence[CacheLevel]) -> int:
    """Bytes to and from memory: what the last level read and wrote back."""
    return LINE_BYTES * (counted[-1].misses + counted[-1].written_back) if counted else 0
