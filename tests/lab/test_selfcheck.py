"""A against A: the judgement over its repeats, and one race that finds a slow-down, on the real machinery."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from pilite.errors import CheckFailed
from pilite.lab import deploy, protocol, rows, selfcheck, trial
from pilite.lab.rivals import PILITE
from pilite.lab.selfcheck import AGAIN, Repeat
from tests.lab.conftest import Bed
from tests.lab.stub import MODEL, Stub

Json = dict[str, Any]


def repeat(low: float, high: float, verdict: str, slower: float = 0.0) -> Repeat:
    return Repeat(slower, {"ci95": [low, high], "p_value": 0.5, "verdict": verdict, "speedup": 1.0})


RIGHT, MISSED = repeat(0.99, 1.01, "same"), repeat(1.001, 1.02, "faster")
FOUND = repeat(1.04, 1.06, "faster", selfcheck.SLOWER)


def test_nine_right_intervals_and_a_found_slow_down_are_enough() -> None:
    said = selfcheck.verify([RIGHT] * 9 + [MISSED, FOUND])
    assert said == "9 of 10 intervals of equal sides hold 1.0; the side slowed down by 5 % was found."


@pytest.mark.parametrize(
    "found",
    [
        [RIGHT] * 8 + [MISSED] * 2 + [FOUND],
        [RIGHT] * 10 + [repeat(0.97, 1.06, "undecided", selfcheck.SLOWER)],
    ],
)
def test_anything_less_fails(found: list[Repeat]) -> None:
    with pytest.raises(CheckFailed, match="too busy to measure on, or the statistics are wrong"):
        selfcheck.verify(found)


def test_a_table_tells_the_sides_apart() -> None:
    rows = selfcheck.table([RIGHT, FOUND])
    assert [row["second side"] for row in rows] == ["the same", "5 % slower"]
    assert [one["slower"] for one in selfcheck.document([RIGHT, FOUND])["repeats"]] == [0, 5]


@pytest.mark.slow
def test_a_side_that_is_slowed_down_much_is_found(local_bed: Bed) -> None:
    """400 %: that is found on any machine; 5 % is what the task checks."""
    source = local_bed.artifacts / "stub.tflite"
    source.write_bytes(b"the model")
    Stub().write(local_bed.artifacts, local_bed.board, hashlib.sha256(b"the model").hexdigest())
    deploy.deploy(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)
    settings = replace(protocol.QUICK, warm_ms=1, slot_ms=5)
    racers = [PILITE, replace(AGAIN, extra_percent=400)]
    subject = trial.Subject(MODEL, source)
    done = trial.run(
        local_bed.board, local_bed.connection, subject, racers, (1,), settings, local_bed.artifacts
    )
    sides = {row["runtime"]: row for row in done.measured["rows"]}
    assert rows.ratio(sides["pilite"], sides["pilite-again"])["verdict"] == "faster"
