"""Race pilite against TFLite on a board, and compare every output byte in the same run."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt

from pilite.errors import CheckFailed
from pilite.lab import facts, oracle, report, stats, trial
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.trial import FUNCTIONAL, SEEDS, TIMED, Settings, Subject, Trial

Array = npt.NDArray[Any]
Json = dict[str, Any]

SCHEMA = "pilite.bench/1"
SCHEMA_FILE = Path(__file__).with_name("schemas") / "bench-1.json"
OURS = "pilite"
RIVALS = ("tflite", "litert")
BUSY = 0.3  # load per CPU from which times must be doubted


@dataclass(frozen=True)
class Bench:
    """A finished measurement: its folder with result.json, samples.json, report.md; and the result itself."""

    folder: Path
    document: Json

    def verify(self) -> None:
        """Raises CheckFailed if pilite did not run, or one of its outputs was not the oracle's."""
        wrong = [check for check in self.document["checks"] if check["mismatches"]]
        if wrong:
            first = wrong[0]
            raise CheckFailed(
                f"{first['model']} with {first['threads']} thread(s): {first['mismatches']} of "
                f"{first['elements']} output elements are not those of {first['against']}. "
                f"{self.folder}/result.json has all."
            )
        failed = [failure for failure in self.document["failures"] if failure["runtime"] == OURS]
        if failed:
            raise CheckFailed(f"{describe(failed[0])}. {self.folder}/result.json has all.")


def bench(
    board: Board,
    connection: Connection,
    subjects: Sequence[Subject],
    artifacts: Path,
    *,
    threads: Sequence[int] = (1, 4),
    rivals: Sequence[str] = RIVALS,
    settings: Settings | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure the current releases of some models on a board and write artifacts/bench/<id>/.

    `settings` None: TIMED on a board whose times count, FUNCTIONAL on a virtual one.
    Raises BoardError if a model is not deployed or the board fails. Mismatches are in the result: see
    `Bench.verify`.
    """
    chosen = settings or (TIMED if board.timing_valid else FUNCTIONAL)
    before = facts.facts(board, connection)
    trials = {}
    for subject in subjects:
        say(f"{subject.name} on {board.name}: {', '.join([OURS, *rivals])} with {_list(threads)} threads")
        trials[subject.name] = trial.run(
            board, connection, subject, [OURS, *rivals], threads, chosen, artifacts
        )
    after = facts.facts(board, connection)
    checks = [row for subject in subjects for row in check(subject, trials[subject.name], artifacts)]
    document = assemble(board, before, after, trials, checks, chosen)
    return write(document, trials, artifacts)


def _list(threads: Sequence[int]) -> str:
    return " and ".join(map(str, threads))


def check(subject: Subject, result: Trial, artifacts: Path) -> list[Json]:
    """Compare pilite's outputs with the oracle's: one row per thread count."""
    judge = oracle.promised(result.built.numerics, result.built.fully_connected, result.built.cpu)
    wanted = [oracle.expected(judge, subject.tflite, arrays, artifacts) for arrays in result.sets]
    return [
        {
            "model": subject.name,
            "against": judge.name,
            "threads": threads,
            "seeds": list(SEEDS),
            "elements": sum(array.size for arrays in wanted for array in arrays),
            "mismatches": sum(map(mismatches, got, wanted)),
        }
        for threads, got in result.outputs.items()
    ]


def mismatches(got: Sequence[Array], wanted: Sequence[Array]) -> int:
    """How many elements differ; an output of another dtype or shape differs in all."""
    return sum(
        int(np.count_nonzero(a != b)) if a.dtype == b.dtype and a.shape == b.shape else b.size
        for a, b in zip(got, wanted, strict=True)
    )


def assemble(
    board: Board, before: Json, after: Json, trials: dict[str, Trial], checks: list[Json], settings: Settings
) -> Json:
    """The result as in schemas/bench-1.json."""
    valid = board.timing_valid and not throttled(before, after)
    failures = [row for name, result in trials.items() for row in failures_of(name, result)]
    ratios = [row for name, result in trials.items() for row in ratios_of(name, result)]
    about = {"name": board.name, "kind": board.kind, "cpu": board.cpu, "emulated": board.emulated}
    return {
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "board": {**about, **before, "throttled_after": after["throttled"], "load1_after": after["load1"]},
        "timing_valid": valid,
        "settings": dataclasses.asdict(settings),
        "samples": "samples.json",
        "rows": [row for name, result in trials.items() for row in rows_of(name, result)],
        "ratios": ratios if valid else [],
        "checks": checks,
        "failures": failures,
        "notes": [
            *notes_on(board, before, after),
            *(note for result in trials.values() for note in result.notes),
            *map(describe, failures),
        ],
    }


def rows_of(model: str, result: Trial) -> list[Json]:
    """One row per (runtime, threads) that ran to the end."""
    return [
        {
            "model": model,
            "numerics": result.built.numerics,
            "runtime": row["runtime"],
            "runtime_version": row["version"] or f"build {result.built.build_id[:12]}",
            "threads": row["threads"],
            **stats.summary(row["samples"]),
            "rss_mb": row["rss_mb"],
            "load_ms": row["load_ms"],
            "first_ms": row["first_ms"],
            "oversubscribed": oversubscribed(result, row["threads"]),
            "cpus": row["cpus"],
        }
        for row in result.measured["rows"]
    ]


def oversubscribed(result: Trial, threads: int) -> bool:
    return threads > len(result.measured["allowed_cpus"])


def ratios_of(model: str, result: Trial) -> list[Json]:
    """pilite against each rival with the same number of threads."""
    samples = {(row["runtime"], row["threads"]): row["samples"] for row in result.measured["rows"]}
    ratios = []
    for (runtime, threads), theirs in samples.items():
        ours = samples.get((OURS, threads))
        if runtime == OURS or ours is None:
            continue
        speedup, interval = stats.speedup(ours, theirs)
        ratios.append(
            {
                "model": model,
                "threads": threads,
                "rival": runtime,
                "speedup": speedup,
                "ci95": list(interval),
                "oversubscribed": oversubscribed(result, threads),
            }
        )
    return ratios


def failures_of(model: str, result: Trial) -> list[Json]:
    """Every (runtime, threads) that did not run to the end."""
    return [
        {key: {"model": model, **failure}[key] for key in ("model", "runtime", "threads", "reason")}
        for failure in result.measured["failures"]
    ]


def describe(failure: Json) -> str:
    return "{runtime} with {threads} thread(s) on {model}: {reason}".format(**failure)


def notes_on(board: Board, before: Json, after: Json) -> list[str]:
    """What the board did that changes how its times are to be read."""
    notes = []
    if throttled(before, after):
        notes.append(
            f"{board.name} was throttled (get_throttled {after['throttled']}): its times do not count"
        )
    if before["load1"] is not None and before["load1"] > BUSY * (before["cores"] or 1):
        notes.append(
            f"{board.name} was busy before the measurement: load {before['load1']:.1f} "
            f"on {before['cores']} CPUs"
        )
    return notes


def throttled(before: Json, after: Json) -> bool:
    return facts.throttled_now(before) or facts.throttled_now(after)


def validate(document: Json) -> None:
    """Raises jsonschema.ValidationError; a result that is not what its schema says is our own mistake."""
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def write(document: Json, trials: dict[str, Trial], artifacts: Path) -> Bench:
    """result.json, samples.json, report.md and, where times count, a plot."""
    validate(document)
    folder = new_folder(artifacts / "bench", document)
    samples = {name: samples_of(result) for name, result in trials.items()}
    (folder / "samples.json").write_text(json.dumps(samples, indent=1) + "\n")
    (folder / "result.json").write_text(json.dumps(document, indent=2) + "\n")
    report.write(document, samples, folder)
    return Bench(folder, document)


def new_folder(parent: Path, document: Json) -> Path:
    """A folder of its own for each measurement: <time>-<board>, then -2, -3 ..."""
    stamp = document["time"].replace("-", "").replace(":", "")
    for number in range(1, 1000):
        folder = parent / f"{stamp}-{document['board']['name']}{f'-{number}' if number > 1 else ''}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise AssertionError("a thousand measurements in one second")


def samples_of(result: Trial) -> Json:
    """Every run in ms by "runtime/threads", [round][run], and the order of turns."""
    runs = {f"{row['runtime']}/{row['threads']}": row["samples"] for row in result.measured["rows"]}
    return {"ms": runs, "orders": result.measured["orders"]}
