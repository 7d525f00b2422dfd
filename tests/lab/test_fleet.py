"""One action on many boards: who did it, who failed, what the table shows, and the exit code."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import boards, deploy, fleet
from pilite.lab.boards import Board
from pilite.lab.connection import Connection, LocalConnection
from pilite.lab.deploy import Deployed
from pilite.lab.progress import Progress
from tests.lab.stub import MODEL, Stub, share

FAILURES = {"off": BoardError("off: no answer"), "wrong": CheckFailed("wrong: 3 elements differ")}


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the tests that have real boards."""
    if "start" in request.fixturenames:
        return
    monkeypatch.setattr(boards, "connect", lambda board, artifacts: LocalConnection(board.name))


def these(*names: str) -> list[Board]:
    return [Board(name, "local", "cortex-a72") for name in names]


def act(board: Board, connection: Connection, say: fleet.Say) -> str:
    say("working")
    if board.name in FAILURES:
        raise FAILURES[board.name]
    return f"{board.name} did it"


def test_a_failing_board_keeps_no_other_from_it(tmp_path: Path) -> None:
    outcome = fleet.each(these("off", "good", "wrong"), tmp_path, act)
    assert outcome.done == {"good": "good did it"}
    assert outcome.failures == FAILURES


def test_boards_work_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(8, timeout=30)  # breaks, and fails the test, unless all eight wait at once

    def meet(board: Board, connection: Connection, say: fleet.Say) -> int:
        return together.wait()

    outcome = fleet.each(these(*"abcdefgh"), tmp_path, meet)
    assert sorted(outcome.done.values()) == list(range(8))
    assert list(outcome.done) == list("abcdefgh")


def test_a_mistake_of_ours_is_not_hidden(tmp_path: Path) -> None:
    def broken(board: Board, connection: Connection, say: fleet.Say) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fleet.each(these("good"), tmp_path, broken)


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
        fleet.each(these(*names), tmp_path, act).raise_failures()
    assert caught.value.exit_code == code
    assert str(caught.value) == "\n".join(str(FAILURES[name]) for name in names)


def test_no_failure_raises_nothing(tmp_path: Path) -> None:
    outcome = fleet.each(these("good"), tmp_path, act)
    outcome.raise_failures()
    assert outcome.failures == {}


class Interrupting:
    """An action that runs a long command; the first says Ctrl-C to the main thread once it does."""

    def __init__(self, seconds: str) -> None:
        self.seconds = seconds

    def __call__(self, board: Board, connection: Connection, say: fleet.Say) -> None:
        connection.run(
            ["sh", "-c", f"echo; sleep {self.seconds}; :"],
            heard=lambda line: os.kill(os.getpid(), signal.SIGINT) if board.name == "a" else None,
        )


@pytest.fixture
def hears_interrupts() -> Iterator[None]:
    """A shell that starts us in the background makes us ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_interrupts")
def test_an_interrupt_ends_what_runs_on_all_boards(tmp_path: Path) -> None:
    action, start = Interrupting(f"60.{time.monotonic_ns() % 10**6}"), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fleet.each(these("a", "b", "c", "d"), tmp_path, action, at_once=3)
    assert time.monotonic() - start < 30
    assert LocalConnection().run(["pgrep", "-f", f"^sleep {action.seconds}"]).code == 1


def test_a_connection_that_is_made_after_an_interrupt_does_nothing() -> None:
    links, late = fleet.Links(), LocalConnection("late")
    links.cut()
    links.add(late)
    with pytest.raises(BoardError, match=r"late: interrupted\."):
        late.run(["true"])


def test_the_table_shows_every_board_and_what_it_does() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(fleet.table({"a": "sent 1.0 MB", "b": "FAILED: [red]off"}, 3.2))
    text = out.getvalue()
    assert "2 boards, 3 s" in text
    assert "sent 1.0 MB" in text
    assert "FAILED: [red]off" in text


def test_of_a_single_board_the_table_shows_the_rounds_too() -> None:
    race = Progress("m", 1, 30).after('{"rounds": 1, "ms": {"pilite/4": 1.5}}')
    for states, shown in (({"a": race}, True), ({"a": race, "b": "waiting"}, False)):
        out = io.StringIO()
        Console(file=out, width=80).print(fleet.table(states, 1))
        assert ("fastest ms" in out.getvalue()) is shown
        assert "m: round 1" in out.getvalue()


def test_on_a_terminal_the_table_is_drawn_while_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    seen, screen = threading.Event(), Terminal()
    monkeypatch.setattr("sys.stderr", screen)

    def slow(board: Board, connection: Connection, say: fleet.Say) -> bool:
        say("halfway")
        for _ in range(100):
            if "halfway" in screen.getvalue():
                seen.set()
            if seen.wait(0.1):
                break
        return seen.is_set()

    assert fleet.each(these("good"), tmp_path, slow).done == {"good": True}


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ([0], "1 board: 0.0 MB sent in 2.0 s"),
        ([3_000_000, 5_000_000], "2 boards: 8.0 MB sent in 2.0 s, 4.00 MB/s together"),
    ],
)
def test_a_deploy_tells_its_time_and_throughput(sent: list[int], text: str) -> None:
    done = [Deployed(str(number), "m", "0", "deployed", count) for number, count in enumerate(sent)]
    assert deploy.total(done, 2.0) == text


BIG, SMALL = Stub(1, pad=4_000_000), Stub(1)
FLEETS = [
    pytest.param(2, SMALL, marks=pytest.mark.fault("a release to 2 boards at once, twice")),
    pytest.param(
        8, BIG, marks=[pytest.mark.long, pytest.mark.fault("a release of 4 MB to 8 boards at once, twice")]
    ),
]


@pytest.fixture(params=["container"])
def start(tmp_path: Path) -> Iterator[Callable[[int], list[Board]]]:
    """Gives as many boards as wanted, with nothing on them."""
    share("loader", tmp_path)
    share("vboard", tmp_path)
    found: list[Board] = []

    def some(count: int) -> list[Board]:
        one = boards.load("container", tmp_path)
        found.extend(replace(one, name=f"fleet{number}") for number in range(count))
        return found

    yield some
    for board in found:
        boards.stop(board, tmp_path)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize(("count", "stub"), FLEETS)
def test_boards_get_a_release_at_once_and_a_second_deploy_sends_nothing(
    start: Callable[[int], list[Board]],
    count: int,
    stub: Stub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It breaks, and fails the test, unless all are sent to at once.
    together = threading.Barrier(count, timeout=300)
    found = start(count)
    least = len(stub.write(tmp_path, found[0]).read_bytes())

    def put(board: Board, connection: Connection, say: fleet.Say) -> Deployed:
        together.wait()
        return deploy.deploy(board, connection, MODEL, tmp_path, expected=stub.answer(board, tmp_path))

    for state, sent in (("deployed", least), ("unchanged", 0)):
        began = time.monotonic()
        outcome = fleet.each(found, tmp_path, put)
        outcome.raise_failures()
        done = list(outcome.done.values())
        assert [one.state for one in done] == [state] * count
        assert all(sent <= one.sent_bytes <= sent + 200_000 for one in done)
        with capsys.disabled():
            print(f"\n{state}, connections included: {deploy.total(done, time.monotonic() - began)}")
