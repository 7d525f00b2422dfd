"""An estimate for readers: tables for the terminal, and a plot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pilite.lab.estimate.budgets import Verdict
from pilite.lab.estimate.estimate import OURS, Row
from pilite.lab.estimate.models import MODELS

Cells = dict[str, Any]

COLORS = {"pilite": "#1b6e53", "tflite": "#c26a1a", "litert": "#5b5ea6", "litert-builtin": "#9a9ccf"}


def table(rows: Iterable[Row]) -> list[Cells]:
    """One line per row: millions of instructions and cycles, thousands of misses of first and last level."""
    return [
        {
            "model": row.model,
            "cpu": row.cpu,
            "runtime": row.runtime if row.threads == 1 else f"{row.runtime}, {row.threads} threads",
            "Minsn": f"{row.counted.instructions / 1e6:.2f}",
            "Mcycles": f"{row.claim / 1e6:.2f}",
            "other model": _others(row),
            "k L1": round(row.counted.l1_misses / 1e3),
            "k last": round(row.counted.last_level_misses / 1e3),
            "MB": f"{row.counted.dram_bytes / 1e6:.1f}",
            "balance": f"{row.balance:.2f}",
        }
        for row in rows
    ]


def _others(row: Row) -> str:
    others = list(row.counted.cycles.items())[1:]
    return ", ".join(f"{cycles / 1e6:.2f} {name}" for name, cycles in others)


def layer_table(row: Row) -> list[Cells]:
    """One line per operator, in the order of the model."""
    whole = row.claim or 1.0
    name = MODELS[row.cpu][0].name
    return [
        {
            "operator": layer.index,
            "op": layer.op or "(ends)",
            "kernels": ", ".join(dict.fromkeys(layer.kernels)),
            "Minsn": layer.counted.instructions / 1e6,
            "Mcycles": layer.counted.cycles.get(name, 0.0) / 1e6,
            "%": f"{100 * layer.counted.cycles.get(name, 0.0) / whole:.1f}",
            "k L1": round(layer.counted.l1_misses / 1e3),
            "MB": layer.counted.dram_bytes / 1e6,
        }
        for layer in row.layers
    ]


def verdict_table(verdicts: Iterable[Verdict]) -> list[Cells]:
    """One line per value and its budget."""
    return [
        {
            "model": verdict.key[0],
            "cpu": verdict.key[1],
            "value": verdict.what,
            "budget": verdict.before,
            "now": verdict.now,
            "%": verdict.change,
        }
        for verdict in verdicts
    ]


def fastest_rival(row: Row, rows: Iterable[Row]) -> Row | None:
    """The rival with the fewest cycles for the same model, core and threads."""
    rivals = [r for r in rows if r.runtime != OURS and _subject(r) == _subject(row)]
    return min(rivals, key=lambda r: r.claim, default=None)


def _subject(row: Row) -> tuple[str, str, int]:
    return row.model, row.cpu, row.threads


def speedups(rows: Sequence[Row]) -> list[Cells]:
    """Ours against the fastest rival, and the geometric mean per core and dtype."""
    found: dict[tuple[str, str], list[float]] = {}
    lines = []
    for row in (row for row in rows if row.runtime == OURS):
        rival = fastest_rival(row, rows)
        if rival is None:
            continue
        times = rival.claim / row.claim
        found.setdefault((row.cpu, row.dtype), []).append(times)
        lines.append(_speedup(row.model, row.cpu, rival.runtime, times))
    for (cpu, dtype), ratios in found.items():
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        lines.append(_speedup(f"geometric mean of {len(ratios)} {dtype}", cpu, "", mean))
    return lines


def _speedup(model: str, cpu: str, rival: str, times: float) -> Cells:
    return {"model": model, "cpu": cpu, "fastest rival": rival, "times fewer cycles": f"{times:.2f}"}


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of cycles, one strip per model and core; an SVG whose bytes depend on the rows alone."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "pilite", "font.size": 9}):
        from matplotlib.figure import Figure

        subjects = list(dict.fromkeys(map(_subject, rows)))
        figure = Figure(figsize=(8, 0.6 + 1.5 * len(subjects)), layout="constrained")
        for axes, subject in zip(figure.subplots(len(subjects), squeeze=False)[:, 0], subjects, strict=True):
            _draw(axes, subject, [row for row in rows if _subject(row) == subject])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Any, subject: tuple[str, str, int], rows: Sequence[Row]) -> None:
    names = [row.runtime for row in reversed(rows)]
    cycles = [row.claim / 1e6 for row in reversed(rows)]
    bars = axes.barh(names, cycles, color=[COLORS[name] for name in names])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.margins(x=0.12)
    model, cpu, threads = subject
    used = f"{MODELS[cpu][0].name}, {threads} thread{'s' * (threads > 1)}"
    axes.set_xlabel(f"million cycles, {used}; a model, not measured")
    axes.set_title(f"{model}, {cpu}", loc="left")
