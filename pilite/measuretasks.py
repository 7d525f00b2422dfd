"""The verbs that measure; tasks.py offers them. Heavy imports are inside the task that needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invoke.context import Context

from pilite.console import chosen, drawn_seed, show_table, whole_numbers, write_json
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
    print(f"{done.folder}/result.json")
    if json:
        write_json(Path(json), done.document)
    done.verify()
