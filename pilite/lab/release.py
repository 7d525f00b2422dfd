"""Releases: the files that one deploy puts on a board, and their state there; release.sh is its part."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import BoardError
from pilite.lab.connection import Connection, Result

MANIFEST = "MANIFEST.sha256"
SCRIPT = Path(__file__).with_name("release.sh").read_text(encoding="utf-8")
NO_PREVIOUS = 66  # exit code of release.sh


@dataclass(frozen=True)
class Release:
    """Files by the names they get on the board; `id` is a hash of names and contents."""

    id: str
    files: Mapping[str, Path]
    digests: Mapping[str, str]  # name -> sha256

    @property
    def manifest(self) -> str:
        """What `sha256sum -c` reads."""
        return "".join(f"{digest}  {name}\n" for name, digest in sorted(self.digests.items()))

    @property
    def manifest_digest(self) -> str:
        return hashlib.sha256(self.manifest.encode()).hexdigest()


def of(files: Mapping[str, Path]) -> Release:
    """The release made of `files`; names are plain file names."""
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in files), f"not plain file names: {list(files)}"
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    text = "".join(f"{name}\0{digests[name]}\n" for name in sorted(digests))
    return Release(hashlib.sha256(text.encode()).hexdigest()[:16], dict(files), digests)


@dataclass(frozen=True)
class Place:
    """The folder of one model on one board."""

    connection: Connection
    folder: str

    def path(self, release: str, name: str) -> str:
        return f"{self.folder}/releases/{release}/{name}"


@dataclass(frozen=True)
class State:
    """What a place holds. `intact`: the asked release is there, whole; `arrived`: sha256 of its uploads."""

    current: str
    previous: str
    intact: bool
    arrived: Mapping[str, str]


def state(place: Place, release: str) -> State:
    """Ask the board. The release is verified byte by byte there."""
    lines = [line.split(" ", 2) for line in _done(place, _call(place, "state", release)).splitlines()]
    words = {line[0]: line[1] for line in lines if line[0] != "file"}
    arrived = {line[2]: line[1] for line in lines if line[0] == "file"}
    return State(words["current"], words["previous"], words["intact"] == "yes", arrived)


def upload(place: Place, release: Release, arrived: Mapping[str, str]) -> int:
    """Send what is not there yet into incoming/<id>; the number of bytes sent."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / MANIFEST
        manifest.write_text(release.manifest)
        files = {**release.files, MANIFEST: manifest}
        digests = {**release.digests, MANIFEST: release.manifest_digest}
        missing = [name for name in files if arrived.get(name) != digests[name]]
        for name in missing:
            place.connection.put(files[name], f"{place.folder}/incoming/{release.id}/{name}")
        return sum(files[name].stat().st_size for name in missing)


def stage(place: Place, release: str) -> None:
    """Verify incoming/<id> on the board, fsync it, move it to releases/<id>. Raises BoardError if damaged."""
    _done(place, _call(place, "stage", release))


def switch(place: Place, release: str) -> None:
    """Make a staged release the current one, in one step."""
    _done(place, _call(place, "switch", release))


def discard(place: Place, release: str) -> None:
    """Remove a release that is neither current nor previous, and what has arrived of it."""
    _done(place, _call(place, "discard", release))


def rollback(place: Place) -> str | None:
    """Make the previous release the current one; its id, or None if there is no previous one."""
    result = _call(place, "rollback")
    return None if result.code == NO_PREVIOUS else _done(place, result).strip()


def _call(place: Place, *arguments: str) -> Result:
    verb, *rest = arguments
    return place.connection.run(["sh", "-c", SCRIPT, "release.sh", verb, place.folder, *rest], timeout=180)


def _done(place: Place, result: Result) -> str:
    if result.code:
        raise BoardError(f"{place.connection.where}: {place.folder}: {result.tail}. Deploy again.")
    return result.out
