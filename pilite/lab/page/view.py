"""What the page shows, as plain values: page.html only puts them in their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pilite.lab import report, stats
from pilite.lab.page import charts, exactness
from pilite.lab.rivals import OURS

Json = dict[str, Any]

WORDS = {"faster": "faster", "slower": "slower", "same": "the same", "undecided": "undecided"}
FACTS: tuple[str, ...] = (
    "model",
    "cpu",
    "cores",
    "machine",
    "memory_mb",
    "os",
    "kernel",
    "libc",
    "page_bytes",
)
FACTS += ("governor", "max_mhz", "temperature_c", "throttled", "load1")


@dataclass(frozen=True)
class Run:
    """One finished measurement: its name, result.json, samples.json, and profiles of its models."""

    name: str
    document: Json
    samples: Json
    profiles: Sequence[Json] = ()
    folder: Path | None = None
    comparisons: Sequence[Json] = ()  # of its models with TFLite, operator by operator


def page(runs: Sequence[Run]) -> Json:
    """Values for page.html."""
    return {
        "title": f"pilite: {', '.join(dict.fromkeys(run.document['board']['name'] for run in runs))}",
        "headline": [{**group, "run": run.name} for run in runs for group in by_model(headline(run))],
        "verdicts": verdicts(runs),
        "runs": [section(run) for run in runs],
        "several": len(runs) > 1,
    }


def verdicts(runs: Sequence[Run]) -> str:
    """One sentence: how often pilite is faster, the same, slower, undecided."""
    found = [ratio["verdict"] for run in runs for ratio in run.document["ratios"]]
    if not found:
        return "No comparison counts here; the marks below say why."
    counts = [f"{WORDS[word]} in {found.count(word)}" for word in WORDS if word in found]
    return f"Of {len(found)} comparisons pilite is {', '.join(counts)}."


def headline(run: Run) -> list[Json]:
    """Every row of a run and every failure, by model, threads and time: what is lost stands there too."""
    document = run.document
    ratios = {(r["model"], r["rival"], r["threads"]): r for r in document["ratios"]}
    lines = [_line(run, row, ratios) for row in document["rows"]]
    lines += [_failure(run, failure) for failure in document["failures"]]
    models = list(dict.fromkeys(line["model"] for line in lines))
    return sorted(lines, key=lambda line: (models.index(line["model"]), line["threads"], line["order"]))


def by_model(lines: Sequence[Json]) -> list[Json]:
    """Lines of a run under a heading per model."""
    groups: dict[str, list[Json]] = {}
    for line in lines:
        groups.setdefault(line["model"], []).append(line)
    return [{"board": found[0]["board"], "model": model, "lines": found} for model, found in groups.items()]


def _line(run: Run, row: Json, ratios: dict[Any, Json]) -> Json:
    ratio = ratios.get((row["model"], row["runtime"], row["threads"]))
    timed = run.document["timing_valid"]
    return {
        "board": run.document["board"]["name"],
        "model": row["model"],
        "threads": row["threads"],
        "runtime": row["runtime"],
        "ours": row["runtime"] == OURS,
        "version": row["runtime_version"],
        "median": digits(row["median_ms"]) if timed else "no speed",
        "p90": digits(row["p90_ms"]) if timed else "",
        "p99": digits(row["p99_ms"]) if timed else "",
        "runs": row["runs"],
        "order": row["median_ms"],
        "verdict": ratio["verdict"] if ratio else "",
        "speedup": _speedup(ratio) if ratio else "",
        "interval": "{:.2f} to {:.2f}".format(*ratio["ci95"]) if ratio else "",
        "marks": _rules(run.document, row),
        "reason": "",
    }


def _speedup(ratio: Json) -> str:
    return "undecided" if ratio["speedup"] is None else f"{ratio['speedup']:.2f} ×"


def _rules(document: Json, row: Json) -> list[str]:
    wanted = (row["model"], row["runtime"], row["threads"])
    marks = document["marks"]
    return [mark["rule"] for mark in marks if (mark["model"], mark["runtime"], mark["threads"]) == wanted]


def _failure(run: Run, failure: Json) -> Json:
    names = ("model", "threads", "runtime", "reason")
    blank = dict.fromkeys(("version", "median", "p90", "p99", "runs", "verdict", "speedup", "interval"), "")
    about = {"board": run.document["board"]["name"], "ours": failure["runtime"] == OURS, "marks": ["failed"]}
    return {**blank, **about, "order": float("inf"), **{name: failure[name] for name in names}}


def digits(value: float) -> str:
    """Three significant digits, without an exponent: 0.0123, 1.23, 123, 12345."""
    if value == 0:
        return "0"
    places = max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{places}f}"


def section(run: Run) -> Json:
    """One run: facts, marks, plots, exactness, profiles, how to repeat it."""
    document, board = run.document, run.document["board"]
    return {
        "name": run.name,
        "board": board["name"],
        "kind": board["kind"],
        "time": document["time"],
        "refused": [mark["what"] for mark in document["marks"] if mark["severity"] == "refused"],
        "marked": [mark["what"] for mark in document["marks"] if mark["severity"] == "marked"],
        "facts": [(name, board[name]) for name in FACTS if board.get(name) not in (None, "")],
        "settings": list({**document["settings"], **document["versions"]}.items()),
        "means": report.mean_rows(document) if _timed(run) else [],
        "models": [_model(run, name, one) for name, one in run.samples.items()] if _timed(run) else [],
        "costs": [_costs(row) for row in document["rows"]],
        "checks": document["checks"],
        "exact": not any(check["mismatches"] for check in document["checks"]),
        "drifts": [exactness.drift(one) for one in run.comparisons],
        "profiles": [_profile(profile) for profile in run.profiles],
        "commands": commands(document),
    }


def _timed(run: Run) -> bool:
    return bool(run.document["timing_valid"])


def _model(run: Run, name: str, samples: Json) -> Json:
    """Distributions and courses of a model's rows, on one axis."""
    rows = [row for row in run.document["rows"] if row["model"] == name]
    rounds = {_key(row): samples["ms"][_key(row)] for row in rows}
    flat = {key: stats.flat(one) for key, one in rounds.items()}
    by_threads = {row["threads"] for row in rows}
    groups = []
    for threads in sorted(by_threads):
        chosen = sorted((r for r in rows if r["threads"] == threads), key=lambda row: row["median_ms"])
        scale = charts.scale_of([flat[_key(row)] for row in chosen])
        strips = [_strip(row, flat[_key(row)], rounds[_key(row)], scale) for row in chosen]
        groups.append({"threads": threads, "strips": strips, "ticks": scale.ticks})
    return {"name": name, "groups": groups}


def _key(row: Json) -> str:
    return f"{row['runtime']}/{row['threads']}"


def _strip(row: Json, flat: charts.Array, rounds: stats.Rounds, scale: charts.Scale) -> Json:
    beyond = int(np.count_nonzero(flat > scale.end))
    return {
        "runtime": row["runtime"],
        "ours": row["runtime"] == OURS,
        "median": digits(row["median_ms"]),
        "mad": digits(row["mad_ms"]),
        "runs": row["runs"],
        "beyond": beyond,
        "dots": charts.dots(flat, scale),
        "box": charts.box(flat, scale),
        "course": charts.line([float(np.median(turn)) for turn in rounds]),
        "rounds": row["rounds"],
        "drift": "" if row["drift"] is None else f"{row['drift']:+.0%}",
        "modes": ", ".join(map(digits, row["modes_ms"])),
    }


def _costs(row: Json) -> Json:
    times = {name: digits(row[name]) for name in ("min_ms", "mad_ms", "load_ms", "first_ms", "cold_ms")}
    sizes = {name: f"{row[name]:.2f}" for name in ("model_mb", "install_mb")}
    names = ("model", "runtime", "runtime_version", "threads", "rounds", "sessions")
    about = {name: row[name] for name in names}
    return {**about, **times, **sizes, "rss_mb": f"{row['rss_mb']:.1f}"}


def _profile(profile: Json) -> Json:
    largest = max((layer["cost"] for layer in profile["layers"]), default=1.0) or 1.0
    layers = [
        {**layer, "width": round(100 * layer["cost"] / largest, 2), "percent": f"{100 * layer['share']:.1f}"}
        for layer in profile["layers"]
    ]
    return {**profile, "layers": layers}


def commands(document: Json) -> list[str]:
    """What to type to repeat a run."""
    board, settings = document["board"]["name"], document["settings"]
    models = list(dict.fromkeys(row["model"] for row in document["rows"]))
    rivals = list(dict.fromkeys(row["runtime"] for row in document["rows"] if row["runtime"] != OURS))
    threads = sorted({row["threads"] for row in document["rows"]})
    named = " ".join(f"--model {name}" for name in models)
    options = f"--threads {','.join(map(str, threads))} --rival {','.join(rivals)}"
    effort = f"--effort {settings['effort']} --seed {settings['seed']}"
    return [
        f"python3 run.py build --board {board} {named}",
        f"python3 run.py deploy --board {board} {named}",
        f"python3 run.py bench --board {board} {named} {options} {effort}",
    ]
