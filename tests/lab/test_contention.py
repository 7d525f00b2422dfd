"""The command that measures threads that outnumber CPUs. How long anything takes is not tested here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pilite.compiler import tflite
from pilite.errors import CheckFailed, PiliteError
from pilite.lab import contention
from tests import batch, native
from tests.chain_nets import CHAINS
from tests.few_ops import made

TIMES = {
    contention.PLAIN: [1.0, 2.0, 4.0],
    "4 threads": [1.1, 2.4, 4.0],
    "2 threads, a busy process": [9.0, 3.0, 4.4],
    "4 threads, a busy process": [1.0, 2.0, 4.0],
}


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    assert contention.ratio(TIMES, "4 threads") == pytest.approx(1.1)
    assert contention.ratio(TIMES, "2 threads, a busy process") == pytest.approx(1.5)


def test_every_way_has_a_line_with_its_limit() -> None:
    assert contention.lines(TIMES)[1] == "4 threads                      2.400 ms   1.10 times, at most 1.15"


def test_every_way_is_measured_in_every_round(tmp_path: Path) -> None:
    case = made(CHAINS["two rows"], "int8", 0)
    model = batch.compiled(tflite.parse(case.model, case.name), native.HERE, tmp_path / "model.so")
    before = os.sched_getaffinity(0)

    found = contention.measure(model, 2, 3, native.ARTIFACTS)

    assert {name: len(times) for name, times in found.items()} == dict.fromkeys(contention.WAYS, 2)
    assert os.sched_getaffinity(0) == before


def test_a_missing_artifact_and_one_that_fails_are_told(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match="no such file"):
        contention.measure(tmp_path / "none.so", 1, 1, native.ARTIFACTS)

    with pytest.raises(CheckFailed, match="pilite-run failed with code"):
        contention.turn(native.loader(os.uname().machine).runner, tmp_path / "none.so", 1, 1)


def test_the_busy_process_ends_with_its_turn() -> None:
    with contention.busy():
        found = subprocess.run(
            ["pgrep", "-P", str(os.getpid()), "-f", contention.BUSY], capture_output=True, check=False
        )
        assert found.stdout
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", contention.BUSY], capture_output=True, check=False
    )
    assert not found.stdout
