"""python -m pilite.lab.contention ARTIFACT: what more threads than CPUs cost, and a process that is busy too.

Everything runs on two CPUs of this machine, in turns, so that a slow phase hits all rows. Exit 1 beyond the
limits. A time needs a machine that is otherwise idle: run it there, never in CI.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.loader import Arch, build_loader

CPUS = 2
BUSY = "while True: pass"


@dataclass(frozen=True)
class Way:
    """How the runner is started, and how many times the plain way's time it may take."""

    threads: int
    busy: bool
    limit: float


PLAIN = "2 threads"
WAYS: Mapping[str, Way] = {
    PLAIN: Way(2, False, 1.0),
    "4 threads": Way(4, False, 1.15),
    "2 threads, a busy process": Way(2, True, 2.0),
    "4 threads, a busy process": Way(4, True, 2.0),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pilite.lab.contention", description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=100, help="inferences of a turn; their median counts")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args()
    try:
        found = measure(options.artifact, options.rounds, options.runs, options.artifacts)
    except PiliteError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print("\n".join(lines(found)))
    return int(any(ratio(found, name) > way.limit for name, way in WAYS.items()))


def measure(artifact: Path, rounds: int, runs: int, artifacts: Path) -> dict[str, list[float]]:
    """Median milliseconds of every turn, by way.

    Raises:
        PiliteError: there are fewer than two CPUs, or there is no `artifact`.
        CheckFailed: the runner failed.
    """
    here = sorted(os.sched_getaffinity(0))
    if len(here) < CPUS:
        raise PiliteError(f"contention needs {CPUS} CPUs and this process may use {len(here)}.")
    if not artifact.is_file():
        raise PiliteError(f"{artifact}: no such file. `build` prints the path of what it made.")
    runner = build_loader(cast(Arch, platform.machine()), artifacts).runner
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    os.sched_setaffinity(0, here[:CPUS])
    try:
        for _ in range(rounds):
            for name, way in WAYS.items():
                with busy() if way.busy else nullcontext():
                    found[name].append(turn(runner, artifact, way.threads, runs))
    finally:
        os.sched_setaffinity(0, here)
    return found


@contextmanager
def busy() -> Iterator[None]:
    """Another process that never sleeps, on the same CPUs."""
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def turn(runner: Path, artifact: Path, threads: int, runs: int) -> float:
    """Median milliseconds of some inferences in one process. Raises CheckFailed."""
    command = [str(runner), str(artifact), "--random", "0", "--runs", str(runs), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"median (\S+) ms", done.stdout)
    if done.returncode or not found:
        raise CheckFailed(f"{artifact}: pilite-run failed with code {done.returncode}: {done.stderr.strip()}")
    return float(found[1])


def ratio(found: Mapping[str, list[float]], name: str) -> float:
    """The median over the rounds of a way's time by the plain way's of the same round."""
    pairs = zip(found[name], found[PLAIN], strict=True)
    return statistics.median(time / plain for time, plain in pairs)


def lines(found: Mapping[str, list[float]]) -> list[str]:
    """One line per way."""
    return [
        f"{name:26} {statistics.median(found[name]):9.3f} ms  {ratio(found, name):5.2f} times, "
        f"at most {way.limit:.2f}"
        for name, way in WAYS.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
