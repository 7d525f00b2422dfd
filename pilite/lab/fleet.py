"""One action on several boards: a board that fails does not keep the others from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import CheckFailed, PiliteError
from pilite.lab import boards
from pilite.lab.boards import Board
from pilite.lab.connection import Connection

Action = Callable[[Board, Connection], Sequence[dict[str, object]]]  # the rows of its table


@dataclass(frozen=True)
class Outcome:
    """The rows of the boards that did it, and what the others said."""

    rows: list[dict[str, object]]
    failures: list[PiliteError]

    def raise_failures(self) -> None:
        """Raise one error with every board's text: CheckFailed only if no board failed for another reason."""
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            all_checks = all(isinstance(failure, CheckFailed) for failure in self.failures)
            text = "\n".join(str(failure) for failure in self.failures)
            raise CheckFailed(text) if all_checks else PiliteError(text)


def each(names: Sequence[str], artifacts: Path, action: Action) -> Outcome:
    """Connect to one board after the other and act.

    Raises PiliteError before the first board is touched if one of the names is unknown.
    """
    found = [boards.load(name, artifacts) for name in dict.fromkeys(names)]
    outcome = Outcome([], [])
    for board in found:
        try:
            with boards.connect(board, artifacts) as connection:
                outcome.rows.extend(action(board, connection))
        except PiliteError as failure:
            outcome.failures.append(failure)
    return outcome
