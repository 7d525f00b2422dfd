"""Whether measurements can be trusted here: code against itself, and a slow-down that must be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pilite.errors import CheckFailed
from pilite.lab import rows, schema, trial
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.protocol import Settings
from pilite.lab.rivals import OURS, PILITE, Rival
from pilite.lab.trial import Subject

Json = dict[str, Any]

AGAIN = Rival("pilite-again", "pilite", "")
REPEATS, LEAST_RIGHT = 10, 9  # a 95 % interval may miss one time in twenty
SLOWER = 5.0  # percent that the injected slow-down takes longer


@dataclass(frozen=True)
class Repeat:
    """One race of a release against itself; the second side was slowed down by `slower` percent."""

    slower: float
    ratio: Json

    @property
    def holds_one(self) -> bool:
        low, high = self.ratio["ci95"]
        return bool(low <= 1.0 <= high)


def check(
    board: Board,
    connection: Connection,
    subject: Subject,
    artifacts: Path,
    settings: Settings,
    say: Callable[[str], None] = lambda text: None,
) -> list[Repeat]:
    """REPEATS races A against A, then one against A slowed down. Raises BoardError if the board fails."""
    found = []
    for number, slower in enumerate([0.0] * REPEATS + [SLOWER], 1):
        racers = [PILITE, replace(AGAIN, extra_percent=slower)]
        ordered = replace(settings, seed=settings.seed + number)
        measured = trial.run(board, connection, subject, racers, (1,), ordered, artifacts).measured
        sides = {row["runtime"]: row for row in measured["rows"]}
        if len(sides) < len(racers):
            raise CheckFailed(f"{subject.name}: {measured['failures'][0]['reason']}")
        found.append(Repeat(slower, rows.ratio(sides[OURS], sides[AGAIN.name])))
        say(f"{number} of {REPEATS + 1}: {line(found[-1])}")
    return found


def line(repeat: Repeat) -> str:
    low, high = repeat.ratio["ci95"]
    what = f"slowed down by {repeat.slower:g} %" if repeat.slower else "itself"
    return f"against {what}: {low:.4f} to {high:.4f}, {repeat.ratio['verdict']}"


def table(found: Sequence[Repeat]) -> list[Json]:
    return [
        {
            "second side": f"{repeat.slower:g} % slower" if repeat.slower else "the same",
            "95 % interval": "{:.4f} to {:.4f}".format(*repeat.ratio["ci95"]),
            "p": f"{repeat.ratio['p_value']:.2g}",
            "verdict": repeat.ratio["verdict"],
        }
        for repeat in found
    ]


def document(found: Sequence[Repeat]) -> Json:
    """As in schemas/selfcheck-1.json, checked against it."""
    return schema.checked({"schema": "pilite.selfcheck/1", "repeats": [vars(repeat) for repeat in found]})


def verify(found: Sequence[Repeat]) -> str:
    """What was shown, in one line. Raises CheckFailed if intervals are wrong too often, or miss SLOWER."""
    equal = [repeat for repeat in found if not repeat.slower]
    right = sum(repeat.holds_one for repeat in equal)
    slowed = [repeat for repeat in found if repeat.slower]
    seen = [repeat for repeat in slowed if repeat.ratio["verdict"] == "faster"]
    text = f"{right} of {len(equal)} intervals of equal sides hold 1.0; "
    text += f"the side slowed down by {SLOWER:g} % was {'found' if len(seen) == len(slowed) else 'not found'}"
    if right < LEAST_RIGHT or len(seen) < len(slowed):
        raise CheckFailed(f"{text}: this machine is too busy to measure on, or the statistics are wrong.")
    return f"{text}."
