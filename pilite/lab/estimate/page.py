"""RESULTS.md: every row of an estimate beside the goals, rows that pilite loses included."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilite.errors import PiliteError
from pilite.lab.estimate.estimate import OURS, Row
from pilite.lab.estimate.guests import RIVALS
from pilite.lab.estimate.models import MODELS
from pilite.lab.estimate.plugin import emulator_version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DATA = Path(__file__).with_name("results.toml")
COMMAND = "python3 run.py estimate --page RESULTS.md"
MARKS = ("<!-- modelled: `estimate --page` writes this table -->", "<!-- end -->")
UNWRITTEN = "not written down yet"
DTYPES = ("uint8", "int8")


@dataclass(frozen=True)
class Pair:
    """Ours and the fastest rival for one model on one core, by one core model."""

    ours: Row
    rival: Row
    core_model: str

    @property
    def cycles(self) -> float:
        return self.ours.counted.cycles[self.core_model]

    @property
    def rival_cycles(self) -> float:
        return self.rival.counted.cycles[self.core_model]

    @property
    def times(self) -> float:
        """How many times fewer cycles ours takes; below 1: more."""
        return self.rival_cycles / self.cycles


def data() -> dict[str, Any]:
    """results.toml: models, goals, published numbers, prose."""
    found: dict[str, Any] = tomllib.loads(DATA.read_text(encoding="utf-8"))
    return found


def pairs(rows: Iterable[Row]) -> list[Pair]:
    """Every row of ours with the rival that is fastest by the same core model."""
    rows = list(rows)
    found = []
    for ours in (row for row in rows if row.runtime == OURS):
        rivals = [r for r in rows if r.runtime != OURS and (r.model, r.cpu) == (ours.model, ours.cpu)]
        for model in MODELS[ours.cpu] if rivals else ():
            best = min(rivals, key=lambda r, name=model.name: r.counted.cycles[name])  # type: ignore[misc]
            found.append(Pair(ours, best, model.name))
    return found


def mean(found: Sequence[Pair]) -> float:
    """Geometric mean of their `times`; 0 of none."""
    return math.exp(sum(math.log(pair.times) for pair in found) / len(found)) if found else 0.0


def write(rows: Sequence[Row], alone: Sequence[Row], path: Path, readme: Path | None = None) -> None:
    """The page, and the table between MARKS in `readme`. `alone`: ours without chains, for single operators.

    Raises:
        PiliteError: there is nothing to compare, or `readme` has no marks.
    """
    found, facts = pairs(rows), data()
    if not found:
        raise PiliteError("--page compares with rivals: leave --rival out, or name one.")
    _replace(path, "\n\n".join(sections(rows, alone, found, facts)) + "\n")
    if readme is not None:
        text = readme.read_text(encoding="utf-8")
        if not all(text.count(mark) == 1 for mark in MARKS):
            raise PiliteError(f"{readme}: the table's marks {' and '.join(MARKS)} are not there once each.")
        before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        _replace(readme, f"{before}{MARKS[0]}\n{short_table(found, facts)}\n{MARKS[1]}{after}")


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def sections(
    rows: Sequence[Row], alone: Sequence[Row], found: Sequence[Pair], facts: dict[str, Any]
) -> list[str]:
    """The page's paragraphs and tables, in order."""
    return [
        "# Results without a board",
        _about(rows),
        "## Geometric means and goals",
        goal_table(found, facts),
        "## MobileNet V2, in short",
        short_table(found, facts),
        *_every_row(rows, found, facts),
        "## Instructions and memory",
        _memory_table(found, facts),
        "## ONNX Runtime",
        _onnxruntime(found, alone, facts),
        "## Rows that pilite loses",
        _lost(found, facts),
        "## Missed goals",
        *_missed(found, facts),
        "## What the models do not know",
        facts["text"]["unknown"].strip(),
        "Published measurements beside the same core models:",
        _table(facts["measured"]),
    ]


def _about(rows: Sequence[Row]) -> str:
    versions = dict.fromkeys(f"{r.runtime} {r.runtime_version}" for r in rows if r.runtime != OURS)
    return (
        f"Written by `{COMMAND}`; edit `pilite/lab/estimate/results.toml`, not this page.\n"
        "Million cycles of one inference on core models, 1 thread, caches warm and misses free: "
        "**modelled, not measured**.\n"
        f"The instructions behind them are exact ({emulator_version()}). "
        f"Rivals, from their arm64 wheels: {', '.join(versions)};\n"
        "litert-builtin is LiteRT without its default delegate. "
        "pilite's outputs equal TFLite's in every byte (`compare`)."
    )


def goal_table(found: Sequence[Pair], facts: dict[str, Any]) -> str:
    """One line per core model and dtype."""
    lines = []
    for cpu, core_model, dtype in _groups(found):
        group = _of(found, cpu, core_model, dtype, facts["goals"])
        if not group:
            continue
        goal = facts["goal"][cpu][dtype] if core_model == MODELS[cpu][0].name else None
        lines.append(
            {
                "core": facts["cores"][cpu],
                "core model": core_model,
                "type": dtype,
                "models": len(group),
                "times faster": f"{mean(group):.2f}",
                "goal": goal or "",
                "verdict": "" if goal is None else _verdict(mean(group), goal),
            }
        )
    return _table(lines)


def _groups(found: Sequence[Pair]) -> list[tuple[str, str, str]]:
    models = dict.fromkeys((pair.ours.cpu, pair.core_model) for pair in found)
    return [(cpu, name, dtype) for cpu, name in models for dtype in DTYPES]


def _of(found: Sequence[Pair], cpu: str, core_model: str, dtype: str, models: Sequence[str]) -> list[Pair]:
    return [
        pair
        for pair in found
        if (pair.ours.cpu, pair.core_model, pair.ours.dtype) == (cpu, core_model, dtype)
        and pair.ours.model in models
    ]


def _verdict(reached: float, goal: float) -> str:
    return "reached" if reached >= goal else f"short by {1 - reached / goal:.1%}"


def short_table(found: Sequence[Pair], facts: dict[str, Any]) -> str:
    """The models that the README shows."""
    lines = [
        {
            "core (board), model": f"{facts['cores'][pair.ours.cpu]}, {pair.core_model}",
            "type": pair.ours.dtype,
            "pilite, Mcycles": _millions(pair.cycles),
            "fastest rival, Mcycles": f"{pair.rival.runtime} {_millions(pair.rival_cycles)}",
            "times faster": f"{pair.times:.2f}",
        }
        for pair in found
        if pair.ours.model in facts["shown"]
    ]
    return _table(sorted(lines, key=lambda line: DTYPES.index(line["type"])))


def _every_row(rows: Sequence[Row], found: Sequence[Pair], facts: dict[str, Any]) -> list[str]:
    texts = []
    for cpu, core_model in dict.fromkeys((pair.ours.cpu, pair.core_model) for pair in found):
        lines = [_row(pair, rows) for pair in found if (pair.ours.cpu, pair.core_model) == (cpu, core_model)]
        about = next(model.about for model in MODELS[cpu] if model.name == core_model)
        texts += [f"## {facts['cores'][cpu]}: {core_model}", f"Million cycles by {about}.", _table(lines)]
    return texts


def _row(pair: Pair, rows: Sequence[Row]) -> dict[str, Any]:
    subject = pair.ours.model, pair.ours.cpu
    cycles = {
        row.runtime: row.counted.cycles[pair.core_model] for row in rows if (row.model, row.cpu) == subject
    }
    return {
        "model": pair.ours.model,
        "type": pair.ours.dtype,
        **{name: _millions(cycles[name]) if name in cycles else "" for name in (OURS, *RIVALS)},
        "fastest rival": pair.rival.runtime,
        "times faster": f"{pair.times:.2f}{' **slower**' if pair.times < 1 else ''}",
    }


def _memory_table(found: Sequence[Pair], facts: dict[str, Any]) -> str:
    """Ours / the fastest rival's, by the core's first model."""
    lines = []
    for pair in found:
        if pair.core_model != MODELS[pair.ours.cpu][0].name:
            continue
        both = pair.ours.counted, pair.rival.counted
        lines.append(
            {
                "model": pair.ours.model,
                "core": pair.ours.cpu,
                "rival": pair.rival.runtime,
                "M instructions": " / ".join(f"{one.instructions / 1e6:.1f}" for one in both),
                "k L1 misses": " / ".join(f"{one.l1_misses / 1e3:.0f}" for one in both),
                "k last-level misses": " / ".join(f"{one.last_level_misses / 1e3:.0f}" for one in both),
                "DRAM MB": " / ".join(f"{one.dram_bytes / 1e6:.1f}" for one in both),
            }
        )
    return "pilite / the fastest rival.\n\n" + _table(lines)


def _onnxruntime(found: Sequence[Pair], alone: Sequence[Row], facts: dict[str, Any]) -> str:
    """The int8 V2 network against published cycles of ONNX Runtime, whole and depthwise alone."""
    single = {(row.model, row.cpu): row for row in alone}
    theirs = facts["onnxruntime"]
    lines = []
    for pair in found:
        cpu = pair.ours.cpu
        if pair.ours.model != theirs["model"] or pair.core_model != MODELS[cpu][0].name:
            continue
        alone_there = single.get((pair.ours.model, cpu))
        ours = depthwise(alone_there, pair.core_model) if alone_there else 0.0
        lines.append(
            {
                "core": facts["cores"][cpu],
                "pilite": _millions(pair.cycles),
                "ONNX Runtime": theirs["whole"][cpu],
                "times faster": f"{theirs['whole'][cpu] / (pair.cycles / 1e6):.2f}",
                "depthwise, pilite": _millions(ours) if ours else "",
                "depthwise, ONNX Runtime": theirs["depthwise"][cpu],
                "depthwise, times faster": f"{theirs['depthwise'][cpu] / (ours / 1e6):.2f}" if ours else "",
            }
        )
    about = f"Million cycles of {theirs['model']}, ONNX Runtime's from an earlier study with the same models."
    return f"{about}\n\n{_table(lines)}"


def depthwise(row: Row, core_model: str) -> float:
    """Cycles of our depthwise convolutions; borders that are filled for them count."""
    layers = [layer for layer in row.layers if layer.op == "DEPTHWISE_CONV_2D"]
    return sum(layer.counted.cycles.get(core_model, 0.0) for layer in layers)


def _lost(found: Sequence[Pair], facts: dict[str, Any]) -> str:
    lost = [pair for pair in found if pair.times < 1]
    lines = [
        f"- {pair.ours.model} on {facts['cores'][pair.ours.cpu]} by {pair.core_model}: "
        f"{pair.times:.2f} against {pair.rival.runtime}"
        for pair in lost
    ]
    return "\n".join(lines) or f"None of {len(found)}."


def _missed(found: Sequence[Pair], facts: dict[str, Any]) -> list[str]:
    texts = []
    for cpu, core_model, dtype in _groups(found):
        group = _of(found, cpu, core_model, dtype, facts["goals"])
        goal = facts["goal"][cpu][dtype]
        if not group or core_model != MODELS[cpu][0].name or mean(group) >= goal:
            continue
        note = facts["missed"].get(cpu, {}).get(dtype, {})
        texts.append(
            f"**{facts['cores'][cpu]}, {dtype}: {mean(group):.2f} of {goal}, "
            f"{_verdict(mean(group), goal)}.**\n"
            f"What bounds it: {note.get('bound', UNWRITTEN).strip()}\n"
            f"What was tried: {note.get('tried', UNWRITTEN).strip()}"
        )
    return texts or ["None."]


def _millions(cycles: float) -> str:
    """Three digits, or one after the point."""
    return f"{cycles / 1e6:.{1 if cycles >= 1e7 else 2 if cycles >= 1e6 else 3}f}"


def _table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    if not lines:
        return "(nothing)"
    head = list(lines[0])
    cells = [head, ["---"] * len(head), *([str(value) for value in line.values()] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def tables(text: str) -> list[str]:
    """Every Markdown table of a page, as `_table` wrote it."""
    return re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
