"""bench on several boards: who waits for whom, what a dead or wrong board does to the others."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pilite.errors import BoardError, CheckFailed
from pilite.lab import bench, benches, boards, fleet
from pilite.lab.bench import Bench
from pilite.lab.boards import Board
from pilite.lab.connection import Connection, LocalConnection
from tests.lab.conftest import Bed
from tests.lab.results import minimal
from tests.lab.stub import Stub
from tests.lab.test_bench import QUICK, deployed, truth

__all__ = ["truth"]


def result(name: str, **changes: object) -> Bench:
    return Bench(Path("bench") / name, {**minimal(), **changes})


WRONG = {"model": "m", "against": "a", "threads": 1, "seeds": [1, 2, 3], "elements": 9, "mismatches": 4}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "connect", lambda board, artifacts: LocalConnection(board.name))


@pytest.mark.usefixtures("no_network")
def test_boards_of_their_own_are_measured_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=30)  # breaks, and fails the test, unless all four wait at once

    def measure(board: Board, connection: Connection, say: fleet.Say) -> Bench:
        together.wait()
        return result(board.name)

    found = [Board(name, "ssh", "cortex-a72") for name in "abcd"]
    assert list(benches.each(found, tmp_path, measure).done) == list("abcd")


@pytest.mark.usefixtures("no_network")
def test_boards_that_share_this_machine_take_turns(tmp_path: Path) -> None:
    running, most = [0], [0]

    def measure(board: Board, connection: Connection, say: fleet.Say) -> Bench:
        running[0] += 1
        most[0] = max(most[0], running[0])
        threading.Event().wait(0.05)  # long enough for the others to come in, if nothing keeps them out
        running[0] -= 1
        return result(board.name)

    found = [Board(kind, kind, "cortex-a72") for kind in ("local", "container", "vm")]
    assert len(benches.each(found, tmp_path, measure).done) == 3
    assert most == [1]


def test_a_wrong_board_has_failed_and_its_measurement_is_kept() -> None:
    off = BoardError("off: no answer")
    raw = fleet.Outcome({"pi4": result("pi4"), "pi5": result("pi5", checks=[WRONG])}, {"off": off})
    outcome = benches.judged(raw)
    assert list(outcome.failures) == ["off", "pi5"]
    assert isinstance(outcome.failures["pi5"], CheckFailed)
    assert [(row["board"], row["result"], row["folder"]) for row in benches.rows(outcome)] == [
        ("pi4", "exact", "bench/pi4"),
        ("pi5", "failed", "bench/pi5"),
        ("off", "failed", None),
    ]
    document = benches.document(outcome)
    assert len(document["benches"]) == 2
    assert [(row["board"], row["exit_code"]) for row in document["failures"]] == [("off", 2), ("pi5", 1)]


@pytest.mark.slow
@pytest.mark.fault("one board of several is off during bench")
@pytest.mark.usefixtures("truth")
def test_a_board_that_is_off_hides_no_measurement(local_bed: Bed) -> None:
    bed, off = local_bed, Board("off", "ssh", "cortex-a72", host="127.0.0.1", port=1, user="pi", key=__file__)
    subject = deployed(bed, Stub(1))
    again = replace(bed.board, name="again")

    def measure(board: Board, connection: Connection, say: fleet.Say) -> Bench:
        return bench.bench(
            board, connection, [subject], bed.artifacts, threads=(1,), rivals=(), settings=QUICK, say=say
        )

    outcome = benches.judged(benches.each([bed.board, off, again], bed.artifacts, measure))
    assert (list(outcome.done), list(outcome.failures)) == (["local", "again"], ["off"])
    assert len(list((bed.artifacts / "bench").iterdir())) == 2
    with pytest.raises(BoardError, match=r"^off \(pi@127.0.0.1:1\): "):
        outcome.raise_failures()
