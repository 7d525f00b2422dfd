"""Time per operator of an artifact with markers on a board, beside what each operator has to do."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite import seal, zig
from pilite.errors import BoardError
from pilite.lab import artifact as artifacts_of
from pilite.lab import governor
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.loader import Arch, build_loader
from pilite.lab.profile.operators import Work, work
from pilite.lab.schema import checked

Json = dict[str, Any]
Times = npt.NDArray[np.float64]

SCHEMA = "pilite.profile/1"
SOURCE = Path(__file__).with_name("marks.c")
WANTED_S, LEAST_RUNS, MOST_RUNS = 3.0, 10, 1000
LIMIT_S = 600.0
ENDS = "(ends)"  # copies of the model's inputs and outputs

# 8-bit multiply-accumulates per cycle and core that the multipliers allow. ARM: Arm's Software Optimization
# Guides, A72 one 128-bit multiply a cycle, A76 two SDOT of 16 products; the A53 as the A72. x86-64: two
# VPMADDWD of 16 products; VPDPBUSD of 64, one or two by the core (a Xeon was measured at 103 a cycle).
MACS_PER_CYCLE = {"cortex-a53": 8, "cortex-a72": 8, "cortex-a76": 32, "x86-64-v3": 32, "x86-64-v4": 128}


@dataclass(frozen=True)
class Stage:
    """One kernel call of an artifact with markers: its operator (-1: the ends) and kernel."""

    operator: int
    op: str
    kernel: str


@dataclass(frozen=True)
class Marks:
    """Milliseconds of every stage, [run][stage], and the clock of the core that ran them in GHz.

    `governor_note`: which clock governor it had if not `performance`, and why.
    """

    ms: Times
    ghz: float
    governor_note: str | None = None


def stages(path: Path) -> list[Stage]:
    """What the marks of an artifact stand for, in order. Raises BoardError if it has none."""
    manifest = seal.unseal(path.read_bytes())[1]
    if not manifest.get("options", {}).get("markers"):
        raise BoardError(f"{path}: it was built without markers; `profile` builds one with them.")
    return [Stage(int(s["operator"]), str(s["op"]), str(s["kernel"])) for s in manifest["stages"]]


def library(arch: Arch, artifacts: Path) -> Path:
    """marks.c as a shared library; compiled once per content."""
    key = hashlib.sha256(SOURCE.read_bytes() + zig.version().encode()).hexdigest()[:16]
    made = artifacts.resolve() / "loader" / arch / f"marks-{key}.so"
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            command = zig.compiler_command("cc", zig.TRIPLES[arch])
            options = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,-z,max-page-size=16384", "-s"]
            zig.run_zig([*command, *options, SOURCE.name, "-o", f"{folder}/marks.so"], SOURCE.parent)
            Path(folder, "marks.so").replace(made)
    return made


def profile(
    board: Board, connection: Connection, model: Path, built: Path, threads: int, artifacts: Path
) -> Json:
    """Run an artifact with markers on a board; the document of schemas/profile-1.json.

    Raises BoardError if the board refuses the artifact or fails.
    """
    about, parts = artifacts_of.read(built), stages(built)
    scratch = connection.check(["mktemp", "-d", "/tmp/pilite-profile.XXXXXX"]).strip()
    try:
        _send(board, connection, built, scratch, artifacts)
        first = _run(board, connection, scratch, threads, LEAST_RUNS, len(parts))
        spent = float(np.median(first.ms.sum(axis=1))) / 1e3
        runs = int(np.clip(WANTED_S / max(spent, 1e-9), LEAST_RUNS, MOST_RUNS)) if board.timing_valid else 1
        marks = first if runs <= LEAST_RUNS else _run(board, connection, scratch, threads, runs, len(parts))
    finally:
        connection.run(["rm", "-rf", scratch])
    where = {"board": board.name, "cpu": board.cpu, "threads": threads, "timing_valid": board.timing_valid}
    roof = MACS_PER_CYCLE.get(board.cpu, 0) * marks.ghz * threads
    times = [float(value) for value in np.median(marks.ms, axis=0)]
    layers = by_operator(parts, times, work(model), 1e-6, roof if board.timing_valid else 0.0)
    return document(
        {
            "model": about.model,
            "numerics": about.numerics,
            "build": about.build_id[:12],
            **where,
            "unit": "ms",
            "rate_unit": "GMAC/s",
            "runs": len(marks.ms),
            "ghz": round(marks.ghz, 3),
            "roof": round(roof, 2),
            "governor_note": marks.governor_note,
        },
        layers,
    )


def _send(board: Board, connection: Connection, built: Path, scratch: str, artifacts: Path) -> None:
    arch: Arch = "aarch64" if board.arch == "aarch64" else "x86_64"
    runner = build_loader(arch, artifacts).runner
    preloaded = library(arch, artifacts)
    for source, name in ((built, "model.so"), (runner, "pilite-run"), (preloaded, "marks.so")):
        connection.put(source, f"{scratch}/{name}")


def _run(board: Board, connection: Connection, scratch: str, threads: int, runs: int, stages: int) -> Marks:
    words = ["env", f"LD_PRELOAD={scratch}/marks.so", f"PILITE_MARKS={scratch}/marks"]
    words += [f"{scratch}/pilite-run", f"{scratch}/model.so", "--random", "0"]
    words += ["--threads", str(threads), "--runs", str(runs)]
    note = governor.held(board, connection, words, LIMIT_S).note
    with tempfile.TemporaryDirectory() as folder:
        connection.get(f"{scratch}/marks", Path(folder) / "marks")
        found = read_marks((Path(folder) / "marks").read_bytes(), stages)
    return replace(found, governor_note=note)


def read_marks(data: bytes, stages: int) -> Marks:
    """What marks.c wrote; the first run was the warm-up. Raises BoardError if marks are missing."""
    pairs = np.frombuffer(data, np.uint64).reshape(-1, 2)
    head, marks = pairs[0], pairs[1:]
    wanted = [*range(1, stages + 1), 0]
    if len(marks) % len(wanted) or not (marks[:, 1].reshape(-1, len(wanted)) == wanted).all():
        raise BoardError("the marks of the artifact did not come in their order: it is damaged, or too many.")
    times = marks[:, 0].astype(np.float64).reshape(-1, len(wanted))
    return Marks(np.diff(times, axis=1)[1:] / 1e6, float(head[1]) / float(head[0]))


def by_operator(
    parts: Sequence[Stage], costs: Sequence[float], todo: Sequence[Work], per: float, roof: float
) -> list[Json]:
    """Stages added up by operator, in the model's order. `per`: cost units to a rate of MACs."""
    known = {one.index: one for one in todo}
    found: dict[int, Json] = {}
    whole = sum(costs) or 1.0
    for stage, cost in zip(parts, costs, strict=True):
        row = found.setdefault(stage.operator, {"kernels": [], "cost": 0.0, "op": stage.op or ENDS})
        row["cost"] += cost
        row["kernels"] += [stage.kernel] if stage.kernel not in row["kernels"] else []
    return [_row(index, found[index], known.get(index), whole, per, roof) for index in sorted(found)]


def _row(index: int, row: Json, todo: Work | None, whole: float, per: float, roof: float) -> Json:
    macs, moved = (todo.macs, todo.bytes) if todo else (0, 0)
    rate = macs * per / row["cost"] if macs and row["cost"] else None
    return {
        "index": index,
        "op": row["op"],
        "kernels": row["kernels"],
        "cost": row["cost"],
        "share": row["cost"] / whole,
        "macs": macs,
        "bytes": moved,
        "rate": rate,
        "of_roof": rate / roof if rate and roof else None,
    }


def of_estimate(row: Any, model: Path) -> Json:
    """The same document from a row of `estimate`: million cycles of the core model that claims use."""
    name = next(iter(row.counted.cycles))
    parts = [Stage(layer.index, layer.op, ", ".join(dict.fromkeys(layer.kernels))) for layer in row.layers]
    costs = [layer.counted.cycles.get(name, 0.0) / 1e6 for layer in row.layers]
    roof = float(MACS_PER_CYCLE.get(row.cpu, 0) * row.threads)
    about = {
        "model": row.model,
        "numerics": row.numerics,
        "build": row.runtime_version,
        "board": f"estimate ({name})",
        "cpu": row.cpu,
        "threads": row.threads,
        "timing_valid": False,
        "unit": "M cycles",
        "rate_unit": "MAC/cycle",
        "runs": 1,
        "ghz": None,
        "roof": roof,
    }
    return document(about, by_operator(parts, costs, work(model), 1e-6, roof))


def document(about: Json, layers: Sequence[Json]) -> Json:
    """As in schemas/profile-1.json, checked against it."""
    whole = sum(layer["cost"] for layer in layers)
    return checked({"schema": SCHEMA, **about, "whole": whole, "layers": list(layers)})


def table(found: Json) -> list[Json]:
    """One line per operator, as it is shown."""
    return [
        {
            "#": layer["index"],
            "operator": layer["op"],
            "kernels": ", ".join(layer["kernels"]),
            found["unit"]: layer["cost"],
            "%": f"{100 * layer['share']:.1f}",
            "M MACs": f"{layer['macs'] / 1e6:.2f}",
            "kB": f"{layer['bytes'] / 1e3:.0f}",
            found["rate_unit"]: "" if layer["rate"] is None else f"{layer['rate']:.2f}",
            "% of roof": "" if layer["of_roof"] is None else f"{100 * layer['of_roof']:.0f}",
        }
        for layer in found["layers"]
    ]


def summary(found: Json) -> str:
    """One line under the table."""
    macs = sum(layer["macs"] for layer in found["layers"])
    rate = macs * 1e-6 / found["whole"] if found["whole"] else 0.0
    roof = f", roof {found['roof']:.0f}" if found["roof"] else ""
    clock = f" at {found['ghz']:.2f} GHz" if found["ghz"] else ""
    doubt = "" if found["timing_valid"] or found["unit"] != "ms" else "; a virtual board: no speed"
    note = f"; the clock governor was {found['governor_note']}" if found.get("governor_note") else ""
    return (
        f"{found['model']}, {found['threads']} thread(s){clock}: {found['whole']:.3f} {found['unit']}, "
        f"{rate:.1f} {found['rate_unit']}{roof}{doubt}{note}"
    )
