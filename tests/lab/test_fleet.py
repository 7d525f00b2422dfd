"""One action on several boards: who did it, who failed, and with which exit code it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import boards, fleet
from pilite.lab.boards import Board
from pilite.lab.connection import Connection, LocalConnection

FAILURES = {"off": BoardError("off: no answer"), "wrong": CheckFailed("wrong: 3 elements differ")}


@pytest.fixture(autouse=True)
def three_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """`good`, `off` and `wrong`, reached without any network."""

    def load(name: str, artifacts: Path) -> Board:
        if name not in ("good", "off", "wrong"):
            raise BoardError(f"No board '{name}'.")
        return Board(name, "local", "cortex-a72")

    monkeypatch.setattr(boards, "load", load)
    monkeypatch.setattr(boards, "connect", lambda board, artifacts: LocalConnection(board.name))


def act(board: Board, connection: Connection) -> list[dict[str, object]]:
    if board.name in FAILURES:
        raise FAILURES[board.name]
    return [{"board": board.name}]


def test_a_failing_board_does_not_keep_the_next_from_it(tmp_path: Path) -> None:
    outcome = fleet.each(["off", "good", "wrong"], tmp_path, act)
    assert outcome.rows == [{"board": "good"}]
    assert outcome.failures == list(FAILURES.values())


def test_an_unknown_board_is_refused_before_any_is_touched(tmp_path: Path) -> None:
    touched: list[str] = []

    def touch(board: Board, connection: Connection) -> list[dict[str, object]]:
        touched.append(board.name)
        return []

    with pytest.raises(BoardError, match="No board 'toaster'"):
        fleet.each(["good", "toaster"], tmp_path, touch)
    assert touched == []


def test_a_board_that_is_named_twice_is_visited_once(tmp_path: Path) -> None:
    assert fleet.each(["good", "good"], tmp_path, act).rows == [{"board": "good"}]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        pytest.param(["off"], 2, id="unreachable"),
        pytest.param(["wrong"], 1, id="check failed"),
        pytest.param(["off", "wrong"], 2, id="both"),
    ],
)
def test_the_failures_of_all_boards_are_raised_together(tmp_path: Path, names: list[str], code: int) -> None:
    with pytest.raises(PiliteError) as caught:
        fleet.each(names, tmp_path, act).raise_failures()
    assert caught.value.exit_code == code
    assert str(caught.value) == "\n".join(str(FAILURES[name]) for name in names)


def test_no_failure_raises_nothing(tmp_path: Path) -> None:
    outcome = fleet.each(["good"], tmp_path, act)
    outcome.raise_failures()
    assert outcome.failures == []
