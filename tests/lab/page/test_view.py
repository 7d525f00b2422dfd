"""What the page says: all rows, losses and failures too; marks; no ranking of times that do not count."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pilite.errors import PiliteError
from pilite.lab import bench
from pilite.lab.page import render, view
from tests.lab.page.runs import MODEL, MS, run


def test_every_row_is_there_also_those_that_pilite_loses() -> None:
    lines = view.headline(run())
    names = [*MS, "tvm-stock", *MS]
    assert sorted((line["threads"], line["runtime"]) for line in lines) == sorted(
        zip([1] * 5 + [4] * 4, names, strict=True)
    )
    assert [line["threads"] for line in lines] == [1] * 5 + [4] * 4
    assert (lines[0]["runtime"], lines[4]["runtime"]) == ("litert", "tvm-stock")  # the fastest first
    verdicts = {(line["runtime"], line["threads"]): line["verdict"] for line in lines}
    assert verdicts["litert", 1] == "slower"
    assert verdicts["tflite", 4] == "faster"
    assert verdicts["litert-builtin", 1] == "same"


def test_the_run_of_these_tests_is_what_bench_would_write() -> None:
    bench.validate(run().document)
    bench.validate(run(timing_valid=False).document)


def test_the_sentence_counts_wins_and_losses() -> None:
    assert view.verdicts([run()]) == "Of 6 comparisons pilite is faster in 2, slower in 2, the same in 2."


def test_a_failure_and_a_mark_stand_in_their_rows() -> None:
    lines = {(line["runtime"], line["threads"]): line for line in view.headline(run())}
    assert lines["tvm-stock", 1]["reason"] == "ImportError: no <tvm>"
    assert lines["tflite", 4]["marks"] == ["drift"]


def test_times_that_do_not_count_are_neither_shown_nor_plotted() -> None:
    virtual = run(timing_valid=False)
    page = view.page([virtual])
    assert {line["median"] for group in page["headline"] for line in group["lines"]} == {"no speed", ""}
    assert page["runs"][0]["models"] == []
    assert page["runs"][0]["refused"] == ["pi4 is virtual"]
    assert "No comparison counts" in page["verdicts"]


def test_names_are_escaped_and_nothing_is_loaded_from_anywhere() -> None:
    text = render.html([run(), replace(run(), name="another")])
    assert "mobilenet &lt;b&gt;&amp;amp;" in text
    assert MODEL not in text
    assert "no &lt;tvm&gt;" in text
    assert not re.search(r"https?:|<script|<link|@import|src=|url\(", text)


def test_the_same_run_gives_the_same_page() -> None:
    assert render.html([run()]) == render.html([run()])


def test_commands_repeat_the_run() -> None:
    _, _, last = view.commands(run().document)
    rivals = "--rival tflite,litert,litert-builtin"
    assert last.endswith(f"--threads 1,4 {rivals} --effort quick --seed 0")
    assert last.startswith("python3 run.py bench --board pi4 --model mobilenet")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (123.4, "123"), (12345.6, "12346"), (0, "0")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert view.digits(value) == text


def test_ten_thousand_samples_make_a_small_page() -> None:
    big = run(rounds=50, runs=25)
    text = render.html([big])
    assert len(re.findall(r"h0", text)) > 9_700  # 2 % of the slowest may lie beyond the axis
    assert len(text) < 400_000
    assert text.count("<") < 2_000  # elements are what a browser takes its time for


@pytest.mark.parametrize("named", [True, False], ids=["with its schema", "of an older version"])
def test_runs_are_read_from_their_folders(named: bool, tmp_path: Path) -> None:
    folder = tmp_path / "bench" / "20260301T120000Z-pi4"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(run().document))
    raw = {"schema": "pilite.samples/1", "models": run().samples} if named else run().samples
    (folder / "samples.json").write_text(json.dumps(raw))
    assert render.read(tmp_path, folder.name).samples == run().samples
    assert render.newest(tmp_path) == folder.name
    assert render.read(tmp_path, folder.name).document == run().document
    with pytest.raises(PiliteError, match=r"no run other; the newest are: 20260301T120000Z-pi4"):
        render.read(tmp_path, "other")
    with pytest.raises(PiliteError, match=r"no run yet: `bench` makes one"):
        render.newest(tmp_path / "empty")
    (folder / "result.json").write_text("{}")
    with pytest.raises(PiliteError, match=r"older version"):
        render.read(tmp_path, folder.name)


@pytest.mark.parametrize(
    ("damaged", "text"),
    [
        ("bench/20260301T120000Z-pi4/samples.json", None),
        ("bench/20260301T120000Z-pi4/result.json", '{"marks": NaN}'),
        ("profile/m/pi4.json", "{"),
        ("compare/m.json", ""),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path: Path, damaged: str, text: str | None) -> None:
    folder = tmp_path / "bench" / "20260301T120000Z-pi4"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(run().document))
    (folder / "samples.json").write_text(json.dumps({"schema": "pilite.samples/1", "models": run().samples}))
    (tmp_path / damaged).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / damaged).unlink(missing_ok=True)
    if text is not None:
        (tmp_path / damaged).write_text(text)
    with pytest.raises(PiliteError, match=rf"{damaged} is damaged \(.*move it away"):
        render.read(tmp_path, folder.name)


def test_a_page_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PiliteError, match=r"report\.html: cannot be written: File exists"):
        render.write([run()], tmp_path / "file" / "report.html")


def test_a_page_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for _ in range(2):
        render.write([run()], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
