"""What an inference may cost: instructions and cycles per model, core and numerics, in a file of the tree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilite.console import write_json
from pilite.errors import CheckFailed, PiliteError
from pilite.lab.estimate.estimate import OURS, Row

SCHEMA = "pilite.budgets/1"
TOLERANCE = 0.02  # of a budget; what an unrelated change may cost

Key = tuple[str, str, str, int]  # model, cpu, numerics, threads
Values = dict[str, int]  # "instructions", and cycles by core model


@dataclass(frozen=True)
class Verdict:
    """A value and its budget; `before` None: there was none."""

    key: Key
    what: str
    before: int | None
    now: int

    @property
    def exceeded(self) -> bool:
        return self.before is not None and self.now > self.before * (1 + TOLERANCE)

    @property
    def lower(self) -> bool:
        return self.before is None or self.now < self.before

    def __str__(self) -> str:
        change = 100 * (self.now / self.before - 1) if self.before else 0.0
        return f"{' '.join(map(str, self.key))}: {self.what} {self.before} -> {self.now} ({change:+.1f} %)"


def read(path: Path) -> dict[Key, Values]:
    """The budgets of a file; none if it does not exist. Raises PiliteError if it is not one of ours."""
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(document["schema"])
        return {_key(row): {name: int(n) for name, n in row["budget"].items()} for row in document["rows"]}
    except (KeyError, TypeError, ValueError):
        raise PiliteError(f"{path}: no file of budgets ({SCHEMA}); remove it to start anew.") from None


def _key(row: dict[str, Any]) -> Key:
    return str(row["model"]), str(row["cpu"]), str(row["numerics"]), int(row["threads"])


def judge(rows: Iterable[Row], budgets: dict[Key, Values]) -> list[Verdict]:
    """Compare our rows with their budgets."""
    verdicts = []
    for row in (row for row in rows if row.runtime == OURS):
        key = row.model, row.cpu, str(row.numerics), row.threads
        before = budgets.get(key, {})
        verdicts += [Verdict(key, name, before.get(name), now) for name, now in values(row).items()]
    return verdicts


def values(row: Row) -> Values:
    """What a budget limits."""
    cycles = {name: round(n) for name, n in row.counted.cycles.items()}
    return {"instructions": row.counted.instructions, **cycles}


def gate(rows: Sequence[Row], path: Path, *, lower: bool) -> list[Verdict]:
    """Compare rows with the budgets of a file; with `lower`, write gains and new rows back into it.

    Raises:
        CheckFailed: a value is more than TOLERANCE above its budget; names every one.
        PiliteError: the file is not one of ours.
    """
    budgets = read(path)
    verdicts = judge(rows, budgets)
    exceeded = [str(verdict) for verdict in verdicts if verdict.exceeded]
    if exceeded:
        raise CheckFailed(
            f"{len(exceeded)} of {len(verdicts)} values are more than {TOLERANCE:.0%} above {path}:\n"
            + "\n".join(exceeded)
        )
    gains = [verdict for verdict in verdicts if verdict.lower]
    if lower and gains:
        for verdict in gains:
            budgets.setdefault(verdict.key, {})[verdict.what] = verdict.now
        write(path, budgets)
    return verdicts


def write(path: Path, budgets: dict[Key, Values]) -> None:
    """Sorted, so that a change shows as the lines that changed."""
    fields = ("model", "cpu", "numerics", "threads")
    rows = [{**dict(zip(fields, key, strict=True)), "budget": budgets[key]} for key in sorted(budgets)]
    write_json(path, {"schema": SCHEMA, "rows": rows})
