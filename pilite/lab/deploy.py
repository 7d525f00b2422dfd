"""Put a compiled model on a board: verified there, tried there, switched to in one step; and back again."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import artifact, boards, elf, inputs, loader, release, signing
from pilite.lab.artifact import Artifact
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.fleet import Outcome
from pilite.lab.release import Place, Release

Array = npt.NDArray[Any]

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "pilite.deploy/1"
HEALTH_SEED = 0
HEALTH_SECONDS = 300.0  # one run; an emulated board is up to a hundred times slower than a real one


@dataclass(frozen=True)
class Deployed:
    """What is the current release of a model on a board now, and what it took."""

    board: str
    model: str
    release: str
    state: Literal["deployed", "unchanged", "rolled back"]
    sent_bytes: int = 0
    seconds: float = 0.0  # all of it: verified, tried, switched

    def row(self) -> dict[str, object]:
        return {
            "board": self.board,
            "model": self.model,
            "release": self.release,
            "state": self.state,
            "sent": f"{self.sent_bytes / 1e6:.1f} MB",
            "seconds": f"{self.seconds:.1f}",
        }


def document(outcome: Outcome[list[Deployed]]) -> dict[str, Any]:
    """As in schemas/deploy-1.json."""
    return {
        "schema": SCHEMA,
        "rows": [asdict(one) for done in outcome.done.values() for one in done],
        "failures": outcome.failure_rows(),
    }


def total(done: Sequence[Deployed], seconds: float) -> str:
    """What all boards together got, and how fast; `seconds` went by from the first to the last."""
    boards_, sent = len({one.board for one in done}), sum(one.sent_bytes for one in done) / 1e6
    rate = f", {sent / seconds:.2f} MB/s together" if sent else ""
    return f"{boards_} board{'s' if boards_ != 1 else ''}: {sent:.1f} MB sent in {seconds:.1f} s{rate}"


@dataclass(frozen=True)
class Health:
    """What a new release has to compute before it becomes current; `expected` None: any answer will do."""

    inputs: Sequence[Array]
    expected: Sequence[Array] | None = None


def deploy(
    board: Board,
    connection: Connection,
    model: str,
    artifacts: Path,
    *,
    numerics: str = "ref",
    expected: Sequence[Array] | None = None,
    keep: int = release.KEEP,
    say: Callable[[str], None] = lambda text: None,
) -> Deployed:
    """Make artifacts/<model>/<cpu>/<numerics>/model.so the current release of `model` on a board.

    `expected`: the outputs for `inputs.random_inputs(artifact.inputs, HEALTH_SEED)`; the release must give
    these bytes. `say` is told what happens.
    Raises PiliteError if it is not built, BoardError if the board refuses it, CheckFailed if it computes
    something else; the release that was current stays so.
    """
    built = built_artifact(board, model, artifacts, numerics)
    health = Health(inputs.random_inputs(built.inputs, HEALTH_SEED), expected)
    place, new = place_of(board, connection, model, artifacts), release_of(built, artifacts)
    keys, start = signing.own_keys(artifacts / "keys"), time.monotonic()
    if boards.KINDS[board.kind].ours:
        release.trust(connection, board.root, keys.allowed)
    with release.turn(place, artifacts):
        state, sent = install(place, new, health, keys.key, keep, say)
    return Deployed(board.name, model, new.id, state, sent, time.monotonic() - start)


def built_artifact(board: Board, model: str, artifacts: Path, numerics: str = "ref") -> Artifact:
    """The artifact of a model for a board's CPU. Raises PiliteError if it is not built."""
    path = artifact.place(artifacts, model, board.cpu, numerics)
    if not path.is_file():
        raise PiliteError(
            f"{model} is not built for {board.name} ({board.cpu}, {numerics}): no {path}. "
            f"Build it first: python3 run.py build --model {model} --board {board.name}"
        )
    return artifact.read(path)


def place_of(board: Board, connection: Connection, model: str, artifacts: Path) -> Place:
    """The folder of a model on a board. Raises PiliteError if the model's name cannot name a folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", model):
        raise PiliteError(f"'{model}' cannot name a folder on a board: letters, digits and ._+- only.")
    return Place(connection, f"{board.root}/{model}", release.owner_of(artifacts))


def release_of(built: Artifact, artifacts: Path) -> Release:
    """Everything that a board needs to run an artifact. Raises BoardError for what no board could load."""
    files = loader.build_loader(cast(loader.Arch, built.arch), artifacts)
    for path in (built.path, files.library, files.runner):
        elf.check(path, built.arch)
    return release.of(
        {
            "model.so": built.path,
            "libpilite.so": files.library,
            "pilite-run": files.runner,
            "pilite.py": ROOT / "loader" / "pilite.py",
        }
    )


def install(
    place: Place, new: Release, health: Health, key: Path, keep: int, say: Callable[[str], None]
) -> tuple[Literal["deployed", "unchanged"], int]:
    """Upload, verify, try, switch; the bytes sent. The same release again is only verified there."""
    say("looking")
    before = release.begin(place, new.id)
    if before.intact and before.current == new.id:
        release.discard(place, new.id)
        return "unchanged", 0
    sent = 0
    if not before.intact:
        sent = release.upload(place, new, before, key, counter(say))
        say("verifying")
        release.stage(place, new.id)
    say("trying")
    try:
        check_health(place, new.id, health)
    except (BoardError, CheckFailed):
        with suppress(BoardError):
            release.discard(place, new.id)
        raise
    say("switching")
    release.switch(place, new.id, keep)
    return "deployed", sent


def counter(say: Callable[[str], None]) -> release.Progress:
    """Adds up what was sent, for `say`."""
    sent = 0

    def count(more: int) -> None:
        nonlocal sent
        sent += more
        say(f"sent {sent / 1e6:.1f} MB")

    return count


@dataclass(frozen=True)
class Change:
    """What a deploy would do to one file: `bytes` of it are in the new release."""

    board: str
    model: str
    release: str
    file: str
    change: Literal["same", "changed", "new", "gone"]
    bytes: int


def preview(
    board: Board, connection: Connection, model: str, artifacts: Path, numerics: str = "ref"
) -> list[Change]:
    """What `deploy` would change on a board, file by file; nothing is changed there."""
    built = built_artifact(board, model, artifacts, numerics)
    new = release_of(built, artifacts)
    old = release.look(place_of(board, connection, model, artifacts), new.id).has
    return [
        Change(
            board.name,
            model,
            new.id,
            name,
            change_of(old.get(name), new.digests.get(name)),
            new.files[name].stat().st_size if name in new.files else 0,
        )
        for name in sorted({*old, *new.digests})
    ]


def change_of(old: str | None, new: str | None) -> Literal["same", "changed", "new", "gone"]:
    if old is None:
        return "new"
    return "gone" if new is None else "same" if old == new else "changed"


def rollback(board: Board, connection: Connection, model: str, artifacts: Path) -> Deployed:
    """Go back to the release before. Raises BoardError if there is none."""
    place, start = place_of(board, connection, model, artifacts), time.monotonic()
    with release.turn(place, artifacts):
        old = release.rollback(place)
    if old is None:
        raise BoardError(f"{board.name}: {model} has no previous release to go back to.")
    return Deployed(board.name, model, old, "rolled back", seconds=time.monotonic() - start)


def check_health(place: Place, release_id: str, health: Health) -> None:
    """Run a staged release on the board. Raises BoardError if it does not run, CheckFailed if it is wrong."""
    scratch = f"{place.folder}/health"
    place.connection.check(["sh", "-c", 'rm -rf "$1" && mkdir "$1"', "health", scratch])
    try:
        outputs = _run(place, release_id, health.inputs, scratch, len(health.expected or ()))
    finally:
        with suppress(BoardError):  # a board that is gone must not hide why
            place.connection.run(["rm", "-rf", scratch])
    for index, (got, want) in enumerate(zip(outputs, health.expected or (), strict=False)):
        _compare(f"{place.connection.where}: release {release_id}: output {index}", got, want)


def _run(place: Place, release_id: str, arrays: Sequence[Array], scratch: str, outputs: int) -> list[Array]:
    """One run of pilite-run on the board; the first `outputs` outputs."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder)
        command = [place.path(release_id, "pilite-run"), place.path(release_id, "model.so")]
        for index, array in enumerate(arrays):
            np.save(local / f"in.{index}.npy", array)
            place.connection.put(local / f"in.{index}.npy", f"{scratch}/in.{index}.npy")
            command += ["--input", f"{scratch}/in.{index}.npy"]
        result = place.connection.run([*command, "--output", f"{scratch}/out"], timeout=HEALTH_SECONDS)
        if result.code:
            raise BoardError(
                f"{place.connection.where}: the new release does not run there (exit code {result.code}): "
                f"{result.tail} The current release stays."
            )
        for index in range(outputs):
            place.connection.get(f"{scratch}/out.{index}.npy", local / f"out.{index}.npy")
        return [np.load(local / f"out.{index}.npy", allow_pickle=False) for index in range(outputs)]


def _compare(what: str, got: Array, want: Array) -> None:
    if got.dtype != want.dtype or got.shape != want.shape:
        raise CheckFailed(
            f"{what} is {got.dtype} {got.shape}, not {want.dtype} {want.shape}. The current release stays."
        )
    different = int(np.count_nonzero(got != want))
    if different:
        raise CheckFailed(
            f"{what}: {different} of {want.size} elements differ from the expected ones. "
            f"The current release stays."
        )
