"""Fetches one published file: continues a part, trusts only the digest, installs in one step."""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from models.store import Say, not_writable
from pilite.errors import ModelError, PiliteError

ATTEMPTS = 4  # connections; each continues where the last one was cut
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 16
REPORT_EVERY = 2.0  # seconds between progress lines

Correct = Callable[[Path], bool]


class _Cut(Exception):
    """The connection ended early; what arrived is in the part file."""


def fetch(url: str, target: Path, correct: Correct, say: Say) -> None:
    """Download `url` to `target`. The caller holds the lock of `target`.

    Raises PiliteError when the server cannot be reached, refuses or keeps cutting the connection (the part
    stays, the next call continues it) and ModelError when the bytes are the wrong ones (nothing stays).
    """
    part = target.with_name(f"{target.name}.part")
    resumed = part.exists()
    _complete(url, part, say)
    if not correct(part) and resumed:
        say(f"{target.stem}: the part from an earlier download does not fit, starting again")
        part.unlink()
        _complete(url, part, say)
    if not correct(part):
        part.unlink()
        raise ModelError(
            f"{url} is not the file that models.toml names: its digest differs, so it was discarded. "
            "Look for a proxy that answers with a page of its own, or take the file from elsewhere."
        )
    os.replace(part, target)


def _complete(url: str, part: Path, say: Say) -> None:
    """Make `part` as long as the server's file, in at most ATTEMPTS connections."""
    for attempt in range(ATTEMPTS):
        try:
            return _continue(url, part, say)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return None  # nothing behind the part: the digest decides
            raise _unreachable(url, f"the server answers {error.code} {error.reason}", part) from error
        except urllib.error.URLError as error:
            raise _unreachable(url, f"{error.reason}", part) from error
        except (_Cut, ConnectionError, TimeoutError, http.client.HTTPException) as error:
            say(f"{part.stem}: {error or type(error).__name__}, connection {attempt + 1} of {ATTEMPTS}")
    raise _unreachable(url, f"the connection was cut {ATTEMPTS} times", part)


def _continue(url: str, part: Path, say: Say) -> None:
    """One connection: ask for what is missing, append it. Raises _Cut when less arrives than announced."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        appended = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        start = have if appended else 0  # a server without ranges sends everything again
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with _opened(part, "ab" if appended else "wb") as file:
            got = start + _copy(answer, file, start, total, part, say)
    if total is not None and got < total:
        raise _Cut(f"cut after {got} of {total} bytes")


def _copy(answer: IO[bytes], file: IO[bytes], start: int, total: int | None, part: Path, say: Say) -> int:
    """Bytes copied; says how far it is every few seconds."""
    got, reported = 0, time.monotonic()
    while block := answer.read(BLOCK):
        try:
            file.write(block)
        except OSError as error:
            raise not_writable(part, error) from error
        got += len(block)
        if time.monotonic() - reported > REPORT_EVERY:
            reported = time.monotonic()
            whole = "" if total is None else f" of {total / 1e6:.1f}"
            say(f"{part.stem}: {(start + got) / 1e6:.1f}{whole} MB")
    return got


def _opened(part: Path, mode: str) -> IO[bytes]:
    try:
        return part.open(mode, buffering=0)  # so that a full disk shows at the write
    except OSError as error:
        raise not_writable(part, error) from error


def _unreachable(url: str, reason: str, part: Path) -> PiliteError:
    kept = " What arrived is kept: run the same command again to continue." if part.exists() else ""
    return PiliteError(
        f"cannot download {url}: {reason}.{kept}\n"
        "Without network: put the file into the folder that PILITE_MODELS names, or take a zoo model."
    )
