"""The verbs that measure; tasks.py offers them. Heavy imports are inside the task that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invoke.context import Context

from pilite.console import chosen, drawn_seed, percent, show_table, whole_number, whole_numbers, write_json
from pilite.errors import CheckFailed, PiliteError
from pilite.verbs import ARTIFACTS, RIVALS, sources, verb


@verb("model")
def bench(
    c: Context,
    board: str = "local",
    model: Sequence[str] = (),
    threads: str = "1,4",
    rival: str = ",".join(RIVALS),
    effort: str = "default",
    seed: str = "",
    json: str = "",
) -> None:
    """Measure deployed models beside their rivals, and check every output byte in the same run."""
    counts, order = whole_numbers(threads, "--threads"), drawn_seed(seed)
    from pilite.lab import bench as measuring
    from pilite.lab import boards, protocol, report, rivals, trial
    from pilite.lab import history as history_of

    settings = protocol.chosen(effort, order)
    raced = [rivals.RIVALS[name] for name in chosen(rival, list(rivals.RIVALS), "--rival")]
    where = boards.load(board, ARTIFACTS)
    subjects = [trial.Subject(source.name, source.path) for source in sources(model)]
    with boards.connect(where, ARTIFACTS) as connection:
        done = measuring.bench(
            where,
            connection,
            subjects,
            ARTIFACTS,
            threads=counts,
            rivals=raced,
            settings=settings,
            say=print,
        )
    show_table("Times", report.timing_rows(done.document))
    show_table("pilite against its rivals", report.ratio_rows(done.document))
    show_table("Outputs", report.check_rows(done.document))
    print("\n".join(report.remarks(done.document)))
    with history_of.opened(ARTIFACTS):
        pass  # the run is in it now
    print(f"{done.folder}/result.json, report.html, report.md")
    if json:
        write_json(Path(json), done.document)
    done.verify()


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
        found = history_of.entries(connection, board=board, model=model, runtime=runtime)
        if compare:
            compare_runs([history_of.document(connection, run) for run in two_names(compare)])
        else:
            show_table("History", history_of.table(found[-count:]))
        if export:
            print(f"{export}: {exchange.export(connection, Path(export))} run(s)")
    if json:
        write_json(Path(json), history_of.as_json(found))


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
        found = history_of.entries(connection, board=board, model=model)
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
            listening.serve_forever()
    runs = [render.read(ARTIFACTS, name) for name in bench or [render.newest(ARTIFACTS)]]
    path = Path(output) if output else ARTIFACTS / "bench" / runs[-1].name / "report.html"
    render.write(runs, path)
    print(path)
