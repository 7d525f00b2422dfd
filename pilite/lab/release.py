"""Releases: the signed files that a deploy puts on a board, and their state there; see also release.sh."""

from __future__ import annotations

import getpass
import hashlib
import re
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import BoardError
from pilite.lab import lock, signing
from pilite.lab.connection import PIECE, Connection, Result, advised

MANIFEST = "MANIFEST.sha256"
SIGNATURE = f"{MANIFEST}.sig"
PURPOSE = "pilite-deploy"  # a signature for anything else is worth nothing here
SCRIPT = Path(__file__).with_name("release.sh").read_text(encoding="utf-8")
NO_PREVIOUS = 66  # exit code of release.sh
REFUSED = (73, 75, 77)  # others: what they say has to be done first
KEEP = 3  # releases that stay on a board, unless more are linked
SPARE = 1 << 20  # bytes that a board keeps free beside a release: links, the health check's arrays

Progress = Callable[[int], None]  # is told the bytes of each piece that was sent


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


def of(files: Mapping[str, Path]) -> Release:
    """The release made of `files`; names are plain file names."""
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in files), f"not plain file names: {list(files)}"
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    text = "".join(f"{name}\0{digests[name]}\n" for name in sorted(digests))
    return Release(hashlib.sha256(text.encode()).hexdigest()[:16], dict(files), digests)


@dataclass(frozen=True)
class Place:
    """The folder of one model on one board, and who deploys there."""

    connection: Connection
    folder: str
    owner: str = "somebody"

    def path(self, release: str, name: str) -> str:
        return f"{self.folder}/releases/{release}/{name}"


@dataclass(frozen=True)
class State:
    """What a place holds. `intact`: the asked release is there, whole and signed.

    `has`: file -> sha256 of the current release; `arrived`: file -> (bytes, sha256) of what was uploaded.
    """

    current: str
    previous: str
    intact: bool
    free: int
    has: Mapping[str, str]
    arrived: Mapping[str, tuple[int, str]]


def owner_of(artifacts: Path) -> str:
    """Who deploys: a user's checkout on a machine, as one word that others can make sense of."""
    checkout = hashlib.sha256(str(artifacts.resolve()).encode()).hexdigest()[:8]
    return re.sub(r"\s", "_", f"{getpass.getuser()}@{socket.gethostname()}/{checkout}")


def trust(connection: Connection, root: str, allowed: Path) -> None:
    """Let a board that trusts nobody yet trust our releases; who is trusted already stays so."""
    if connection.run(["test", "-f", f"{root}/allowed_signers"]).code:
        connection.check(["mkdir", "-p", root])
        connection.put(allowed, f"{root}/allowed_signers.new")
        script = 'cd "$1" && sync allowed_signers.new && mv -T allowed_signers.new allowed_signers && sync .'
        connection.check(["sh", "-c", script, "trust", root])


@contextmanager
def turn(place: Place, artifacts: Path) -> Iterator[None]:
    """Deploy alone: one process of this checkout, and by a lease on the board one checkout at a time."""
    name = hashlib.sha256(f"{place.connection.where}\0{place.folder}".encode()).hexdigest()[:16]
    busy = f"{place.connection.where}: {place.folder}: another deploy of this checkout runs. Wait for it."
    with lock.held(artifacts / "locks" / f"deploy-{name}", busy):
        try:
            yield
        finally:
            with suppress(BoardError):  # a board that is gone must not hide why
                _call(place, "end")


def look(place: Place, release: str) -> State:
    """Ask the board and change nothing. The release is verified byte by byte there."""
    return _state(_done(place, _call(place, "look", release)))


def begin(place: Place, release: str) -> State:
    """`look`, take the lease, and see what has arrived. Raises BoardError if another one deploys."""
    return _state(_done(place, _call(place, "begin", release)))


def _state(output: str) -> State:
    words: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {"has": {}, "file": {}, "size": {}}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        value, _, name = rest.partition(" ")
        if word in tables:
            tables[word][name] = value
        else:
            words[word] = rest
    arrived = {name: (int(tables["size"][name]), digest) for name, digest in tables["file"].items()}
    free = int(words.get("free", "0")) * 1024
    return State(
        words.get("current", ""),
        words.get("previous", ""),
        words.get("intact") == "yes",
        free,
        tables["has"],
        arrived,
    )


@dataclass(frozen=True)
class Part:
    """A file of an upload, of which the board has the first `start` bytes."""

    name: str
    source: Path
    start: int

    @property
    def missing(self) -> int:
        return self.source.stat().st_size - self.start


def upload(place: Place, release: Release, state: State, key: Path, progress: Progress) -> int:
    """Send what is not there yet into incoming/<id>; the number of bytes sent. Raises BoardError.

    A file whose beginning arrived is continued: the board's sha256 of it must be that of our beginning.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest, signature = Path(folder) / MANIFEST, Path(folder) / SIGNATURE
        manifest.write_text(release.manifest)
        signature.write_text(signing.sign(release.manifest.encode(), key, PURPOSE))
        files = {**release.files, MANIFEST: manifest, SIGNATURE: signature}
        parts = [part for name, path in files.items() if (part := _part(name, path, state))]
        missing = sum(part.missing for part in parts)
        if missing + SPARE > state.free:
            raise BoardError(_no_room(place, missing, state.free))
        for part in parts:
            _send(place, release.id, part, progress)
        return missing


def _part(name: str, source: Path, state: State) -> Part | None:
    """What of a file has to be sent; None if all of it arrived."""
    data = source.read_bytes()
    size, digest = state.arrived.get(name, (0, ""))
    whole_start = 0 < size <= len(data) and hashlib.sha256(data[:size]).hexdigest() == digest
    if whole_start and size == len(data):
        return None
    return Part(name, source, size if whole_start else 0)


def _send(place: Place, release: str, part: Part, progress: Progress) -> None:
    target = f"{place.folder}/incoming/{release}/{part.name}"
    try:
        place.connection.put(part.source, target, start=part.start, progress=progress)
    except BoardError as problem:
        free = _free(place)
        full = free is not None and free < PIECE
        raise BoardError(_no_room(place, part.missing, free or 0)) if full else problem from None


def _free(place: Place) -> int | None:
    """Bytes that are left on the board; None if it does not answer any more."""
    try:
        return int(place.connection.check(["df", "-Pk", place.folder]).split()[-3]) * 1024
    except (BoardError, ValueError, IndexError):
        return None


def _is_full(place: Place, said: str) -> bool:
    """Whether a failure is that of a full disk; dash's echo calls one an I/O error."""
    free = _free(place) if "I/O error" in said else None
    return "No space left on device" in said or (free is not None and free < PIECE)


def _no_room(place: Place, missing: int, free: int) -> str:
    return (
        f"{place.connection.where}: {place.folder}: {missing / 1e6:.1f} MB are to be sent and "
        f"{free / 1e6:.1f} MB are free on the board's disk. Make room there and deploy again; "
        f"the current release stays."
    )


def stage(place: Place, release: str) -> None:
    """Verify incoming/<id> on the board, fsync it, move it to releases/<id>. Raises BoardError if damaged."""
    _done(place, _call(place, "stage", release))


def switch(place: Place, release: str, keep: int = KEEP) -> None:
    """Verify a staged release once more and make it the current one, in one step."""
    _done(place, _call(place, "switch", release, str(keep)))


def discard(place: Place, release: str) -> None:
    """Remove a release that is neither current nor previous, and what has arrived of it."""
    _done(place, _call(place, "discard", release))


def rollback(place: Place) -> str | None:
    """Make the previous release the current one; its id, or None if there is no previous one."""
    result = _call(place, "rollback")
    return None if result.code == NO_PREVIOUS else _done(place, result).strip()


def _call(place: Place, verb: str, *arguments: str) -> Result:
    command = ["sh", "-c", SCRIPT, "release.sh", verb, place.folder, place.owner, *arguments]
    return place.connection.run(command, timeout=180)


def _done(place: Place, result: Result) -> str:
    where = f"{place.connection.where}: {place.folder}"
    if result.code and _is_full(place, result.err):
        raise BoardError(
            f"{where}: the board's disk is full: {result.tail}. Make room there and deploy again."
        )
    if result.code:
        again = "" if result.code in REFUSED else "Deploy again."
        raise BoardError(f"{where}: {advised(result.tail, again)}")
    return result.out
