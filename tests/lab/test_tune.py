"""Tuning: what a trial tells, what is chosen, what is kept; and stages that are timed on real boards."""

from __future__ import annotations

import sys
from pathlib import Path

import jsonschema
import pytest

from pilite import seal
from pilite.errors import PiliteError
from pilite.lab import tune
from pilite.lab.tune import DEFAULT, Chosen, Trial

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONV, DEPTHWISE = "conv 1x1 k64 n16", "depthwise 3x3 s1 w8"


def artifact(path: Path, *stages: tuple[str, str]) -> Path:
    """A sealed file whose stages are (kernel, class)."""
    rows = [{"operator": 0, "op": "", "kernel": kernel, "class": operators} for kernel, operators in stages]
    path.write_bytes(seal.seal(bytes(64), {"stages": rows}))
    return path


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    """Candidate b fits one of two convolutions, c both, d the depthwise one."""
    plain = (("a", CONV), ("a", CONV), ("d", DEPTHWISE), ("fill", ""))
    half = (("b", CONV), *plain[1:])
    whole = (("c", CONV), ("c", CONV), *plain[2:])
    tiles = {DEFAULT: plain, "b@2": half, "c@4": whole, "d@8": plain}
    return [
        Trial(tile, (artifact(tmp_path / f"{i}.so", *stages),))
        for i, (tile, stages) in enumerate(tiles.items())
    ]


def measured(trials: list[Trial], *costs: tuple[float, ...]) -> dict[Path, dict[int, float]]:
    return {trial.artifacts[0]: dict(enumerate(cost, 1)) for trial, cost in zip(trials, costs, strict=True)}


def test_a_tile_counts_where_every_operator_of_the_class_used_it(trials: list[Trial]) -> None:
    found = tune.costs(trials, measured(trials, (5, 5, 7, 9), (1, 5, 7, 9), (4, 4, 7, 9), (5, 5, 3, 9)))
    assert found == {CONV: {DEFAULT: 10, "c@4": 8}, DEPTHWISE: {DEFAULT: 7, "d@8": 3}}


def test_the_cheapest_tile_is_chosen_if_it_gains_enough() -> None:
    costs = {
        "more": {DEFAULT: 100.0, "a@1": 90.0, "b@1": 80.0},
        "little": {DEFAULT: 100.0, "a@1": 99.5},
        "nothing": {DEFAULT: 100.0, "a@1": 120.0},
        "tie": {DEFAULT: 100.0, "b@1": 50.0, "a@1": 50.0},
    }
    assert {one.operators: one.tile for one in tune.choices(costs, "x")} == {"more": "b@1", "tie": "a@1"}


def test_what_is_kept_is_canonical_and_leaves_other_classes_alone(tmp_path: Path) -> None:
    path = tmp_path / "cpu.toml"
    best = [Chosen("b", "k@2", 100.4, 50.0, "cycles"), Chosen("a", "k@3", 10.0, 5.0, "cycles")]
    tune.keep(path, {"a": {}, "b": {}}, best)
    first = path.read_bytes()
    kept = tomllib.loads(first.decode())["choices"]
    assert kept["b"] == {"kernel": "k", "rows": 2, "before": 100, "after": 50, "by": "cycles"}
    assert list(kept) == ["a", "b"]
    tune.keep(path, {}, [])
    assert path.read_bytes() == first
    tune.keep(path, {"b": {}}, [])
    assert list(tomllib.loads(path.read_text())["choices"]) == ["a"]


def test_a_board_without_valid_times_is_stamped() -> None:
    document = tune.document("cortex-a72", "ns on container", False, {CONV: {DEFAULT: 10.0, "c@4": 8.0}}, [])
    assert document["timing_valid"] is False
    assert document["classes"] == [{"class": CONV, "chosen": DEFAULT, "costs": {DEFAULT: 10, "c@4": 8}}]
    with pytest.raises(jsonschema.ValidationError):
        tune.document("cortex-a72", "ns", False, {CONV: {"c@4": 8.0}}, [])


def test_a_cpu_without_core_model_needs_a_board() -> None:
    with pytest.raises(PiliteError, match="x86-64-v3: tune it with --board"):
        tune.require_model("x86-64-v3")
