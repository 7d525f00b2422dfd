"""Every finished run, in one SQLite file that is only ever appended to: artifacts/history.sqlite.

The folders of runs (store.py) are the truth; whatever is not yet in the file is taken in when it is opened,
so a process that is killed between the two loses nothing.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema

from pilite.errors import PiliteError
from pilite.lab import bench, store

Json = dict[str, Any]

FILE = "history.sqlite"
SCHEMA = "pilite.history/1"
WAIT_S = 60.0  # for another process that writes

# Columns of an entry: what identifies a row of a run, what must agree for a comparison, its numbers.
TEXTS: tuple[str, ...] = ("run", "time", "board", "board_model", "cpu", "cores", "governor", "max_mhz", "os")
TEXTS += (
    "kernel",
    "libc",
    "python",
    "protocol",
    "effort",
    "model",
    "numerics",
    "runtime",
    "runtime_version",
    "verdict",
)
WHOLES = ("threads", "runs", "rounds", "timing_valid", "mismatches")
REALS: tuple[str, ...] = (
    "min_ms",
    "median_ms",
    "p90_ms",
    "p99_ms",
    "mad_ms",
    "rss_mb",
    "load_ms",
    "first_ms",
    "cold_ms",
)
REALS += ("speedup", "low", "high")  # of pilite, in a rival's entry
COLUMNS = {
    **dict.fromkeys(TEXTS, "TEXT"),
    **dict.fromkeys(WHOLES, "INTEGER"),
    **dict.fromkeys(REALS, "REAL"),
}

TABLES = f"""
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, time TEXT NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS entries (
  {", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())}, FOREIGN KEY (run) REFERENCES runs (run)
) STRICT;
CREATE INDEX IF NOT EXISTS entries_by_row ON entries (model, runtime, threads, time);
"""
GUARD = """
CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
"""


@contextmanager
def opened(artifacts: Path) -> Iterator[sqlite3.Connection]:
    """The history with everything that is in artifacts/bench/.

    Raises PiliteError if the file is no history, or cannot be written.
    """
    path = artifacts / FILE
    artifacts.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(path, timeout=WAIT_S)
        try:
            _prepare(connection)
            take_in(connection, artifacts / "bench")
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as problem:
        raise PiliteError(
            f"{path}: {problem}. May it be written, and is there room? If it is damaged, move it away: it is "
            f"made anew from artifacts/bench/, without runs that were imported."
        ) from None


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    guards = [GUARD.format(table=t, verb=v) for t in ("runs", "entries") for v in ("UPDATE", "DELETE")]
    connection.executescript(TABLES + "".join(guards))


def take_in(connection: sqlite3.Connection, parent: Path) -> int:
    """Append finished runs that are not in the history; their number. Results of older schemas stay out."""
    known, added = {run for (run,) in connection.execute("SELECT run FROM runs")}, 0
    for folder in store.finished(parent):
        if folder.name not in known:
            try:
                added += _append(connection, folder.name, store.load(folder / "result.json"))
            except PiliteError as problem:  # one damaged file must not hide all others
                print(f"left out of the history: {problem}", file=sys.stderr)
    return added


def append_all(connection: sqlite3.Connection, found: Mapping[str, Json]) -> int:
    """Add results by the names of their runs; how many were new. Raises PiliteError, adding none."""
    for run, document in found.items():
        try:
            bench.validate(document)
        except jsonschema.ValidationError as problem:
            raise PiliteError(f"{run}: not a result of {bench.SCHEMA}: {problem.message[:200]}") from None
    return sum(_append(connection, run, document) for run, document in found.items())


def _append(connection: sqlite3.Connection, run: str, document: Json) -> bool:
    """In one transaction: a run with all its entries, or nothing."""
    try:
        bench.validate(document)
    except jsonschema.ValidationError:
        return False
    with connection:
        text = json.dumps(document, sort_keys=True)
        added = connection.execute(
            "INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", (run, document["time"], text)
        )
        if not added.rowcount:
            return False
        names, marks = ", ".join(COLUMNS), ", ".join(f":{name}" for name in COLUMNS)
        connection.executemany(f"INSERT INTO entries ({names}) VALUES ({marks})", entries_of(run, document))
    return True


def entries_of(run: str, document: Json) -> list[Json]:
    """One entry per row of a result; a rival's has pilite's speed-up against it."""
    board, versions = document["board"], document["versions"]
    ratios = {(r["model"], r["rival"], r["threads"]): r for r in document["ratios"]}
    wrong = {(c["model"], c["threads"]): c["mismatches"] for c in document["checks"]}
    shared = {
        **{name: board.get(name) for name in ("cpu", "cores", "governor", "max_mhz", "os", "kernel", "libc")},
        "run": run,
        "time": document["time"],
        "board": board["name"],
        "board_model": board["model"],
        "python": versions["python"],
        "protocol": versions["protocol"],
        "effort": document["settings"]["effort"],
        "timing_valid": int(document["timing_valid"]),
    }
    return [_entry(shared, row, ratios, wrong) for row in document["rows"]]


def _entry(shared: Json, row: Json, ratios: dict[Any, Json], wrong: dict[Any, int]) -> Json:
    ratio = ratios.get((row["model"], row["runtime"], row["threads"]), {})
    low, high = ratio.get("ci95", (None, None))
    values = {
        **shared,
        **row,
        "speedup": ratio.get("speedup"),
        "low": low,
        "high": high,
        "verdict": ratio.get("verdict"),
        "mismatches": wrong.get((row["model"], row["threads"])) if row["runtime"] == "pilite" else None,
    }
    return {name: _typed(values.get(name), kind) for name, kind in COLUMNS.items()}


def _typed(value: Any, kind: str) -> Any:
    return str(value) if kind == "TEXT" and value is not None else value


# Questions.


def entries(connection: sqlite3.Connection, **wanted: Sequence[str]) -> list[Json]:
    """Entries, oldest first; `wanted`: column -> values of which one must hold, an empty list means any."""
    filters = {name: list(values) for name, values in wanted.items() if values}
    clauses = [f"{name} IN ({', '.join('?' * len(values))})" for name, values in filters.items()]
    where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
    query = f"SELECT * FROM entries {where} ORDER BY time, run, model, threads, runtime"
    found = connection.execute(query, [value for values in filters.values() for value in values])
    names = [column[0] for column in found.description]
    return [dict(zip(names, line, strict=True)) for line in found]


def expect_known(connection: sqlite3.Connection, **wanted: Sequence[str]) -> None:
    """Raises PiliteError for a value that no entry has in its column, with those that there are."""
    for name, values in wanted.items():
        known = [value for (value,) in connection.execute(f"SELECT DISTINCT {name} FROM entries ORDER BY 1")]
        for value in values:
            if known and value not in known:
                raise PiliteError(
                    f"--{name} {value}: not in the history; known: {', '.join(map(str, known))}."
                )


def documents(connection: sqlite3.Connection) -> Iterator[tuple[str, Json]]:
    """Every run's name and result, oldest first."""
    for run, text in connection.execute("SELECT run, document FROM runs ORDER BY time, run"):
        yield run, json.loads(text)


def document(connection: sqlite3.Connection, run: str) -> Json:
    """The result of one run. Raises PiliteError if there is none of that name."""
    found = connection.execute("SELECT document FROM runs WHERE run = ?", (run,)).fetchone()
    if found is None:
        raise PiliteError(f"no run {run} in the history; `history` lists them.")
    result: Json = json.loads(found[0])
    return result


def table(found: Iterable[Json]) -> list[Json]:
    """Entries as they are shown."""
    return [
        {
            "run": entry["run"],
            "model": entry["model"],
            "runtime": entry["runtime"],
            "version": entry["runtime_version"],
            "threads": entry["threads"],
            "effort": entry["effort"],
            "median ms": entry["median_ms"] if entry["timing_valid"] else "no speed",
            "pilite is": _speedup(entry),
        }
        for entry in found
    ]


def _speedup(entry: Json) -> str:
    if entry["verdict"] is None:
        return ""
    interval = f"({entry['low']:.2f} to {entry['high']:.2f})"
    times = "undecided" if entry["speedup"] is None else f"{entry['speedup']:.2f} times faster"
    return f"{times} {interval}"


def as_json(found: Sequence[Json], changed: Sequence[Any] = ()) -> Json:
    """As in schemas/history-1.json, checked against it."""
    steps = [{**vars(one), "also": list(one.also), "is_regression": one.is_regression} for one in changed]
    result = {"schema": SCHEMA, "entries": list(found), "changes": steps}
    schema = Path(__file__).with_name("schemas") / "history-1.json"
    jsonschema.validate(result, json.loads(schema.read_text(encoding="utf-8")))
    return result
