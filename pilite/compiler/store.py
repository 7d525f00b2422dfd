"""Finished builds by build_id: a build that was ever finished here is copied, not compiled again.

artifacts/builds/<build_id>.so      written beside and renamed; a damaged one counts as missing
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilite import seal
from pilite.compiler import artifact
from pilite.errors import ModelError

LIMIT = 2 << 30  # bytes; what was not used for longest goes first


@dataclass(frozen=True)
class Store:
    """A folder of finished builds. Several processes may use it at once."""

    folder: Path
    limit: int = LIMIT

    def path(self, build_id: str) -> Path:
        return self.folder / f"{build_id}.so"

    def get(self, build_id: str) -> tuple[bytes, dict[str, Any]] | None:
        """The artifact and its manifest, or None if it is missing, damaged or not what its name says."""
        path = self.path(build_id)
        try:
            data = path.read_bytes()
            _, manifest = seal.unseal(data)
        except (OSError, ModelError):
            return None
        if manifest.get("build_id") != build_id:
            return None
        with suppress(OSError):  # another process may just have removed it
            path.touch()
        return data, manifest

    def put(self, build_id: str, data: bytes) -> None:
        """Keep a finished build, and remove what is beyond the limit."""
        artifact.write(self.path(build_id), data)
        kept = 0
        for path in sorted(self.folder.glob("*.so"), key=_last_use, reverse=True):
            kept += _size(path)
            if kept > self.limit and path != self.path(build_id):
                path.unlink(missing_ok=True)

    @contextmanager
    def claim(self, build_id: str) -> Iterator[None]:
        """Held by one process at a time: who waited finds the build that the other one finished.

        A killed process gives its claim back; the kernel sees to that.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / f"{build_id}.lock"
        with place.open("w") as file:
            with suppress(OSError):  # a file system without locks: both compile, and both write the same
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                place.unlink(missing_ok=True)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
