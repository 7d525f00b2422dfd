"""bench: the race and the byte check of the current release, from the board to the files."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import models
from pilite.compiler import pipeline
from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import bench, deploy, facts, governor, oracle, protocol, schema, trial
from pilite.lab.trial import Subject
from tests.lab.conftest import Bed
from tests.lab.results import minimal, ratio, row
from tests.lab.stub import ARTIFACTS, MODEL, Stub

Json = dict[str, Any]
QUICK = replace(protocol.FUNCTIONAL, limit_s=60, total_s=300)
EIGHT = 8 * len(trial.SEEDS)  # output elements of the stub over all sets of inputs


@pytest.fixture
def truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """An oracle that says y = x + 1."""

    def expected(judge: object, model: Path, arrays: Sequence[Any], artifacts: Path) -> list[Any]:
        return [(array + np.int8(1)).astype(np.int8) for array in arrays]

    monkeypatch.setattr(oracle, "expected", expected)


def deployed(bed: Bed, stub: Stub) -> Subject:
    """A stub on the board, and the file that it claims to be compiled from."""
    source = bed.artifacts / "stub.tflite"
    source.write_bytes(b"the model")
    stub.write(bed.artifacts, bed.board, hashlib.sha256(b"the model").hexdigest())
    deploy.deploy(bed.board, bed.connection, MODEL, bed.artifacts)
    return Subject(MODEL, source)


def race(bed: Bed, subject: Subject, **options: Any) -> bench.Bench:
    return bench.bench(
        bed.board, bed.connection, [subject], bed.artifacts, rivals=(), settings=QUICK, **options
    )


@pytest.mark.usefixtures("truth")
def test_a_right_release_gives_rows_and_no_mismatch(local_bed: Bed) -> None:
    done = race(local_bed, deployed(local_bed, Stub(1)), threads=(1, 64))
    done.verify()
    rows = {row["threads"]: row for row in done.document["rows"]}
    assert list(rows) == [1, 64]
    assert rows[1]["runs"] == QUICK.least_rounds
    assert [rows[n]["oversubscribed"] for n in (1, 64)] == [False, True]
    assert rows[64]["cpus"] is None
    assert rows[1]["runtime_version"] == f"build {Stub(1).build_id[:12]}"
    checks = done.document["checks"]
    assert [(check["threads"], check["elements"], check["mismatches"]) for check in checks] == [
        (1, EIGHT, 0),
        (64, EIGHT, 0),
    ]
    assert done.document["timing_valid"] is True


@pytest.mark.usefixtures("truth")
@pytest.mark.slow
def test_files_hold_what_the_result_says(local_bed: Bed) -> None:
    done = race(local_bed, deployed(local_bed, Stub(1)), threads=(1,))
    assert json.loads((done.folder / "result.json").read_text()) == done.document
    samples = schema.checked(json.loads((done.folder / "samples.json").read_text()))["models"]
    assert len(samples[MODEL]["ms"]["pilite/1"]) == QUICK.least_rounds
    assert (done.folder / "report.md").read_text().startswith("# Measured on local (local)")
    assert (done.folder / "times.svg").read_text().startswith("<?xml")
    left = local_bed.connection.check(["ls", "-A", f"{local_bed.root}/{MODEL}"]).split()
    assert sorted(left) == [".lock", "current", "incoming", "releases"]


@pytest.mark.usefixtures("truth")
def test_a_wrong_output_is_in_the_result_and_fails_the_check(local_bed: Bed) -> None:
    done = race(local_bed, deployed(local_bed, Stub(2)), threads=(1, 2))
    assert [check["mismatches"] for check in done.document["checks"]] == [EIGHT, EIGHT]
    assert (done.folder / "result.json").is_file()
    with pytest.raises(CheckFailed, match=rf"{EIGHT} of {EIGHT} output elements are not those of"):
        done.verify()


@pytest.mark.usefixtures("truth")
@pytest.mark.slow
def test_a_release_that_crashes_fails_the_check(local_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "check_health", lambda *_: None)  # it would never get there
    done = race(local_bed, deployed(local_bed, Stub(trap=True)), threads=(1,))
    assert done.document["rows"] == []
    with pytest.raises(
        CheckFailed, match=r"pilite with 1 thread\(s\) on stub: its process ended during 'load'"
    ):
        done.verify()


def test_a_model_that_is_not_deployed_is_named_with_the_command(local_bed: Bed) -> None:
    with pytest.raises(
        BoardError, match=r"Deploy it first: python3 run.py deploy --model stub --board local"
    ):
        race(local_bed, Subject(MODEL, local_bed.artifacts / "stub.tflite"))


def test_a_model_that_changed_since_it_was_compiled_is_refused(local_bed: Bed) -> None:
    subject = deployed(local_bed, Stub(1))
    subject.tflite.write_bytes(b"another model")
    with pytest.raises(PiliteError, match=r"was compiled from another file"):
        race(local_bed, subject)


@pytest.mark.usefixtures("truth")
@pytest.mark.slow
def test_a_throttled_board_gives_no_ratios(local_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = deployed(local_bed, Stub(1))
    real = facts.facts
    monkeypatch.setattr(facts, "facts", lambda *a: {**real(*a), "throttled": "0x50005"})
    with pytest.raises(BoardError, match=r"^local: not measured, because it is throttled now"):
        race(local_bed, subject, threads=(1,))
    document = race(local_bed, subject, threads=(1,), force=True).document
    assert (document["timing_valid"], document["ratios"]) == (False, [])
    assert "local was throttled (get_throttled 0x50005): its times do not count" in document["notes"]


@pytest.mark.usefixtures("truth")
@pytest.mark.slow
def test_two_measurements_at_once_are_refused(local_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(governor, "WAIT_S", 0.5)
    subject = deployed(local_bed, Stub(1))
    with Path(local_bed.root, ".bench.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BoardError, match=r"another measurement runs there"):
            race(local_bed, subject, threads=(1,))


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.usefixtures("truth")
def test_the_container_runs_everything_and_its_times_never_count(container_bed: Bed) -> None:
    done = race(container_bed, deployed(container_bed, Stub(1)), threads=(4,))
    done.verify()
    document = done.document
    assert (document["timing_valid"], document["ratios"]) == (False, [])
    assert [(check["elements"], check["mismatches"]) for check in document["checks"]] == [(EIGHT, 0)]
    assert (document["board"]["emulated"], document["board"]["model"]) == (True, "QEMU, as cortex-a72")
    assert not (done.folder / "times.svg").exists()


def compiled(bed: Bed, cpu: str) -> Subject:
    """A small zoo model, compiled for a CPU."""
    source = models.resolve("mobilenet_v1_0.1_32_uint8", bed.artifacts)
    pipeline.build(source.path, source.name, cpu, "ref", bed.artifacts)
    return Subject(source.name, source.path)


@pytest.mark.docker
@pytest.mark.slow
def test_a_compiled_model_and_both_rivals_run_on_the_container(container_bed: Bed) -> None:
    bed = replace(container_bed, artifacts=ARTIFACTS)
    subject = compiled(bed, bed.board.cpu)
    deploy.deploy(bed.board, bed.connection, subject.name, bed.artifacts)
    done = bench.bench(bed.board, bed.connection, [subject], bed.artifacts, threads=(1, 4))
    done.verify()
    assert done.document["notes"][0] == "container is virtual: its times say nothing about speed"
    assert [(row["runtime"], row["threads"]) for row in done.document["rows"]] == [
        (runtime, threads) for runtime in ("pilite", "tflite", "litert") for threads in (1, 4)
    ]
    assert [check["mismatches"] for check in done.document["checks"]] == [0, 0]


@pytest.mark.docker
@pytest.mark.slow
def test_code_with_dotprod_is_refused_by_a_board_without(container_bed: Bed) -> None:
    bed = replace(container_bed, artifacts=ARTIFACTS)
    subject = compiled(bed, "cortex-a76")
    hopeful = replace(bed.board, cpu="cortex-a76")  # its file says more than it is
    with pytest.raises(BoardError, match=r"exit code 2.*this CPU lacks asimddp"):
        deploy.deploy(hopeful, bed.connection, subject.name, bed.artifacts)


WRONG: list[tuple[str, Json]] = [
    ("another schema", {"schema": "pilite.bench/2"}),
    ("no notes", {"notes": None}),
    ("a row without its median", {"rows": [{k: v for k, v in row().items() if k != "median_ms"}]}),
    ("a runtime without a name", {"rows": [{**row(), "runtime": ""}]}),
    ("a verdict that there is not", {"ratios": [ratio(verdict="perhaps")]}),
    ("no seed of the order", {"seeds": {"inputs": [1, 2, 3], "bootstrap": 0}}),
    ("a mark without its reason", {"marks": [{"rule": "busy", "severity": "marked"}]}),
    ("no runs", {"rows": [{**row(), "runs": 0}]}),
    ("a ratio on a board whose times do not count", {"timing_valid": False}),
    (
        "two seeds are too few",
        {
            "checks": [
                {"model": "m", "against": "a", "threads": 1, "seeds": [1, 2], "elements": 1, "mismatches": 0}
            ]
        },
    ),
]


def test_the_smallest_result_is_valid() -> None:
    document = minimal()
    bench.validate(document)
    bench.validate({**document, "ratios": [ratio(speedup=None, verdict="undecided")]})


@pytest.mark.parametrize(("what", "change"), WRONG, ids=[what for what, _ in WRONG])
def test_the_schema_refuses(what: str, change: Json) -> None:
    document = minimal()
    with pytest.raises(jsonschema.ValidationError):
        bench.validate({**document, **change})


def test_an_output_of_another_type_differs_everywhere() -> None:
    want = [np.zeros((2, 3), np.int8)]
    assert bench.mismatches([np.zeros((2, 3), np.uint8)], want) == 6
    assert bench.mismatches([np.zeros((3, 2), np.int8)], want) == 6
    assert bench.mismatches([np.eye(2, 3, dtype=np.int8)], want) == 2
