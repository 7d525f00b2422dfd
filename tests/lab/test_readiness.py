"""When a board is not fit to be measured, in words; on recorded facts of real boards."""

from __future__ import annotations

from typing import Any

import pytest

from pilite.errors import BoardError
from pilite.lab import boards, facts, readiness
from pilite.lab.boards import Board
from tests.lab.test_facts import recorded

PI = Board("pi", "ssh", "cortex-a72")


def values(**changes: Any) -> dict[str, Any]:
    calm = {"throttled": "0x0", "temperature_c": 48.0, "load1": 0.1}
    return {**facts.parse(recorded("pi4b")), **calm, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"throttled": "0x50005"},
            "it is throttled now (get_throttled 0x50005): check its power supply and cooling, and wait until "
            "`facts` shows a word that ends with 0.",
        ),
        (
            {"temperature_c": 70.2},
            "it has 70 degrees Celsius and may start with less than 70 (max_celsius in its file): let it "
            "cool down, or give it a fan.",
        ),
        (
            {"load1": 1.31},
            "something else runs there (load 1.3 on 4 CPUs): end it (`top` shows it), or wait a minute.",
        ),
    ],
)
def test_a_board_that_is_not_fit_is_refused_with_what_to_do(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BoardError) as caught:
        readiness.expect_fit(PI, values(**changes))
    way = "--force measures all the same, and marks the result."
    assert str(caught.value) == f"pi: not measured, because {words} {way}"


def test_all_reasons_are_said_at_once() -> None:
    hot_and_busy = values(temperature_c=83.0, load1=4.0)
    assert len(readiness.reasons(PI, hot_and_busy)) == 2
    with pytest.raises(BoardError, match=r"fan\. Also, something else"):
        readiness.expect_fit(PI, hot_and_busy)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="calm"),
        pytest.param({"temperature_c": 69.9, "load1": 1.2}, id="just below the limits"),
        pytest.param({"throttled": "0x50000"}, id="throttled before, not now"),
        pytest.param(
            {"throttled": None, "temperature_c": None, "load1": None, "cores": None}, id="tells nothing"
        ),
    ],
)
def test_a_board_that_is_fit_is_measured(changes: dict[str, Any]) -> None:
    assert readiness.reasons(PI, values(**changes)) == []


def test_a_board_has_the_limit_of_its_file() -> None:
    file = {"kind": "ssh", "cpu": "cortex-a72", "host": "h", "user": "u", "key": "k", "host_key": "x y"}
    warm = values(temperature_c=60.0)
    assert readiness.reasons(boards.parse("pi", file), warm) == []
    assert len(readiness.reasons(boards.parse("pi", {**file, "max_celsius": 55}), warm)) == 1
    with pytest.raises(BoardError, match="max_celsius is 'cool'; it must be a whole number of degrees"):
        boards.parse("pi", {**file, "max_celsius": "cool"})


def test_on_a_desk_load_and_heat_are_marks_and_throttling_is_refused() -> None:
    desk = Board("local", "local", "cortex-a72")
    assert readiness.reasons(desk, values(load1=9.0, temperature_c=90.0)) == []
    assert len(readiness.reasons(desk, values(throttled="0x4"))) == 1
