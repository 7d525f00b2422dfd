"""The verbs that count instructions and model cycles; tasks.py offers them. Heavy imports are inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from pilite.console import chosen, show_table, whole_number, write_json
from pilite.errors import PiliteError
from pilite.verbs import ARTIFACTS, RIVALS, ROOT, SHARED_MODELS, alone, built, sources, verb

if TYPE_CHECKING:
    from pilite.lab.boards import Board
    from pilite.lab.estimate.estimate import Row, Subject
    from pilite.lab.tune import Trial

ESTIMATED_RIVALS = (*RIVALS, "litert-builtin")
ESTIMATED_CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
TUNED_MODELS = ("mobilenet_v2_1.0_224_int8",)


@verb("model", "input_shape", "cpu")
def estimate(
    c: Context,
    model: Sequence[str] = (),
    input_shape: Sequence[str] = (),
    cpu: Sequence[str] = (),
    rival: str = "all",
    numerics: str = "ref",
    fuse: str = "",
    threads: str = "1",
    layers: bool = False,
    gate: str = "",
    page: str = "",
    json: str = "",
) -> None:
    """Count instructions and model cycles on Pi cores, beside the rivals; needs no board, and is no time."""
    every = "" if gate and not page else ",".join(ESTIMATED_RIVALS)
    rivals = chosen(every if rival == "all" else rival, ESTIMATED_RIVALS, "--rival")
    count = whole_number(threads, "--threads")
    from pilite.lab.estimate import budgets, report
    from pilite.lab.estimate import estimate as estimating
    from pilite.lab.estimate import page as pages

    names = list(model) or estimated_models(gate, page)
    rows = estimating.estimate(
        subjects_of(names, cpu or ESTIMATED_CPUS, numerics, input_shape, fuse),
        rivals,
        ARTIFACTS,
        threads=count,
        say=print,
    )
    show(rows, layers)
    if json:
        write_json(Path(json), estimating.document(rows))
    if page:
        single = operators_alone(names, cpu or ESTIMATED_CPUS, numerics)
        readme = ROOT / "README.md" if Path(page).resolve().parent == ROOT else None
        pages.write(rows, single, Path(page), readme)
    if gate:
        verdicts = budgets.gate(rows, Path(gate), lower=os.environ.get("CI") != "true")
        show_table("Budgets", report.verdict_table(verdicts))


def estimated_models(gate: str, page: str) -> list[str]:
    """What is estimated if no model is named: those of the page, or those that have a budget and are here."""
    import models as catalogue
    from pilite.lab.estimate import budgets
    from pilite.lab.estimate import page as pages

    if page:
        facts = pages.data()
        return [*facts["goals"], *facts["also"]]
    named = list(dict.fromkeys(model for model, *_ in budgets.read(Path(gate)))) if gate else []
    here = [name for name in named if catalogue.is_here(name, ARTIFACTS, SHARED_MODELS)]
    for name in (name for name in named if name not in here):
        print(f"{name}: has a budget and is not on this machine; left out")
    return here


def operators_alone(names: Sequence[str], cpus: Sequence[str], numerics: str) -> list[Row]:
    """Rows of the model that the page shows operators of: a chain's cycles are of no single one."""
    from pilite.lab.estimate import estimate as estimating
    from pilite.lab.estimate import page as pages

    shown = [name for name in names if Path(name).stem == pages.data()["onnxruntime"]["model"]]
    subjects = subjects_of(shown, cpus, numerics, fuse="off") if shown else []
    return estimating.estimate(subjects, (), ARTIFACTS, say=print)


def subjects_of(
    names: Sequence[str],
    cpus: Sequence[str],
    numerics: str,
    input_shapes: Sequence[str] = (),
    fuse: str = "",
) -> list[Subject]:
    """Every model with every CPU, built with marks between its operators; `fuse`: as for build."""
    from pilite.lab.estimate import estimate as estimating

    options = {"numerics": numerics, **({"chains": fuse} if fuse else {})}
    return [
        estimating.Subject(s.name, s.path, core, built(s, core, markers=True, **options))
        for s in sources(names, input_shapes)
        for core in cpus
    ]


def show(rows: Sequence[Row], layers: bool) -> None:
    """Tables on the terminal, and the plot."""
    from pilite.lab.estimate import report

    for row in rows if layers else ():
        show_table(f"{row.model} on {row.cpu}", report.layer_table(row))
    show_table("Estimates", report.table(rows))
    show_table("pilite against the fastest rival", report.speedups(rows))
    report.plot(rows, ARTIFACTS / "estimate" / "cycles.svg")


@verb("model", "kernel")
def tune(
    c: Context,
    model: Sequence[str] = (),
    cpu: str = "",
    board: str = "",
    kernel: Sequence[str] = (),
    rounds: str = "5",
    json: str = "",
) -> None:
    """Try every tile of every kernel; keep the best by class of operators in toolchains/tiles/<cpu>.toml."""
    if bool(cpu) == bool(board):
        raise PiliteError(
            "tune needs --cpu C, to rank by its core model, or --board B, to rank by time there."
        )
    repeats = whole_number(rounds, "--rounds")
    from pilite.lab import boards
    from pilite.lab import tune as tuning

    where = boards.load(board, ARTIFACTS) if board else None
    core = where.cpu if where else cpu
    if where is None:
        tuning.require_model(core)
    trials = trials_of(list(model) or TUNED_MODELS, core, kernel)
    paths = [path for trial in trials for path in trial.artifacts]
    measured = timed(where, paths, repeats) if where else tuning.cycles(paths, core, ARTIFACTS, print)
    by = f"ns on {where.name}" if where else f"cycles of {core}'s core model"
    found = tuning.costs(trials, dict(zip(paths, measured, strict=True)))
    best = tuning.choices(found, by)
    valid = where is not None and where.timing_valid
    show_table(f"{core} by {by}", tuning.table(found, best))
    if json:
        write_json(Path(json), tuning.document(core, by, valid, found, best))
    if where and not valid:
        print(f"{where.name} is a virtual board: its times are no speed, nothing is kept.")
        return
    tuning.keep(ROOT / "toolchains" / "tiles" / f"{core}.toml", found, best)
    print(f"toolchains/tiles/{core}.toml: {len(best)} of {len(found)} classes have a choice")


def trials_of(names: Sequence[str], cpu: str, only: Sequence[str]) -> list[Trial]:
    """Every candidate of a CPU with every model, built with marks; first the one that chooses nothing.

    `only`: the kernels whose tiles are tried; empty: all.
    """
    from pilite.compiler import cpu as cpus
    from pilite.compiler.kernels import tuning as kernels
    from pilite.lab import tune as tuning

    tiles = kernels.candidates(cpus.load(cpu))
    known = list(dict.fromkeys(tile.partition("@")[0] for tile in tiles))
    wanted = chosen(",".join(only), known, "--kernel") or known
    tiles = [tuning.DEFAULT, *(tile for tile in tiles if tile.partition("@")[0] in wanted)]
    found = sources(names)
    return [tuning.Trial(tile, tuple(alone(s, cpu, tile=tile) for s in found)) for tile in tiles]


def timed(board: Board, paths: Sequence[Path], rounds: int) -> Sequence[Mapping[int, float]]:
    """Nanoseconds of every stage there."""
    from pilite.lab import boards, stagetimes

    with boards.connect(board, ARTIFACTS) as connection:
        return stagetimes.measure(board, connection, paths, ARTIFACTS, rounds=rounds, say=print)
