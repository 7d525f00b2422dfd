"""Times of every stage of artifacts with marks, on a board: in turn, repeated, the shortest of a process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from pilite.errors import BoardError
from pilite.lab import governor
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.loader import Arch, build_loader
from pilite.zig import TRIPLES, compiler_command, run_zig

SOURCE = Path(__file__).with_name("stagetimes.c")
RUNS = 10  # inferences of one process
SECONDS = 600.0

Times = dict[int, float]  # by stage, from 1; nanoseconds


def measure(
    board: Board,
    connection: Connection,
    paths: Sequence[Path],
    artifacts: Path,
    *,
    rounds: int = 5,
    say: Callable[[str], None] = lambda text: None,
) -> list[Times]:
    """The median over `rounds` of each stage's shortest time; a round runs every artifact once, 1 thread.

    Raises:
        BoardError: the board does not answer, or an artifact fails there.
    """
    folder = f"{board.root}/stagetimes"
    connection.check(["mkdir", "-p", folder])
    try:
        places = _send(board, connection, paths, artifacts, folder)
        seen: list[list[Times]] = [[] for _ in paths]
        notes = set[str]()
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds} on {board.name}: {len(paths)} artifacts")
            for times, place in zip(seen, places, strict=True):
                done = _run(board, connection, folder, place)
                times.append(_times(connection, done.out))
                notes |= {done.note} if done.note else set()
    finally:
        connection.run(["rm", "-rf", folder])
    for note in sorted(notes):
        say(f"{board.name}: the clock governor was {note}")
    return [_median(times) for times in seen]


def _send(
    board: Board, connection: Connection, paths: Sequence[Path], artifacts: Path, folder: str
) -> list[str]:
    arch = cast(Arch, board.arch)
    connection.put(build_loader(arch, artifacts).runner, f"{folder}/pilite-run")
    connection.put(build(arch, artifacts), f"{folder}/stagetimes.so")
    places = [f"{folder}/{number}.so" for number in range(len(paths))]
    for path, place in zip(paths, places, strict=True):
        connection.put(path, place)
    return places


def build(arch: Arch, artifacts: Path) -> Path:
    """The library that is preloaded."""
    made = artifacts.resolve() / "loader" / f"stagetimes-{arch}.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    options = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")
    command = compiler_command("cc", TRIPLES[arch])
    run_zig([*command, *options, "-o", str(made), str(SOURCE)], SOURCE.parent)
    return made


def _run(board: Board, connection: Connection, folder: str, place: str) -> governor.Held:
    command = ["env", f"LD_PRELOAD={folder}/stagetimes.so", f"{folder}/pilite-run", place]
    return governor.held(board, connection, [*command, "--random", "0", "--runs", str(RUNS)], SECONDS)


def _times(connection: Connection, out: str) -> Times:
    lines = [line.split() for line in out.splitlines() if line.startswith("stage ")]
    if not lines:
        raise BoardError(f"{connection.where}: no stage was timed; the artifact was built without marks.")
    return {int(stage): float(nanoseconds) for _, stage, nanoseconds in lines}


def _median(rounds: Sequence[Times]) -> Times:
    return {stage: statistics.median(times[stage] for times in rounds) for stage in rounds[0]}
