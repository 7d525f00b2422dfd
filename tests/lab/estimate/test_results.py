"""What the tree says about speed: README and page agree, and both are what the data file describes."""

from __future__ import annotations

from pilite.lab.estimate import page
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "RESULTS.md").read_text(encoding="utf-8")


def test_the_table_of_the_readme_is_one_of_the_page() -> None:
    between = README.split(page.MARKS[0])[1].split(page.MARKS[1])[0].strip()
    assert between.count("\n") > 2
    assert between in [table.strip() for table in page.tables(PAGE)]


def test_the_page_has_every_model_with_a_goal_on_every_core() -> None:
    facts = page.data()
    for model in (*facts["goals"], *facts["also"]):
        for cpu in facts["cores"]:
            assert f"| {model} | {cpu} |" in PAGE


def test_every_goal_that_the_page_misses_is_explained() -> None:
    missed = PAGE.split("## Missed goals")[1].split("\n## ")[0]
    assert page.UNWRITTEN not in missed
