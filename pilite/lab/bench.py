"""Race pilite against TFLite on a board, and compare every output byte in the same run."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt

from pilite.errors import CheckFailed
from pilite.lab import facts, honesty, oracle, protocol, readiness, remarks, report, schema, store, trial
from pilite.lab.boards import Board
from pilite.lab.connection import Connection, Heard
from pilite.lab.measure import PROTOCOL
from pilite.lab.page import render
from pilite.lab.page.view import Run
from pilite.lab.progress import Progress
from pilite.lab.protocol import Settings
from pilite.lab.rivals import DEFAULT_RIVALS, OURS, PILITE, Rival
from pilite.lab.rows import ratios_of, rows_of
from pilite.lab.trial import SEEDS, Subject, Trial

Array = npt.NDArray[Any]
Json = dict[str, Any]

SCHEMA = "pilite.bench/1"
SAMPLES = "pilite.samples/1"
_FINISHING = threading.Lock()  # boards are measured at once; oracles and plots are not made for threads
SCHEMA_FILE = Path(__file__).with_name("schemas") / "bench-1.json"


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
    rivals: Sequence[Rival] = DEFAULT_RIVALS,
    settings: Settings | None = None,
    force: bool = False,
    say: Callable[[object], None] = lambda what: None,
) -> Bench:
    """Measure the current releases of some models on a board and write artifacts/bench/<id>/.

    `settings` None: the default effort. A virtual board gets FUNCTIONAL always.
    `force`: also on a board that is throttled, hot or busy; the result is marked.
    Raises BoardError if a model is not deployed, the board fails, is another than its file says or not fit.
    Mismatches are in the result: see `Bench.verify`.
    """
    chosen = settings or protocol.DEFAULT
    chosen = chosen if board.timing_valid else protocol.FUNCTIONAL
    before = facts.facts(board, connection)
    remarks.expect_its_file(board, before)
    if not force:
        readiness.expect_fit(board, before)
    trials = {}
    for number, subject in enumerate(subjects, 1):
        racers = [PILITE, *rivals]
        names = ", ".join(racer.name for racer in racers)
        most = f"{chosen.effort}, at most {chosen.most_s:.0f} s"
        say(f"{subject.name} on {board.name}: {names} with {_list(threads)} thread(s), {most}")
        title = f"{subject.name}{f' ({number} of {len(subjects)})' if len(subjects) > 1 else ''}"
        heard = followed(Progress(title, chosen.sessions, chosen.most_s), say)
        trials[subject.name] = trial.run(
            board, connection, subject, racers, threads, chosen, artifacts, heard, say
        )
    after = facts.facts(board, connection)
    say(f"comparing and reporting {board.name}")
    with _FINISHING:
        checks = [row for subject in subjects for row in check(subject, trials[subject.name], artifacts)]
        document = assemble(board, before, after, trials, checks, chosen)
        return write(document, trials, artifacts)


def followed(progress: Progress, say: Callable[[object], None]) -> Heard:
    """What a race's lines are told to: says how far it is."""

    def heard(line: str) -> None:
        nonlocal progress
        progress = progress.after(line)
        say(progress)

    return heard


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
    rows = [row for name, result in trials.items() for row in rows_of(name, result)]
    scene = honesty.Scene(
        board.name,
        board.timing_valid,
        before,
        after,
        rows,
        checks,
        {name: result.measured["diary"] for name, result in trials.items()},
        {name: result.measured["complete"] for name, result in trials.items()},
        *governors(board, trials),
        board.max_celsius,
    )
    marks = honesty.marks(scene)
    failures = [row for name, result in trials.items() for row in failures_of(name, result)]
    shown = {name: result for name, result in trials.items() if not honesty.refused(marks, name)}
    about = {"name": board.name, "kind": board.kind, "cpu": board.cpu, "emulated": board.emulated}
    return {
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "board": {**about, **before, "governor": scene.governor, **later(before, after)},
        "timing_valid": not any(mark.severity == honesty.REFUSED and mark.model is None for mark in marks),
        "settings": dataclasses.asdict(settings),
        "seeds": {"order": settings.seed, "inputs": list(SEEDS), "bootstrap": 0},
        "versions": versions(trials),
        "samples": "samples.json",
        "rows": rows,
        "ratios": [row for name, result in shown.items() for row in ratios_of(name, result)],
        "checks": checks,
        "failures": failures,
        "marks": [dataclasses.asdict(mark) for mark in marks],
        "notes": [
            *(mark.what for mark in marks),
            *(note for result in trials.values() for note in result.notes),
            *map(describe, failures),
        ],
    }


def governors(board: Board, trials: dict[str, Trial]) -> tuple[str | None, str | None]:
    """The clock governor during the races, and why it was not set; an emulated board shows its host's."""
    measured = [] if board.emulated else [result.measured for result in trials.values()]
    names, notes = ({one[key] for one in measured if one[key]} for key in ("governor", "governor_note"))
    return ", ".join(sorted(names)) or None, "; ".join(sorted(notes)) or None


def later(before: Json, after: Json) -> Json:
    """What a measurement may change on a board."""
    return {
        "governor_before": before["governor"],
        "throttled_after": after["throttled"],
        "load1_after": after["load1"],
        "temperature_c_after": after["temperature_c"],
    }


def versions(trials: dict[str, Trial]) -> Json:
    """What measured: the protocol, Python on the board, scipy and numpy here."""
    pythons = sorted({result.measured["python"] for result in trials.values()})
    here = {name: metadata.version(name) for name in ("numpy", "scipy")}
    return {"protocol": PROTOCOL, "python": ", ".join(pythons), **here}


def failures_of(model: str, result: Trial) -> list[Json]:
    """Every (runtime, threads) that did not run to the end."""
    return [
        {key: {"model": model, **failure}[key] for key in ("model", "runtime", "threads", "reason")}
        for failure in result.measured["failures"]
    ]


def describe(failure: Json) -> str:
    return "{runtime} with {threads} thread(s) on {model}: {reason}".format(**failure)


def validate(document: Json) -> None:
    """Raises jsonschema.ValidationError; a result that is not what its schema says is our own mistake."""
    jsonschema.validate(document, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def write(document: Json, trials: dict[str, Trial], artifacts: Path) -> Bench:
    """A folder with result.json, samples.json and reports; it appears whole or not at all."""
    validate(document)
    samples = {name: samples_of(result) for name, result in trials.items()}
    raw = schema.checked({"schema": SAMPLES, "models": samples})

    def fill(folder: Path) -> None:
        (folder / "samples.json").write_text(json.dumps(raw) + "\n")
        (folder / "result.json").write_text(json.dumps(document, indent=2) + "\n")
        report.write(document, samples, folder)
        render.write([Run(folder.name, document, samples)], folder / "report.html")

    return Bench(store.add(artifacts / "bench", document, fill), document)


def samples_of(result: Trial) -> Json:
    """Every run in ms by "runtime/threads", [round][run]; rounds of each session; the diary of the rounds."""
    rows = {f"{row['runtime']}/{row['threads']}": row for row in result.measured["rows"]}
    return {
        "ms": {name: row["samples"] for name, row in rows.items()},
        "sessions": {name: row["sessions"] for name, row in rows.items()},
        "diary": result.measured["diary"],
    }
