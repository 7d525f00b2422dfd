"""The verbs that measure; tasks.py offers them. Heavy imports are inside the task that needs them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from pilite.console import (
    drawn_seed,
    percent,
    show_table,
    whole_number,
    whole_numbers,
    write_json,
)
from pilite.errors import CheckFailed, PiliteError
from pilite.verbs import ARTIFACTS, alone, sources, verb

if TYPE_CHECKING:
    from models import Source

Json = dict[str, Any]


@verb("model")
def selfcheck(
    c: Context,
    board: str = "local",
    model: Sequence[str] = (),
    effort: str = "default",
    seed: str = "",
    json: str = "",
) -> None:
    """Measure a release against itself ten times, then against itself 5 % slower; exit 1 if that misleads."""
    order = drawn_seed(seed)
    from pilite.lab import boards, protocol, trial
    from pilite.lab import selfcheck as checking

    settings = protocol.chosen(effort, order)
    where, source = boards.load(board, ARTIFACTS), sources(model)[0]
    with boards.connect(where, ARTIFACTS) as connection:
        subject = trial.Subject(source.name, source.path)
        found = checking.check(where, connection, subject, ARTIFACTS, settings, say=print)
    show_table(f"{source.name} against itself", checking.table(found))
    if json:
        write_json(Path(json), checking.document(found))
    print(checking.verify(found))


@verb("model", "input_shape", "cpu")
def profile(
    c: Context,
    board: str = "local",
    model: Sequence[str] = (),
    input_shape: Sequence[str] = (),
    threads: str = "1,4",
    estimated: bool = False,
    cpu: Sequence[str] = (),
    json: str = "",
) -> None:
    """Show what every operator costs, computed by itself: time on a board, or cycles of `estimate`."""
    counts = whole_numbers(threads, "--threads")
    if cpu and not estimated:
        raise PiliteError(f"--cpu {cpu[0]}: a board has its own CPU; --cpu is for --estimated.")
    from pilite.lab import schema
    from pilite.lab.profile import flame
    from pilite.lab.profile import profile as profiling

    make = modelled if estimated else timed
    done = [one for source in sources(model, input_shape) for one in make(source, board, cpu, counts)]
    for one in done:
        show_table(f"{one['model']} on {one['board']}", profiling.table(one))
        print(profiling.summary(one))
        name = re.sub(r"[^\w.-]+", "-", f"{one['board']}-{one['cpu']}-{one['threads']}")
        path = ARTIFACTS / "profile" / str(one["model"]) / f"{name}.json"
        write_json(path, one)
        path.with_suffix(".svg").write_text(flame.svg(one), encoding="utf-8")
        path.with_suffix(".folded").write_text(flame.folded(one), encoding="utf-8")
        print(f"{path}, .svg, .folded")
    if json:
        write_json(Path(json), schema.checked({"schema": "pilite.profiles/1", "profiles": done}))


def timed(source: Source, board: str, cpu: Sequence[str], threads: Sequence[int]) -> list[Json]:
    """Profiles of one model on a board."""
    from pilite.lab import boards
    from pilite.lab.profile import profile as profiling

    where = boards.load(board, ARTIFACTS)
    artifact = alone(source, where.cpu)
    with boards.connect(where, ARTIFACTS) as connection:
        return [
            profiling.profile(where, connection, source.path, artifact, count, ARTIFACTS) for count in threads
        ]


def modelled(source: Source, board: str, cpu: Sequence[str], threads: Sequence[int]) -> list[Json]:
    """Profiles of one model by core models, under QEMU."""
    from pilite.lab.estimate import estimate as estimating
    from pilite.lab.profile import profile as profiling

    cores = list(cpu) or ["cortex-a72"]
    subjects = [estimating.Subject(source.name, source.path, core, alone(source, core)) for core in cores]
    return [
        profiling.of_estimate(row, source.path)
        for count in threads
        for row in estimating.estimate(subjects, (), ARTIFACTS, threads=count, say=print)
    ]


@verb("model", "board", "runtime")
def history(
    c: Context,
    board: Sequence[str] = (),
    model: Sequence[str] = (),
    runtime: Sequence[str] = (),
    last: str = "40",
    compare: str = "",
    export: str = "",
    import_: str = "",
    json: str = "",
) -> None:
    """List what was measured, oldest first; compare two runs; write or read the history as a file."""
    count = whole_number(last, "--last")
    from pilite.lab import exchange
    from pilite.lab import history as history_of

    with history_of.opened(ARTIFACTS) as connection:
        if import_:
            print(f"{import_}: {exchange.take(connection, Path(import_))} new run(s)")
        wanted = {"board": places(board), "model": of_files(model), "runtime": list(runtime)}
        history_of.expect_known(connection, **wanted)
        found = history_of.entries(connection, **wanted)
        if compare:
            compare_runs([history_of.document(connection, run) for run in two_names(compare)])
        else:
            show_table("History", history_of.table(found[-count:]))
            print(f"{min(count, len(found))} of {len(found)} rows{'' if found else ': `bench` makes some'}.")
        if export:
            print(f"{export}: {exchange.export(connection, Path(export))} run(s)")
    if json:
        write_json(Path(json), history_of.as_json(found))


def of_files(models: Sequence[str]) -> list[str]:
    """Names under which the history has models that are given by name or as files."""
    return [Path(model).stem if model.endswith(".tflite") else model for model in models]


def places(boards: Sequence[str]) -> list[str]:
    """Names of boards to look for in the history, which may be gone from boards/; `all`: any."""
    return [] if "all" in boards else list(boards)


def two_names(text: str) -> list[str]:
    """The two runs of `--compare A,B`. Raises PiliteError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) != 2:
        raise PiliteError(f"--compare {text}: two runs of `history` with a comma between them are needed.")
    return names


def compare_runs(documents: Sequence[dict[str, Any]]) -> None:
    """Show two results side by side, or why they must not be compared. Raises CheckFailed then."""
    from pilite.lab import honesty

    differences = honesty.differences(*documents)
    show_table("What differs", differences)
    if differences:
        raise CheckFailed(
            "these two runs cannot be compared: board, clocks, OS, versions or protocol differ."
        )
    show_table("Two runs", honesty.side_by_side(*documents))


@verb("model", "board")
def regressions(
    c: Context,
    board: Sequence[str] = (),
    model: Sequence[str] = (),
    threshold: str = "3",
    json: str = "",
) -> None:
    """Find where times changed for good in the history; exit 1 if pilite's last change is for the worse."""
    least = percent(threshold, "--threshold")
    from pilite.lab import changes
    from pilite.lab import history as history_of

    with history_of.opened(ARTIFACTS) as connection:
        wanted = {"board": places(board), "model": of_files(model)}
        history_of.expect_known(connection, **wanted)
        found = history_of.entries(connection, **wanted)
    changed = changes.changes(found, least)
    show_table("Changes", changes.table(changed))
    rows = changes.series(found)
    long = [row for row in rows if len(row) >= changes.LEAST]
    print(f"{len(long)} of {len(rows)} rows have the {changes.LEAST} comparable runs that a change needs.")
    if json:
        write_json(Path(json), history_of.as_json(found, changed))
    worse = [change for change in changed if change.is_regression]
    if worse:
        first = worse[0]
        where = f"{first.model} with {first.threads} thread(s) on {first.board}"
        raise CheckFailed(
            f"{len(worse)} regression(s), first: {where}: {first.size:+.1%} since {first.after}."
        )


@verb("bench")
def report(
    c: Context,
    bench: Sequence[str] = (),
    output: str = "",
    serve: bool = False,
    port: str = "8020",
) -> None:
    """Make one page of measurements that needs no network; or show the whole history in a browser."""
    number = whole_number(port, "--port")
    from pilite.lab.page import render
    from pilite.lab.page import serve as serving

    if serve:
        with serving.server(ARTIFACTS, number) as listening:
            print(f"http://127.0.0.1:{number}/ (Ctrl-C ends it)", flush=True)
            with suppress(KeyboardInterrupt):
                listening.serve_forever()
        return
    runs = [render.read(ARTIFACTS, name) for name in bench or [render.newest(ARTIFACTS)]]
    path = Path(output) if output else ARTIFACTS / "bench" / runs[-1].name / "report.html"
    render.write(runs, path)
    print(path)
