"""How errors grow through a model: a plot of `compare --layers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pilite.lab.compare import Comparison


def plot(one: Comparison, folder: Path) -> Path:
    """The share of differing elements by operator: accumulated, and each operator's own. An SVG; its path."""
    import matplotlib

    about = one.artifacts[0]
    path = folder / f"{about.model}-{about.cpu}-{about.numerics}-{one.oracle.key}.svg"
    with matplotlib.rc_context({"svg.hashsalt": "pilite", "font.size": 9}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        _draw(one, *figure.subplots(2, sharex=True))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def _draw(one: Comparison, shares: Any, sizes: Any) -> None:
    rows, own = one.operators, one.own
    where = [row.operator for row in rows]
    shares.set_title(f"{one.title}, against {one.oracle.name}", loc="left")
    shares.plot(
        where, [100 * row.mismatches / row.elements for row in rows], label="drift", drawstyle="steps-mid"
    )
    sizes.plot(where, [row.max_difference for row in rows], drawstyle="steps-mid")
    if own:
        at = [known.operator for known in own]
        shares.bar(
            at, [100 * known.mismatches / known.elements for known in own], color="tab:red", label="own"
        )
        sizes.bar(at, [known.max_difference for known in own], color="tab:red")
    shares.legend()
    shares.set_ylabel("elements that differ, %")
    sizes.set_ylabel("largest difference")
    sizes.set_xlabel("operator")
    for axes in (shares, sizes):
        axes.set_ylim(bottom=0)
