"""The results page: fastest rivals, goals, what is lost; and that README and page say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import models
from pilite.errors import PiliteError
from pilite.lab.estimate import page
from pilite.lab.estimate.count import Counted
from pilite.lab.estimate.estimate import Layer, Row
from pilite.lab.estimate.models import MODELS
from tests.lab.estimate.rows import counted, row

V2 = "tf2_mobilenet_v2_1.0_224_ptq"
FACTS = page.data()


def a53(runtime: str, in_order: float, llvm: float, model: str = V2) -> Row:
    both = Counted(10, {"a53-in-order": in_order, "a53-llvm": llvm}, 3, 2, 1)
    return replace(row(runtime, model=model), counted=both)


ROWS = [a53("pilite", 100e6, 150e6), a53("tflite", 120e6, 140e6), a53("litert", 110e6, 160e6)]


def test_each_core_model_has_its_own_fastest_rival() -> None:
    found = page.pairs(ROWS)
    assert [(pair.core_model, pair.rival.runtime) for pair in found] == [
        ("a53-in-order", "litert"),
        ("a53-llvm", "tflite"),
    ]
    assert [round(pair.times, 3) for pair in found] == [1.1, 0.933]


def test_a_lost_row_is_marked_and_listed_again() -> None:
    text = "\n".join(page.sections(ROWS, (), page.pairs(ROWS), FACTS))
    assert "| 0.93 **slower** |" in text
    assert f"- {V2} on Cortex-A53 (Pi 3B+) by a53-llvm: 0.93 against tflite" in text


def test_the_goal_holds_on_the_first_model_of_a_core() -> None:
    lines = page.goal_table(page.pairs(ROWS), FACTS).splitlines()[2:]
    assert [line.split(" | ")[1:] for line in lines] == [
        ["a53-in-order", "int8", "1", "1.10", "1.4", "short by 21.4% |"],
        ["a53-llvm", "int8", "1", "0.93", "", " |"],
    ]


def test_a_goal_that_is_reached_is_not_among_the_missed() -> None:
    rows = [ROWS[0], a53("litert", 140e6, 160e6)]
    text = "\n".join(page.sections(rows, (), page.pairs(rows), FACTS))
    assert "| 1.40 | 1.4 | reached |" in text
    assert "## Missed goals\nNone." in text


def test_what_was_written_about_a_missed_goal_is_kept() -> None:
    facts = {**FACTS, "missed": {"cortex-a53": {"int8": {"bound": "One pipe.", "tried": "Two."}}}}
    text = "\n".join(page.sections(ROWS, (), page.pairs(ROWS), facts))
    assert "1.10 of 1.4, short by 21.4%.**\nWhat bounds it: One pipe.\nWhat was tried: Two." in text


def test_the_mean_is_geometric_and_of_the_models_with_a_goal() -> None:
    other = [
        a53("pilite", 100e6, 1e6, "mlperf_tiny_kws_int8"),
        a53("tflite", 440e6, 1e6, "mlperf_tiny_kws_int8"),
    ]
    no_goal = [a53("pilite", 1e6, 1e6, "net"), a53("tflite", 99e6, 1e6, "net")]
    table = page.goal_table(page.pairs([*ROWS, *other, *no_goal]), FACTS)
    assert "| a53-in-order | int8 | 2 | 2.20 |" in table


def test_depthwise_is_compared_with_onnxruntime() -> None:
    layers = (
        Layer(3, "DEPTHWISE_CONV_2D", ("dw",), counted(10, 7.35e6)),
        Layer(4, "ADD", (), counted(1, 1e6)),
    )
    alone = replace(ROWS[0], counted=counted(100, 101e6), layers=layers)
    text = "\n".join(page.sections(ROWS, [alone], page.pairs(ROWS), FACTS))
    assert "| 100.0 | 136 | 1.36 | 7.35 | 14.7 | 2.00 |" in text


def test_the_readme_gets_the_table_and_keeps_the_rest(tmp_path: Path) -> None:
    readme, out = tmp_path / "README.md", tmp_path / "RESULTS.md"
    readme.write_text(f"before\n{page.MARKS[0]}\nold\n{page.MARKS[1]}\nafter\n")
    page.write(ROWS, (), out, readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert page.tables(text)[0] in out.read_text()
    assert sorted(tmp_path.iterdir()) == [readme, out]


def test_a_readme_without_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("text")
    with pytest.raises(PiliteError, match="marks"):
        page.write(ROWS, (), tmp_path / "RESULTS.md", readme)
    assert readme.read_text() == "text"


def test_without_rivals_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match="leave --rival out"):
        page.write([ROWS[0]], (), tmp_path / "RESULTS.md")
    assert list(tmp_path.iterdir()) == []


def test_every_model_and_core_of_the_data_exists() -> None:
    from models.registry import entries

    assert {*FACTS["goals"], *FACTS["also"], *FACTS["shown"], FACTS["onnxruntime"]["model"]} <= set(entries())
    assert list(FACTS["cores"]) == list(FACTS["goal"]) == list(MODELS)
    assert all(models.is_here(name, Path(), None) is False for name in FACTS["goals"])
