"""What an inference may cost: instructions and cycles per model, core and numerics, in a file of the tree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from pilite.console import write_json
from pilite.errors import CheckFailed, PiliteError
from pilite.lab.estimate.estimate import OURS, Row

SCHEMA = "pilite.budgets/1"
SCHEMA_FILE = Path(__file__).parents[1] / "schemas" / "budgets-1.json"
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

    @property
    def change(self) -> str:
        """In percent of the budget, signed; "new" without one."""
        return f"{100 * (self.now / self.before - 1):+.1f}" if self.before else "new"

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.key))}: {self.what} {self.before} -> {self.now} ({self.change} %)"


def read(path: Path) -> dict[Key, Values]:
    """The budgets of a file; none if it does not exist. Raises PiliteError if it is not one of ours."""
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    except (ValueError, jsonschema.ValidationError):
        raise PiliteError(f"{path}: no file of budgets ({SCHEMA}); remove it to start anew.") from None
    return {_key(row): row["budget"] for row in document["rows"]}


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
    rows = [
        {**dict(zip(fields, key, strict=True)), "budget": dict(sorted(budgets[key].items()))}
        for key in sorted(budgets)
    ]
    write_json(path, {"schema": SCHEMA, "rows": rows})
