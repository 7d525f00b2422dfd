"""A measurement for readers: a Markdown page, tables for the terminal, a plot where times count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from pilite.lab.onboard import Onboarded

Json = dict[str, Any]

NO_TIMES = (
    "Times on this board say nothing about the speed of its CPU: they are here to show that everything ran."
)
FACTS = (
    "model",
    "cpu",
    "cores",
    "os",
    "kernel",
    "libc",
    "governor",
    "max_mhz",
    "temperature_c",
    "throttled",
    "load1",
)
COLORS = {"pilite": "#1b6e53", "tflite": "#c26a1a", "litert": "#5b5ea6", "litert-builtin": "#9a9ccf"}
OTHER = "#77787b"


def timing_rows(document: Json) -> list[Json]:
    """The measured rows as they are shown."""
    return [
        {
            "model": row["model"],
            "runtime": row["runtime"],
            "version": row["runtime_version"],
            "threads": f"{row['threads']}{' *' if row['oversubscribed'] else ''}",
            "runs": row["runs"],
            "min ms": row["min_ms"],
            "median ms": row["median_ms"],
            "p90 ms": row["p90_ms"],
            "p99 ms": row["p99_ms"],
            "MAD ms": row["mad_ms"],
        }
        for row in document["rows"]
    ]


def cost_rows(document: Json) -> list[Json]:
    """What else users compare: times until the first result, memory, sizes of model and runtime."""
    return [
        {
            "model": row["model"],
            "runtime": row["runtime"],
            "threads": f"{row['threads']}{' *' if row['oversubscribed'] else ''}",
            "load ms": row["load_ms"],
            "first run ms": row["first_ms"],
            "cold start ms": f"{row['cold_ms']:.0f}",
            "peak MB": f"{row['rss_mb']:.1f}",
            "model MB": f"{row['model_mb']:.2f}",
            "installed MB": f"{row['install_mb']:.2f}",
        }
        for row in document["rows"]
    ]


def ratio_rows(document: Json) -> list[Json]:
    """Speed-ups; none on a board whose times do not count."""
    return [
        {
            "model": row["model"],
            "threads": f"{row['threads']}{' *' if row['oversubscribed'] else ''}",
            "against": row["rival"],
            "times faster": row["verdict"] if row["speedup"] is None else f"{row['speedup']:.2f}",
            "95 % interval": f"{row['ci95'][0]:.2f} to {row['ci95'][1]:.2f}",
            "p": f"{row['p_value']:.2g}",
            "verdict": row["verdict"],
        }
        for row in document["ratios"]
    ]


def mean_rows(document: Json) -> list[Json]:
    """Geometric means of the speed-ups over all models, by threads and rival; none of a single model.

    One undecided model makes its mean undecided: leaving it out would flatter.
    """
    groups: dict[tuple[int, str], list[Json]] = {}
    for row in document["ratios"]:
        groups.setdefault((row["threads"], row["rival"]), []).append(row)
    return [_mean(key, rows) for key, rows in groups.items() if len(rows) > 1]


def _mean(key: tuple[int, str], rows: Sequence[Json]) -> Json:
    decided = [row["speedup"] for row in rows if row["speedup"] is not None]
    least = min(rows, key=lambda row: row["ci95"][0])
    low, high = least["ci95"]
    return {
        "models": len(rows),
        "threads": f"{key[0]}{' *' if rows[0]['oversubscribed'] else ''}",
        "against": key[1],
        "times faster": f"{geometric_mean(decided):.2f}" if len(decided) == len(rows) else "undecided",
        "decided": len(decided),
        "least of them, 95 % interval": f"{low:.2f} to {high:.2f} ({least['model']})",
    }


def check_rows(document: Json) -> list[Json]:
    return [
        {
            "model": row["model"],
            "threads": row["threads"],
            "against": row["against"],
            "elements": row["elements"],
            "mismatches": row["mismatches"],
        }
        for row in document["checks"]
    ]


def remarks(document: Json) -> list[str]:
    """What a reader must know beside the tables."""
    shared = any(row["oversubscribed"] for row in document["rows"])
    refused = not document["timing_valid"]
    return [
        *([NO_TIMES] if refused else []),
        *(["* more threads than CPUs"] if shared else []),
        *document["notes"],
    ]


def markdown(document: Json) -> str:
    """The whole measurement as a page."""
    board = document["board"]
    facts = [f"{name} {board[name]}" for name in FACTS if board.get(name) is not None]
    parts = [
        f"# Measured on {board['name']} ({board['kind']}), {document['time']}",
        ", ".join(facts),
        "\n".join(f"- {text}" for text in remarks(document)),
        section("Times", timing_rows(document)),
        section("pilite against its rivals", ratio_rows(document)),
        section("Geometric means over models", mean_rows(document)),
        section("Start, memory and sizes", cost_rows(document)),
        section("Outputs", check_rows(document)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with its heading; nothing without rows."""
    if not rows:
        return ""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row.values()] for row in rows)]
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def write(document: Json, samples: Json, folder: Path) -> None:
    """report.md, and times.svg where times count."""
    (folder / "report.md").write_text(markdown(document), encoding="utf-8")
    if document["timing_valid"] and document["rows"]:
        plot(document, samples, folder / "times.svg")


def plot(document: Json, samples: Json, path: Path) -> None:
    """One strip per model: every run as a box, by runtime and threads."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "pilite", "font.size": 9}):
        from matplotlib.figure import Figure

        models = list(samples)
        figure = Figure(figsize=(8, 1 + 2.4 * len(models)), layout="constrained")
        for axes, model in zip(figure.subplots(len(models), squeeze=False)[:, 0], models, strict=True):
            _draw(
                axes, model, [row for row in document["rows"] if row["model"] == model], samples[model]["ms"]
            )
        board = document["board"]
        figure.suptitle(f"{board['name']}: {board['model']}, {document['time'][:10]}")
        figure.savefig(path, metadata={"Date": None})


def _draw(
    axes: Any, model: str, rows: Sequence[Json], samples: Mapping[str, Sequence[Sequence[float]]]
) -> None:
    rows = sorted(rows, key=lambda row: (-row["threads"], row["runtime"]))
    runs = [[ms for turn in samples[f"{row['runtime']}/{row['threads']}"] for ms in turn] for row in rows]
    boxes = axes.boxplot(runs, orientation="horizontal", whis=(1, 99), showfliers=False, patch_artist=True)
    for box, row in zip(boxes["boxes"], rows, strict=True):
        box.set_facecolor(COLORS.get(row["runtime"], OTHER))
    axes.set_yticks(range(1, len(rows) + 1), [f"{row['runtime']}, {row['threads']} thr." for row in rows])
    axes.set_xlim(left=0)
    axes.set_xlabel("ms per run; box: quartiles, whiskers: 1 % to 99 %")
    axes.set_title(model, loc="left")


def fact_rows(met: Sequence[Onboarded]) -> list[Json]:
    """One row per fact, one column per board."""
    names = list(met[0].facts) if met else []
    return [{"fact": name, **{one.board.name: _shown(one.facts[name]) for one in met}} for name in names]


def _shown(value: object) -> object:
    return " ".join(value) if isinstance(value, list) else "unknown" if value is None else value
