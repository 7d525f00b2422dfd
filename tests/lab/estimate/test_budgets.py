"""Budgets: a change may cost two percent, and gains are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.estimate import budgets
from pilite.lab.estimate.estimate import Row
from pilite.lab.estimate.models import MODELS
from tests.conftest import ROOT
from tests.lab.estimate.rows import row

KEY = ("net", "cortex-a53", "ref", 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Budgets of 1000 instructions and 100 cycles."""
    path = tmp_path / "budgets.json"
    budgets.gate([row()], path, lower=True)
    return path


def test_a_new_row_becomes_its_own_budget(file: Path) -> None:
    assert budgets.read(file) == {KEY: {"instructions": 1000, "a53-in-order": 100, "a53-llvm": 100}}


@pytest.mark.parametrize("worse", [row(cycles=102.0), row(instructions=1020)])
def test_two_percent_more_pass_and_raise_no_budget(file: Path, worse: Row) -> None:
    before = file.read_bytes()
    budgets.gate([worse], file, lower=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        (row(cycles=103.0), r"a53-in-order 100 -> 103 \(\+3\.0 %\)"),
        (row(instructions=1021), r"net cortex-a53 ref 1: instructions 1000 -> 1021 \(\+2\.1 %\)"),
    ],
)
def test_more_than_two_percent_fail_and_name_the_value(file: Path, worse: Row, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        budgets.gate([worse], file, lower=True)


def test_a_failed_gate_leaves_the_file_alone(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(CheckFailed):
        budgets.gate([row(cycles=200.0, instructions=1)], file, lower=True)
    assert file.read_bytes() == before


def test_gains_lower_the_budget(file: Path) -> None:
    budgets.gate([row(cycles=80.0)], file, lower=True)
    assert budgets.read(file)[KEY]["a53-in-order"] == 80
    with pytest.raises(CheckFailed):
        budgets.gate([row(cycles=100.0)], file, lower=True)


def test_without_lower_nothing_is_written(file: Path) -> None:
    before = file.read_bytes()
    verdicts = budgets.gate([row(cycles=80.0)], file, lower=False)
    assert file.read_bytes() == before
    assert any(verdict.lower for verdict in verdicts)


def test_the_file_is_canonical(file: Path, tmp_path: Path) -> None:
    """The order in which rows came, and what was lowered when, leave no trace."""
    other = tmp_path / "other.json"
    budgets.gate([row(model="b")], other, lower=True)
    budgets.gate([row(cycles=120.0), row(model="b")], other, lower=True)
    budgets.gate([row(), row(model="b")], other, lower=True)
    budgets.gate([row(model="b")], file, lower=True)
    assert other.read_bytes() == file.read_bytes()


def test_the_budgets_of_the_tree_are_canonical(tmp_path: Path) -> None:
    kept = ROOT / "tests" / "budgets.json"
    budgets.write(tmp_path / "b.json", budgets.read(kept))
    assert (tmp_path / "b.json").read_bytes() == kept.read_bytes()
    assert {cpu for _, cpu, *_ in budgets.read(kept)} == set(MODELS)


def test_rivals_have_no_budget(file: Path) -> None:
    assert budgets.gate([row("litert", cycles=10_000.0)], file, lower=True) == []


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "pilite.bench/1", "rows": []}', '{"rows": 3}'])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(PiliteError, match=r"b\.json: no file of budgets"):
        budgets.gate([row()], path, lower=True)
