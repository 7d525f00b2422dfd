"""Whether a board is fit to be measured now: a table of reasons against it, each with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pilite.errors import BoardError
from pilite.lab import boards, facts
from pilite.lab.boards import Board
from pilite.lab.honesty import BUSY

Facts = dict[str, Any]


@dataclass(frozen=True)
class Reason:
    """`text` is formatted with the facts and `most`, the board's max_celsius.

    `everywhere`: also on `local`, where somebody works and `build` has just run; there the others are marks.
    """

    name: str
    everywhere: bool
    applies: Callable[[Board, Facts], bool]
    text: str


REASONS = (
    Reason(
        "throttled",
        True,
        lambda board, values: facts.throttled_now(values),
        "it is throttled now (get_throttled {throttled}): check its power supply and cooling, and wait until "
        "`facts` shows a word that ends with 0.",
    ),
    Reason(
        "hot",
        False,
        lambda board, values: (values["temperature_c"] or 0) >= board.max_celsius,
        "it has {temperature_c:.0f} degrees Celsius and may start with less than {most} (max_celsius in its "
        "file): let it cool down, or give it a fan.",
    ),
    Reason(
        "busy",
        False,
        lambda board, values: (values["load1"] or 0) > BUSY * (values["cores"] or 1),
        "something else runs there (load {load1:.1f} on {cores} CPUs): end it (`top` shows it), or wait a "
        "minute.",
    ),
)


def reasons(board: Board, values: Facts) -> list[str]:
    """Why the board should not be measured now, in words; unknown facts are no reason."""
    dedicated = boards.KINDS[board.kind].dedicated
    return [
        reason.text.format(**values, most=board.max_celsius)
        for reason in REASONS
        if (dedicated or reason.everywhere) and reason.applies(board, values)
    ]


def expect_fit(board: Board, values: Facts) -> None:
    """Raises BoardError with every reason and the way around them."""
    found = reasons(board, values)
    if found:
        raise BoardError(
            f"{board.name}: not measured, because {' Also, '.join(found)} --force measures all the same, and "
            f"marks the result."
        )
