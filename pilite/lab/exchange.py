"""History in and out: JSON lines, one result a line; Parquet, one entry a row and its result beside it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pilite.errors import PiliteError
from pilite.lab import history, store

Json = dict[str, Any]


def export(connection: sqlite3.Connection, path: Path) -> int:
    """Write the history to a .jsonl or .parquet file; the number of runs. Raises PiliteError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _format(path).write(connection, beside)
        os.replace(beside, path)
    except OSError as problem:
        raise PiliteError(f"{path}: cannot be written: {problem.strerror}.") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
    return count


def take(connection: sqlite3.Connection, path: Path) -> int:
    """Add the runs of a file to the history; the number of new ones. Raises PiliteError."""
    if not path.is_file():
        raise PiliteError(f"{path}: no such file.")
    return history.append_all(connection, dict(_format(path).read(path)))


def _write_lines(connection: sqlite3.Connection, path: Path) -> int:
    lines = [json.dumps({"run": run, "result": result}) for run, result in history.documents(connection)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def _read_lines(path: Path) -> Iterator[tuple[str, Json]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = store.parsed(line)
            yield str(row["run"]), dict(row["result"])
        except (ValueError, KeyError, TypeError):
            raise PiliteError(f'{path}, line {number}: not {{"run": ..., "result": ...}}.') from None


KINDS = {"TEXT": "VARCHAR", "INTEGER": "BIGINT", "REAL": "DOUBLE"}  # of SQLite, and of DuckDB


def _write_parquet(connection: sqlite3.Connection, path: Path) -> int:
    import duckdb

    results = {run: json.dumps(result) for run, result in history.documents(connection)}
    kinds = {**{name: KINDS[kind] for name, kind in history.COLUMNS.items()}, "result": "VARCHAR"}
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        lines = Path(folder) / "entries.jsonl"
        rows = [{**entry, "result": results[entry["run"]]} for entry in history.entries(connection)]
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        source = database.read_json(str(lines), columns=kinds, format="newline_delimited")
        source.write_parquet(str(path), compression="zstd")
    return len(results)


def _read_parquet(path: Path) -> Iterator[tuple[str, Json]]:
    import duckdb

    try:
        with duckdb.connect() as database:
            query = "SELECT run, any_value(result) FROM read_parquet(?) GROUP BY run ORDER BY run"
            found = database.execute(query, [str(path)]).fetchall()
            yield from [(str(run), store.parsed(result)) for run, result in found]
    except (duckdb.Error, ValueError, TypeError) as problem:
        raise PiliteError(f"{path}: not a history: {str(problem).splitlines()[0]}") from None


class _Format:
    def __init__(
        self,
        write: Callable[[sqlite3.Connection, Path], int],
        read: Callable[[Path], Iterator[tuple[str, Json]]],
    ) -> None:
        self.write, self.read = write, read


FORMATS = {
    ".jsonl": _Format(_write_lines, _read_lines),
    ".parquet": _Format(_write_parquet, _read_parquet),
}


def _format(path: Path) -> _Format:
    if path.suffix not in FORMATS:
        raise PiliteError(f"{path}: history is written and read as {' or '.join(FORMATS)}.")
    return FORMATS[path.suffix]
