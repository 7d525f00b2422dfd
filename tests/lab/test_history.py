"""The history: append-only, taken in from folders, and out and in as files."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pilite.errors import PiliteError
from pilite.lab import exchange, history, store
from tests.lab.results import measured
from tests.lab.stub import share

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]


def keep(artifacts: Path, document: Json) -> str:
    """A finished run on the disk; its name."""

    def fill(folder: Path) -> None:
        (folder / "result.json").write_text(json.dumps(document))

    return store.add(artifacts / "bench", document, fill).name


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Two runs on one board, one on another."""
    keep(tmp_path, measured(1))
    keep(tmp_path, measured(2, 8.0))
    keep(tmp_path, measured(3, name="pi5"))
    return tmp_path


@pytest.fixture
def opened(artifacts: Path) -> Iterator[sqlite3.Connection]:
    with history.opened(artifacts) as connection:
        yield connection


def test_finished_runs_are_taken_in_once_and_in_order(artifacts: Path) -> None:
    for _ in range(2):
        with history.opened(artifacts) as connection:
            found = history.entries(connection)
    assert [entry["time"][8:10] for entry in found] == ["01", "01", "02", "02", "03", "03"]
    assert [entry["runtime"] for entry in found[:2]] == ["pilite", "tflite"]


def test_a_rivals_entry_says_how_much_faster_pilite_is(opened: sqlite3.Connection) -> None:
    ours, rival = history.entries(opened)[2:4]
    assert (ours["speedup"], ours["mismatches"]) == (None, None)
    assert (rival["speedup"], rival["low"], rival["high"], rival["verdict"]) == (2.5, 2.4, 2.6, "faster")
    assert history.table([rival])[0]["pilite is"] == "2.50 times faster (2.40 to 2.60)"
    undecided = {**rival, "speedup": None}
    assert history.table([undecided])[0]["pilite is"] == "undecided (2.40 to 2.60)"
    assert history.table([{**rival, "timing_valid": 0}])[0]["median ms"] == "no speed"


def test_entries_are_found_by_their_columns(opened: sqlite3.Connection) -> None:
    assert len(history.entries(opened, board=["pi4"])) == 4
    assert len(history.entries(opened, board=["pi4", "pi5"], runtime=["pilite"])) == 3
    assert history.entries(opened, board=["' OR 1=1 --"]) == []


@pytest.mark.parametrize("verb", ["UPDATE runs SET time = ''", "DELETE FROM runs", "DELETE FROM entries"])
def test_nothing_in_it_can_be_changed(opened: sqlite3.Connection, verb: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        opened.execute(verb)


def test_a_run_that_was_written_halfway_is_not_taken_in(artifacts: Path) -> None:
    left = artifacts / "bench" / f"{store.BESIDE}abc"
    left.mkdir()
    (left / "result.json").write_text(json.dumps(measured(9)))
    with history.opened(artifacts) as connection:
        assert len(history.entries(connection)) == 6


def test_a_result_of_an_older_schema_stays_out(artifacts: Path) -> None:
    keep(artifacts, {**measured(9), "rows": [{"model": "m"}]})
    with history.opened(artifacts) as connection:
        assert len(history.entries(connection)) == 6


@pytest.mark.parametrize("text", ['{"schema": "pil', "[1]", '{"time": NaN}', ""], ids=str)
def test_a_damaged_result_is_left_out_and_said(
    artifacts: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = artifacts / "bench" / "20260309T120000Z-pi4"
    folder.mkdir()
    (folder / "result.json").write_text(text)
    with history.opened(artifacts) as connection:
        assert len(history.entries(connection)) == 6
    assert f"left out of the history: {folder}/result.json is damaged" in capsys.readouterr().err


def test_a_filter_that_fits_nothing_says_what_there_is(opened: sqlite3.Connection) -> None:
    history.expect_known(opened, board=["pi4"], model=[])
    with pytest.raises(PiliteError, match=r"--model none: not in the history; known: m\."):
        history.expect_known(opened, board=["pi4"], model=["m", "none"])


def test_an_empty_history_knows_every_filter(tmp_path: Path) -> None:
    with history.opened(tmp_path) as connection:
        history.expect_known(connection, model=["anything"])
        assert history.entries(connection, model=["anything"]) == []


def test_a_file_that_is_no_history_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / history.FILE).write_bytes(b"no database" * 200)
    with (
        pytest.raises(PiliteError, match=r"history\.sqlite: .*is made anew from artifacts/bench"),
        history.opened(tmp_path),
    ):
        pass


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_goes_out_comes_in_again(opened: sqlite3.Connection, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    assert exchange.export(opened, path) == 3
    with history.opened(tmp_path / "other") as other:
        assert exchange.take(other, path) == 3
        assert exchange.take(other, path) == 0
        assert history.entries(other) == history.entries(opened)
        assert list(history.documents(other)) == list(history.documents(opened))


def test_parquet_has_one_row_per_entry_for_other_tools(opened: sqlite3.Connection, tmp_path: Path) -> None:
    exchange.export(opened, tmp_path / "out.parquet")
    with duckdb.connect() as database:
        query = "SELECT runtime, min(median_ms), count(*) FROM read_parquet(?) GROUP BY 1 ORDER BY 1"
        found = database.execute(query, [str(tmp_path / "out.parquet")]).fetchall()
    assert found == [("pilite", 8.0, 3), ("tflite", 20.0, 3)]


RIGHT = json.dumps({"run": "20260320T120000Z-pi4", "result": measured(20)}).encode() + b"\n"
WRONG_FILES = {
    "no such file": ("gone.jsonl", None, "no such file"),
    "another kind": ("h.csv", b"a,b\n", r"\.jsonl or \.parquet"),
    "no JSON": ("h.jsonl", b'{"run": "a", "result": {}\n', "line 1: not"),
    "no text": ("h.jsonl", b'{"run": "a", "result": {"x": "\xff"}}\n', "line 1: not"),
    "no number": ("h.jsonl", b'{"run": "a", "result": {"x": NaN}}\n', "line 1: not"),
    "a list": ("h.jsonl", b"[1, 2]\n", "line 1: not"),
    "one is wrong": (
        "h.jsonl",
        RIGHT + b'{"run": "a", "result": {}}\n',
        "a: not a result of",
    ),
    "no result": ("h.jsonl", b'{"run": "a"}\n', "line 1: not"),
    "another schema": ("h.jsonl", b'{"run": "a", "result": {"schema": "x/1"}}\n', "a: not a result of"),
    "no Parquet": ("h.parquet", b"PAR1 not really", "not a history"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_file_that_cannot_be_read_is_refused_and_nothing_is_added(
    opened: sqlite3.Connection, tmp_path: Path, case: str
) -> None:
    name, data, said = WRONG_FILES[case]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(PiliteError, match=said):
        exchange.take(opened, tmp_path / name)
    assert len(history.entries(opened)) == 6


def test_an_export_that_cannot_be_written_leaves_nothing(opened: sqlite3.Connection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PiliteError, match="cannot be written"):
        exchange.export(opened, tmp_path / "file" / "out.jsonl")


KILLS = 20
NAME = re.compile(r"\d{8}T\d{6}Z-local(-\d+)?")  # of a run


@pytest.mark.slow
def test_kill_9_at_any_point_of_a_bench_loses_no_finished_run_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    share("loader", tmp_path / "artifacts")
    chance, reported = random.Random(20), []
    words = [sys.executable, "-m", "tests.lab.bench_forever", str(tmp_path)]
    for kill in range(KILLS):
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        assert "ready" in process.stdout.readline(), process.stdout.read()
        if kill == 0:
            reported.append(process.stdout.readline().strip())  # so that there is something to lose
        time.sleep(chance.uniform(0, 3))
        process.kill()
        process.wait()
        reported += [line.strip() for line in process.stdout if line.endswith("\n")]
        process.stdout.close()
    assert_nothing_runs_below(tmp_path)
    assert [line for line in reported if not NAME.fullmatch(line)] == []  # no bench failed
    finished = [folder.name for folder in store.finished(tmp_path / "artifacts" / "bench")]
    assert set(reported) <= set(finished)
    for folder in store.finished(tmp_path / "artifacts" / "bench"):
        assert json.loads((folder / "samples.json").read_text())["models"]["stub"]["ms"]["pilite/1"]
    with history.opened(tmp_path / "artifacts") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {entry["run"] for entry in history.entries(connection)} == set(finished)
    with closing(sqlite3.connect(tmp_path / "artifacts" / history.FILE)) as connection:
        counted = connection.execute("SELECT count(*) FROM runs").fetchone()
    assert counted == (len(finished),)


def assert_nothing_runs_below(folder: Path) -> None:
    """No process has the folder in its command line; a dying one gets ten seconds."""
    for _ in range(100):
        found = [path.name for path in Path("/proc").glob("[0-9]*") if str(folder) in words_of(path)]
        if not found:
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {found}")


def words_of(process: Path) -> str:
    if process.name == str(os.getpid()):
        return ""
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
