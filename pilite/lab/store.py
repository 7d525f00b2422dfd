"""Folders of finished runs: artifacts/bench/<id>/. A folder appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pilite.errors import PiliteError

Json = dict[str, Any]

BESIDE = ".unfinished-"  # of a folder that is being written, or was when its process was killed


def add(parent: Path, document: Json, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write into a folder beside, then rename it: <time>-<board>, or with -2, -3 ..."""
    parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=BESIDE, dir=parent))
    try:
        fill(beside)
        _flush(beside)
        beside.chmod(0o755)
        return _settle(beside, parent, document)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _settle(beside: Path, parent: Path, document: Json) -> Path:
    stamp = document["time"].replace("-", "").replace(":", "")
    for number in range(1, 1000):
        folder = parent / f"{stamp}-{document['board']['name']}{f'-{number}' if number > 1 else ''}"
        with contextlib.suppress(OSError):  # it exists and is not empty
            os.rename(beside, folder)
            _sync(parent)
            return folder
    raise AssertionError("a thousand measurements in one second")


def _flush(folder: Path) -> None:
    """To the disk, files before their folder: a name never stands for half a file."""
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def finished(parent: Path) -> Iterator[Path]:
    """Every finished run, oldest first."""
    if parent.is_dir():
        yield from sorted(path.parent for path in parent.glob("[!.]*/result.json"))


def load(path: Path) -> Json:
    """A JSON document as it was written. Raises PiliteError if it is not there or damaged."""
    try:
        return parsed(path.read_bytes())
    except OSError as problem:
        why = str(problem.strerror)
    except ValueError as problem:
        why = str(problem)
    raise PiliteError(f"{path} is damaged ({why}): move it away, or make it anew.")


def parsed(data: str | bytes) -> Json:
    """A JSON object. Raises ValueError, also for NaN and infinity, which JSON does not have."""
    found = json.loads(data, parse_constant=_no_number)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
