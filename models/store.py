"""Files below artifacts/models: one writer at a time, never half written, recognized by their sha256."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pilite.errors import PiliteError

Say = Callable[[str], None]


@contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Hold the lock of `path` while making it; a second process waits here and then finds the file.

    The kernel drops the lock when its holder dies. Raises PiliteError where the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (path.parent / f".{path.name}.lock").open("w")
    except OSError as error:
        raise not_writable(path, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{path.stem}: another process makes it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            raise not_writable(path, error) from error
        yield


def write(path: Path, data: bytes) -> None:
    """Replace `path` in one step: a reader sees the old file or the whole new one."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(name, 0o644)  # mkstemp's files are private
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise not_writable(path, error) from error


def sha256(path: Path) -> str | None:
    """The file's digest; None when there is no such file."""
    return _digest(path, hashlib.sha256())


def git_blob(path: Path) -> str | None:
    """What `git hash-object` prints; None when there is no such file."""
    if not path.is_file():
        return None
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def not_writable(path: Path, error: OSError) -> PiliteError:
    return PiliteError(
        f"cannot write {path}: {error.strerror or error}. Free space or permit it, then run again."
    )


def _digest(path: Path, digest: hashlib._Hash) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
