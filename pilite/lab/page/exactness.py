"""How far outputs drift from the oracle's through a model, as plain values for page.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pilite.lab import store

Json = dict[str, Any]


def comparisons(artifacts: Path, document: Json) -> list[Json]:
    """What `compare --layers` left about a result's models, on its board's CPU."""
    models, cpu = {row["model"] for row in document["rows"]}, document["board"]["cpu"]
    every = [store.load(path) for path in sorted((artifacts / "compare").glob("*.json"))]
    return [one for one in every if one["builds"][0]["cpu"] == cpu and one["builds"][0]["model"] in models]


def drift(comparison: Json) -> Json:
    """Each operator's share of elements that differ, over all inputs and thread counts, by depth."""
    build = comparison["builds"][0]
    by_operator: dict[int, list[Json]] = {}
    for row in comparison["rows"]:
        if row["operator"] is not None:
            by_operator.setdefault(row["operator"], []).append(row)
    operators = [_operator(index, rows) for index, rows in sorted(by_operator.items())]
    differing = [one for one in operators if one["mismatches"]]
    about = {name: build[name] for name in ("model", "cpu", "numerics", "against")}
    return {**about, "operators": operators, "differing": differing}


def _operator(index: int, rows: Sequence[Json]) -> Json:
    elements, mismatches = (sum(row[name] for row in rows) for name in ("elements", "mismatches"))
    return {
        "index": index,
        "op": rows[0]["op"],
        "elements": elements,
        "mismatches": mismatches,
        "percent": round(100 * mismatches / elements, 2) if elements else 0.0,
        "largest": max(row["max_difference"] for row in rows),
    }
