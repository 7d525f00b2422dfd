"""The drift of outputs by depth: what `compare --layers` found, summed by operator."""

from __future__ import annotations

import json
from pathlib import Path

from pilite.lab import schema
from pilite.lab.page import exactness, render
from tests.lab.page.runs import MODEL, compared, run


def test_the_example_is_what_compare_writes() -> None:
    assert schema.checked(compared()) == compared()


def test_operators_are_summed_over_inputs_and_threads_in_their_order() -> None:
    drift = exactness.drift(compared())
    assert [one["index"] for one in drift["operators"]] == [0, 1, 2]
    assert [one["percent"] for one in drift["operators"]] == [0.0, 0.5, 25.0]
    assert [one["op"] for one in drift["differing"]] == ["ADD", "SOFTMAX"]
    assert drift["differing"][1]["largest"] == 3


def test_comparisons_of_the_boards_cpu_and_the_runs_models_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "compare"
    folder.mkdir()
    other = compared()
    other["builds"][0]["cpu"] = "cortex-a53"
    for name, one in (("a", compared()), ("b", other)):
        (folder / f"{name}.json").write_text(json.dumps(one))
    assert exactness.comparisons(tmp_path, run().document) == [compared()]
    assert exactness.comparisons(tmp_path / "elsewhere", run().document) == []


def test_the_page_says_how_many_operators_differ() -> None:
    text = render.html([run()])
    assert "2 of 3 operators give other bytes than BUILTIN_REF" in text
    assert 'title="2 SOFTMAX: 25.0 %"' in text
    assert MODEL not in text  # it is escaped
