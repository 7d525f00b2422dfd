"""bench on many boards: side by side across machines, one after another on the same one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pilite.errors import CheckFailed, PiliteError
from pilite.lab import boards, fleet, schema
from pilite.lab.bench import Bench
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.fleet import Outcome, Say

Json = dict[str, Any]

SCHEMA = "pilite.benches/1"


def each(
    found: Sequence[Board], artifacts: Path, measure: Callable[[Board, Connection, Say], Bench]
) -> Outcome[Bench]:
    """Measure on all boards at once; `local` and virtual boards, which share this machine, take turns."""
    here = threading.Lock()

    def one(board: Board, connection: Connection, say: Say) -> Bench:
        say("waiting until this machine is free")
        with nullcontext() if boards.KINDS[board.kind].dedicated else here:
            return measure(board, connection, say)

    return fleet.each(found, artifacts, one)


def judged(outcome: Outcome[Bench]) -> Outcome[Bench]:
    """The same, where a board that computed something wrong has failed, too: its measurement is kept."""
    wrong: dict[str, PiliteError] = {}
    for name, done in outcome.done.items():
        try:
            done.verify()
        except CheckFailed as failure:
            wrong[name] = failure
    return Outcome(outcome.done, {**outcome.failures, **wrong})


def rows(outcome: Outcome[Bench]) -> list[Json]:
    """One row per board: what became of it, and where its result is."""
    names = dict.fromkeys([*outcome.done, *outcome.failures])
    return [
        {
            "board": name,
            "result": "failed" if name in outcome.failures else "exact",
            "times count": name in outcome.done and outcome.done[name].document["timing_valid"],
            "folder": str(outcome.done[name].folder) if name in outcome.done else None,
        }
        for name in names
    ]


def document(outcome: Outcome[Bench]) -> Json:
    """As in schemas/benches-1.json."""
    return schema.checked(
        {
            "schema": SCHEMA,
            "benches": [done.document for done in outcome.done.values()],
            "failures": outcome.failure_rows(),
        }
    )
