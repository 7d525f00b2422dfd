"""Measure one deployed model on one board: prepare the job, run measure.py there, bring everything back."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.errors import BoardError, PiliteError
from pilite.lab import artifact, governor, inputs, wheels
from pilite.lab.artifact import Artifact
from pilite.lab.boards import Board
from pilite.lab.connection import Connection, Heard
from pilite.lab.deploy import place_of
from pilite.lab.measure import PROTOCOL
from pilite.lab.protocol import Settings
from pilite.lab.release import Place
from pilite.lab.rivals import OURS, RIVALS, Rival

Array = npt.NDArray[Any]
Json = dict[str, Any]

SEEDS = (1, 2, 3)  # of the inputs that are compared with the oracle; times are taken with the first


# A folder of its own; one that a killed measurement left behind goes after a day.
SCRATCH = 'find "$1" -maxdepth 1 -name "bench.*" -mmin +1440 -exec rm -rf {} + && mktemp -d "$1/bench.XXXXXX"'
SCRIPTS = ("measure.py", "worker.py")  # what runs on the board
SILENCE_S = 60.0  # without a sign of life from here after which measure.py ends; several ssh.BEAT


@dataclass(frozen=True)
class Subject:
    """A model by name, and the .tflite file that it is compiled from.

    `today`: the build_id that `build` would give a deployed artifact now; None: nobody knows.
    """

    name: str
    tflite: Path
    today: Callable[[Artifact], str] | None = None


@dataclass(frozen=True)
class Trial:
    """What one model gave: measure.py's document, pilite's outputs by thread count and set of inputs."""

    built: Artifact
    sets: Sequence[Sequence[Array]]
    measured: Json
    outputs: dict[int, list[list[Array]]]
    notes: tuple[str, ...]


def run(
    board: Board,
    connection: Connection,
    subject: Subject,
    racers: Sequence[Rival],
    threads: Sequence[int],
    settings: Settings,
    artifacts: Path,
    heard: Heard | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Trial:
    """Measure the current release of a model. `heard` is told every line of progress (see progress.py).

    `say`: told before the race what a reader must know.
    Raises BoardError if there is none, or the board fails.
    """
    place = place_of(board, connection, subject.name, artifacts)
    current = current_release(board, place, subject.name)
    built = deployed(place, current)
    check_source(board, built, subject)
    aged = outdated(board, built, subject)
    for note in aged:
        say(note)
    sets = [inputs.random_inputs(built.inputs, seed) for seed in SEEDS]
    site, usable, notes = packages(board, connection, [racer.name for racer in racers], artifacts)
    scratch = connection.check(["sh", "-c", SCRATCH, "bench", place.folder]).strip()
    try:
        job = {
            "protocol": PROTOCOL,
            "subject": {
                "release": f"{place.folder}/releases/{current}",
                "tflite": send_model(board, connection, subject),
                "inputs": send_inputs(connection, sets, scratch),
            },
            "rows": rows([racer for racer in racers if racer.name in usable], threads, scratch),
            "governor": list(governor.HOLD),
            "silence_s": SILENCE_S,
            **vars(settings),
        }
        measured = execute(board, connection, job, scratch, site, heard)
        outputs = fetch_outputs(connection, measured, len(sets), len(built.outputs))
    finally:
        with suppress(BoardError):  # a board that is gone must not hide why
            connection.run(["rm", "-rf", scratch])
    return Trial(built, sets, measured, outputs, (*aged, *notes))


def current_release(board: Board, place: Place, model: str) -> str:
    result = place.connection.run(["readlink", f"{place.folder}/current"])
    if result.code:
        raise BoardError(
            f"{board.name}: {model} is not deployed there. Deploy it first: "
            f"python3 run.py deploy --model {model} --board {board.name}"
        )
    return result.out.strip().removeprefix("releases/")


def deployed(place: Place, current: str) -> Artifact:
    """The artifact that is on the board, as its loader reads it."""
    path = place.path(current, "model.so")
    text = place.connection.check([place.path(current, "pilite-run"), path, "--info"])
    return artifact.of_manifest(Path(path), json.loads(text))


def check_source(board: Board, built: Artifact, subject: Subject) -> None:
    """Rivals must get the model that was compiled. Raises PiliteError if the file has changed since."""
    if hashlib.sha256(subject.tflite.read_bytes()).hexdigest() != built.source_sha256:
        raise PiliteError(
            f"{board.name}: the deployed {subject.name} was compiled from another file than "
            f"{subject.tflite}. Build and deploy it again: "
            f"python3 run.py build --model {subject.name} --board {board.name}, then deploy"
        )


def outdated(board: Board, built: Artifact, subject: Subject) -> tuple[str, ...]:
    """A note if the compiler here would make another artifact than the one that is deployed and measured."""
    today = built.build_id if subject.today is None else subject.today(built)
    if today == built.build_id:
        return ()
    return (
        f"{built.model} on {board.name}: the deployed build {built.build_id[:12]} is not what `build` makes "
        f"today, {today[:12]}; `build` and `deploy` renew it",
    )


def packages(
    board: Board, connection: Connection, runtimes: Sequence[str], artifacts: Path
) -> tuple[str, list[str], tuple[str, ...]]:
    """A PYTHONPATH for the board, the runtimes that can be tried there, and why others cannot.

    The local board uses this environment.
    """
    if board.kind == "local":
        return "", list(runtimes), ()
    target, names, usable, notes = wheels.target_of(board, connection), [wheels.NUMPY], [], []
    for runtime in runtimes:
        try:
            for package in RIVALS[runtime].sent if runtime in RIVALS else ():
                wheels.fetch(package, target, artifacts)
                names.append(package)
            usable.append(runtime)
        except BoardError as problem:
            notes.append(f"{runtime}: {problem}")
    return wheels.site(board, connection, list(dict.fromkeys(names)), artifacts), usable, tuple(notes)


def send_model(board: Board, connection: Connection, subject: Subject) -> str:
    """Put the .tflite where rivals find it; once per content."""
    digest = hashlib.sha256(subject.tflite.read_bytes()).hexdigest()
    path = f"{board.root}/tflite/{digest}.tflite"
    if connection.run(["test", "-f", path]).code:
        connection.check(["mkdir", "-p", f"{board.root}/tflite"])
        connection.put(subject.tflite, f"{path}.new")
        connection.check(["mv", "-T", f"{path}.new", path])
    return path


def send_inputs(connection: Connection, sets: Sequence[Sequence[Array]], scratch: str) -> list[list[str]]:
    """Put every input array on the board; their paths, by set."""
    paths = [[f"{scratch}/in.{s}.{i}.npy" for i in range(len(arrays))] for s, arrays in enumerate(sets)]
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "array.npy"
        for names, arrays in zip(paths, sets, strict=True):
            for name, array in zip(names, arrays, strict=True):
                np.save(local, array)
                connection.put(local, name)
    return paths


def rows(racers: Sequence[Rival], threads: Sequence[int], scratch: str) -> list[Json]:
    """What is raced: every runtime with every thread count; pilite also shows its outputs."""
    return [
        {"runtime": racer.name, "threads": count, **racer.entry}
        | ({"outputs": f"{scratch}/out.{count}.npz"} if racer.name == OURS else {})
        for racer in racers
        for count in threads
    ]


def execute(
    board: Board, connection: Connection, job: Json, scratch: str, site: str, heard: Heard | None
) -> Json:
    """Run measure.py on the board; its document."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "job.json"
        local.write_text(json.dumps(job))
        connection.put(local, f"{scratch}/job.json")
        for name in SCRIPTS:
            connection.put(Path(__file__).with_name(name), f"{scratch}/{name}")
        command = [board.python, f"{scratch}/measure.py", f"{scratch}/job.json", f"{scratch}/result.json"]
        cache = {"PYTHONPYCACHEPREFIX": f"{board.root}/pycache"}  # nothing is written into the release
        env = cache | ({"PYTHONPATH": site} if site else {})
        # --no-fork: measure.py is the child of whoever holds the connection, and sees it go.
        lock = ["flock", "--nonblock", "--no-fork", "--conflict-exit-code", str(governor.LOCKED)]
        lock.append(governor.lock_of(board))
        words, limit = [*lock, *command], job["total_s"]
        done = governor.alone(board.name, lambda: connection.run(words, timeout=limit, env=env, heard=heard))
        if done.code:
            raise BoardError(f"{connection.where}: measure.py ended with {done.code}: {done.tail}")
        connection.get(f"{scratch}/result.json", local)
        document: Json = json.loads(local.read_text())
        return document


def fetch_outputs(
    connection: Connection, measured: Json, sets: int, outputs: int
) -> dict[int, list[list[Array]]]:
    """pilite's outputs: thread count -> [set][output]."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "outputs.npz"
        for row in measured["rows"]:
            if "outputs" in row:
                connection.get(row["outputs"], local)
                with np.load(local, allow_pickle=False) as arrays:
                    found[row["threads"]] = [
                        [arrays[f"{s}.{i}"] for i in range(outputs)] for s in range(sets)
                    ]
    return found
