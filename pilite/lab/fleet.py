"""One action on many boards at once: a live table shows all; a board that fails keeps no other from it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pilite.errors import CheckFailed, PiliteError
from pilite.lab import boards
from pilite.lab.boards import Board
from pilite.lab.connection import Connection

if TYPE_CHECKING:
    from rich.console import Group

Say = Callable[[object], None]  # is told what a board does now: a text, or what has one
Done = TypeVar("Done")

PERIOD_S = 0.5  # of drawing, which takes CPU time from what may be measured on this machine
WAKING_S = 0.5  # Python hears a signal that comes just before a wait when the wait ends
AT_ONCE = 16  # boards; each is a thread that waits for its board most of the time


@dataclass(frozen=True)
class Outcome(Generic[Done]):
    """What the boards gave that did it, and what the others said; both in the order of the boards."""

    done: Mapping[str, Done]
    failures: Mapping[str, PiliteError]

    def failure_rows(self) -> list[dict[str, Any]]:
        """What the others said, for a document."""
        return [
            {"board": board, "exit_code": failure.exit_code, "text": str(failure)}
            for board, failure in self.failures.items()
        ]

    def raise_failures(self) -> None:
        """Raise one error with every board's text: CheckFailed only if no board failed for another reason."""
        failures = list(self.failures.values())
        if len(failures) == 1:
            raise failures[0]
        if failures:
            all_checks = all(isinstance(failure, CheckFailed) for failure in failures)
            text = "\n".join(map(str, failures))
            raise CheckFailed(text) if all_checks else PiliteError(text)


def each(
    found: Sequence[Board],
    artifacts: Path,
    action: Callable[[Board, Connection, Say], Done],
    at_once: int = AT_ONCE,
) -> Outcome[Done]:
    """Connect to all boards and act on them, `at_once` at a time. Ctrl-C ends what runs on them."""
    states: dict[str, object] = {board.name: "waiting" for board in found}
    links = Links()
    with shown(states), ThreadPoolExecutor(at_once) as pool:
        try:
            ends = [pool.submit(_one, board, artifacts, action, states, links) for board in found]
            while wait(ends, WAKING_S).not_done:
                pass
        except BaseException:  # those that wait are dropped; the others must not be waited for
            pool.shutdown(wait=False, cancel_futures=True)
            links.cut()
            raise
    pairs = [(board, end.result()) for board, end in zip(found, ends, strict=True)]
    return Outcome(
        {board.name: end for board, end in pairs if not isinstance(end, PiliteError)},
        {board.name: end for board, end in pairs if isinstance(end, PiliteError)},
    )


class Links:
    """The connections of one action; once they are cut, new ones are at once."""

    def __init__(self) -> None:
        self._made: list[Connection] = []
        self._are_cut = False

    def add(self, connection: Connection) -> None:
        self._made.append(connection)
        if self._are_cut:
            connection.cut()

    def cut(self) -> None:
        self._are_cut = True
        for connection in list(self._made):
            connection.cut()


def _one(
    board: Board,
    artifacts: Path,
    action: Callable[[Board, Connection, Say], Done],
    states: dict[str, object],
    links: Links,
) -> Done | PiliteError:
    """The board's end; the error if it failed."""

    def say(what: object) -> None:
        states[board.name] = what

    try:
        say("connecting")
        with boards.connect(board, artifacts) as connection:
            links.add(connection)
            done = action(board, connection, say)
        say("done")
        return done
    except PiliteError as failure:
        say(f"FAILED: {failure}")
        return failure


def is_drawn() -> bool:
    """Whether there is a terminal on which a table can be drawn again and again."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def shown(states: Mapping[str, object]) -> Iterator[None]:
    """Keep a table of the boards' states on the terminal while they work; nothing where there is none."""
    if not is_drawn():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    start, stop = time.monotonic(), threading.Event()
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:

        def draw() -> None:
            while not stop.wait(PERIOD_S):
                live.update(table(states, time.monotonic() - start), refresh=True)

        painter = threading.Thread(target=draw, daemon=True)
        painter.start()
        try:
            yield
        finally:
            stop.set()
            painter.join()


def table(states: Mapping[str, object], seconds: float) -> Group:
    """The boards and what they do; below, for a single one, what it has to show in more than a line."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    count = "1 board" if len(states) == 1 else f"{len(states)} boards"
    drawn = Table("board", "does", title=f"{count}, {seconds:.0f} s", title_justify="left")
    for name, state in states.items():
        drawn.add_row(Text(name), Text(str(state), overflow="ellipsis", no_wrap=True))
    return Group(
        drawn, *(state for state in states.values() if len(states) == 1 and hasattr(state, "__rich__"))
    )
