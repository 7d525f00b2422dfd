"""Locks between processes and threads of this machine: the kernel gives them back when their holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilite.errors import PiliteError


@contextmanager
def held(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path`. With a text `busy`, raises PiliteError with it instead of waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise PiliteError(busy) from None
        yield
