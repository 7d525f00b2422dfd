"""Damaged copies of a file: what bad storage, cut transfers and hostile hands make of it, by number."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import numpy as np

SECONDS = 5.0  # for one file; reading takes milliseconds
LENGTHS = (0, 1, 2, 3, 4, 255, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def damaged(data: bytes, seed: int) -> bytes:
    """The file with one to three of the damages below, none of which may keep it as it was."""
    rng = np.random.default_rng(seed)
    result = data
    while result == data:
        for _ in range(int(rng.integers(1, 4))):
            result = DAMAGES[int(rng.integers(len(DAMAGES)))](bytearray(result), rng)
    return result


def _place(data: bytearray, rng: np.random.Generator, step: int = 1) -> int:
    return int(rng.integers(0, max(len(data) // step, 1))) * step


def _flip_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    for _ in range(int(rng.integers(1, 9))):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: _place(data, rng)])


def _zero(data: bytearray, rng: np.random.Generator) -> bytes:
    start, size = _place(data, rng), int(rng.integers(1, 65))
    data[start : start + size] = bytes(len(data[start : start + size]))
    return bytes(data)


def _length(data: bytearray, rng: np.random.Generator) -> bytes:
    """A 32-bit word becomes a length or an offset that is too large, too small or negative."""
    start = _place(data, rng, step=4)
    data[start : start + 4] = LENGTHS[int(rng.integers(len(LENGTHS)))].to_bytes(4, "little")
    return bytes(data)


def _offset(data: bytearray, rng: np.random.Generator) -> bytes:
    """A 32-bit word becomes a plausible offset: something else of the file is behind it."""
    start = _place(data, rng, step=4)
    data[start : start + 4] = _place(data, rng, step=4).to_bytes(4, "little")
    return bytes(data)


def _nudge(data: bytearray, rng: np.random.Generator) -> bytes:
    """A 16-bit word, such as an entry of a table's field list, moves by a little."""
    start = _place(data, rng, step=2)
    word = int.from_bytes(data[start : start + 2], "little") + int(rng.integers(-8, 9))
    data[start : start + 2] = (word % 2**16).to_bytes(2, "little")
    return bytes(data)


def _copy(data: bytearray, rng: np.random.Generator) -> bytes:
    source, target, size = _place(data, rng, step=4), _place(data, rng, step=4), 4 * int(rng.integers(1, 17))
    block = data[source : source + size]
    data[target : target + len(block)] = block
    return bytes(data)


def _delete(data: bytearray, rng: np.random.Generator) -> bytes:
    start = _place(data, rng)
    del data[start : start + int(rng.integers(1, 9))]
    return bytes(data)


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
    _flip_bits,
    _cut,
    _zero,
    _length,
    _offset,
    _nudge,
    _copy,
    _delete,
)
