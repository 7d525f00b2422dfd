"""Which kernel and tile is best for a class of operators: costs of trials by class, and the file of choices.

A trial is every model built with one candidate wherever it fits. What a stage costs is measured elsewhere:
by a core model (`cycles`), or as time on a board (stagetimes.py).
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from pilite import seal
from pilite.errors import PiliteError
from pilite.lab.estimate import guests, plugin
from pilite.lab.estimate.count import count
from pilite.lab.estimate.models import MODELS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "pilite.tune/1"
SCHEMA_FILE = Path(__file__).parent / "schemas" / "tune-1.json"
DEFAULT = "default"  # the tile of a trial that chooses nothing
MARGIN = 0.01  # of the default's cost; less is no reason for a choice
HEAD = "# Written by `tune`: for a class of operators (kernels/tuning.py) a kernel and its rows per tile.\n"

Stages = Mapping[int, float]  # cost by stage, from 1
Costs = dict[str, dict[str, float]]  # by class, then by tile


@dataclass(frozen=True)
class Trial:
    """One candidate, "KERNEL@ROWS" or DEFAULT, and the artifacts that use it: one per model."""

    tile: str
    artifacts: tuple[Path, ...]

    def uses(self, stage: Mapping[str, Any]) -> bool:
        """Whether a stage is an example of this candidate."""
        return bool(stage["class"]) and self.tile in (
            DEFAULT,
            f"{stage['kernel']}@{self.tile.split('@')[-1]}",
        )


@dataclass(frozen=True)
class Chosen:
    """The best candidate of a class, its cost and the default's, and what these are."""

    operators: str
    tile: str
    before: float
    after: float
    by: str


def require_model(cpu: str) -> None:
    """Raise PiliteError if no core model can rank tiles of a CPU."""
    if cpu not in MODELS:
        raise PiliteError(f"no core model for {cpu}: tune it with --board, by time.")


def cycles(
    paths: Sequence[Path], cpu: str, artifacts: Path, say: Callable[[str], None] = lambda text: None
) -> list[Stages]:
    """Cycles of every stage by the core model that claims are made on; the CPU has one (`require_model`).

    Raises:
        PiliteError: a tool is missing.
        CheckFailed: an artifact failed under QEMU.
    """
    found: list[Stages] = []
    for number, path in enumerate(paths, 1):
        say(f"[{number} of {len(paths)}] {path.parent.name}")
        profile = plugin.run(guests.pilite(path, cpu, artifacts), (), artifacts)
        sections = count(profile, MODELS[cpu][:1]).sections
        found.append({label: one.cycles[MODELS[cpu][0].name] for label, one in sections.items()})
    return found


def stages(path: Path) -> list[dict[str, Any]]:
    """What the stages of an artifact with marks are, in order."""
    found: list[dict[str, Any]] = seal.unseal(path.read_bytes())[1]["stages"]
    return found


def costs(trials: Sequence[Trial], measured: Mapping[Path, Stages]) -> Costs:
    """Cost of each class by tile. A tile counts only if it was used by every operator of the class."""
    sums: dict[str, Counter[str]] = {}
    uses: dict[str, Counter[str]] = {}
    for trial in trials:
        for path in trial.artifacts:
            for number, stage in enumerate(stages(path), 1):
                if trial.uses(stage):
                    sums.setdefault(stage["class"], Counter())[trial.tile] += measured[path].get(number, 0.0)  # type: ignore[assignment]
                    uses.setdefault(stage["class"], Counter())[trial.tile] += 1
    return {
        operators: {tile: sums[operators][tile] for tile, n in tiles.items() if n == tiles[DEFAULT]}
        for operators, tiles in sorted(uses.items())
    }


def choices(found: Costs, by: str) -> list[Chosen]:
    """The best tile of every class where it beats the default by MARGIN."""
    best = []
    for operators, tiles in found.items():
        tile = min(tiles, key=lambda tile: (tiles[tile], tile))
        if tile != DEFAULT and tiles[tile] <= tiles[DEFAULT] * (1 - MARGIN):
            best.append(Chosen(operators, tile, tiles[DEFAULT], tiles[tile], by))
    return best


def keep(path: Path, found: Costs, best: Sequence[Chosen]) -> None:
    """Replace the choices of the classes that were tried; those of others stay."""
    old = tomllib.loads(path.read_text(encoding="utf-8")).get("choices", {}) if path.exists() else {}
    lines = {operators: choice for operators, choice in old.items() if operators not in found}
    lines |= {one.operators: _line(one) for one in best}
    text = "".join(f"{json.dumps(name)} = {_inline(lines[name])}\n" for name in sorted(lines))
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(f"{HEAD}[choices]\n{text}", encoding="utf-8")
    os.replace(beside, path)


def _line(one: Chosen) -> dict[str, Any]:
    kernel, _, rows = one.tile.partition("@")
    return {
        "kernel": kernel,
        "rows": int(rows),
        "before": round(one.before),
        "after": round(one.after),
        "by": one.by,
    }


def _inline(values: Mapping[str, Any]) -> str:
    return f"{{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in values.items())} }}"


def table(found: Costs, best: Sequence[Chosen]) -> list[dict[str, Any]]:
    """One line per class."""
    chosen = {one.operators: one for one in best}
    return [
        {
            "class": operators,
            "tiles tried": len(tiles) - 1,
            "default": round(tiles[DEFAULT]),
            "best": round(min(tiles.values())),
            "chosen": chosen[operators].tile if operators in chosen else "-",
        }
        for operators, tiles in found.items()
    ]


def document(cpu: str, by: str, timing_valid: bool, found: Costs, best: Sequence[Chosen]) -> dict[str, Any]:
    """As in schemas/tune-1.json, checked against it."""
    chosen = {one.operators: one.tile for one in best}
    result = {
        "schema": SCHEMA,
        "cpu": cpu,
        "by": by,
        "timing_valid": timing_valid,
        "classes": [
            {
                "class": operators,
                "chosen": chosen.get(operators, DEFAULT),
                "costs": {tile: round(cost) for tile, cost in tiles.items()},
            }
            for operators, tiles in found.items()
        ],
    }
    jsonschema.validate(result, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    return result
