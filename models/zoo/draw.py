"""Seeded draws whose bytes a standard defines: SHAKE-256 of a text, not a random generator of numpy."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]


def raw(seed: str, count: int) -> Bytes:
    """`count` uniform bytes, the same on every machine."""
    return np.frombuffer(hashlib.shake_256(seed.encode()).digest(count), np.uint8)


def whole(seed: str, count: int, low: int, high: int) -> Ints:
    """`count` whole numbers, uniform in low..high (both included); the span is far below 65536."""
    wide = raw(seed, 2 * count).astype(np.int32).reshape(count, 2)
    drawn: Ints = low + (((wide[:, 0] << 8) + wide[:, 1]) * (high - low + 1) >> 16)
    return drawn


def bell(seed: str, shape: tuple[int, ...]) -> Ints:
    """Whole numbers in -510..510, bell-shaped around 0 (standard deviation 148): four bytes added up."""
    four = raw(seed, 4 * math.prod(shape)).reshape(-1, 4)
    drawn: Ints = (four.sum(axis=1, dtype=np.int32) - 510).reshape(shape)
    return drawn
