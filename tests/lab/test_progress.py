"""Progress of a race: what lines of measure.py become on a terminal and elsewhere."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from pilite.lab import progress
from pilite.lab.progress import Progress

START = Progress("m", sessions=4, most_s=150)


def after(**news: object) -> Progress:
    return START.after(json.dumps(news))


def test_a_line_says_where_the_race_is_and_how_long_it_will_take() -> None:
    assert str(START) == "m: session 1 of 4, starts, 0%"
    assert str(after(session=2, doing="litert/4 loads")) == "m: session 2 of 4, litert/4 loads, 0%"
    state = after(session=2, rounds=12, share=0.25, seconds=10, ms={"pilite/1": 4.321})
    assert str(state) == "m: session 2 of 4, round 12, 25%, about 30 s left: pilite/1 4.32 ms"


@pytest.mark.parametrize(
    ("share", "seconds", "left"),
    [(0, 9, None), (0.5, 9, 9), (0.1, 100, 50), (0.5, 200, 200), (1, 9, 0)],
    ids=["unknown", "as until now", "the effort's most", "slow: beyond it", "done"],
)
def test_the_time_that_is_left(share: float, seconds: float, left: float | None) -> None:
    assert after(share=share, seconds=seconds).left_s == left


def test_times_are_medians_of_all_rounds_that_were_told() -> None:
    state = START
    for ms in (3.0, 9.0, 5.0):
        state = state.after(json.dumps({"ms": {"pilite/1": ms}}))
    out = io.StringIO()
    Console(file=out, width=100).print(state)
    assert ["pilite", "1", "3", "5.000", "5.000", "3.000"] in [
        [word for word in line.split() if word.isalnum() or "." in word]
        for line in out.getvalue().replace("│", " ").splitlines()
    ]


def test_who_left_the_race_is_shown_as_it_was_said() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(after(failed={"litert/4": "SIGSEGV [red]"}))
    assert "litert/4 left the race: SIGSEGV [red]" in out.getvalue()


@pytest.mark.parametrize(
    "line", ["", "warning: x", "[1]", '{"ms": {"a": "x"}}', '{"share": []}', '{"ms": 3}']
)
def test_a_line_that_is_no_news_changes_nothing(line: str) -> None:
    assert START.after(line) == START


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(7.4, "7 s"), (99, "99 s"), (125, "2 min"), (5_900, "98 min"), (11_100, "3 h 05 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text
