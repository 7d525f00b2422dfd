"""From profiles to rows and their JSON; under QEMU, with a real artifact and a real rival."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from pilite.errors import PiliteError
from pilite.lab.estimate import estimate, guests
from pilite.lab.estimate.count import Counted, count
from pilite.lab.estimate.estimate import Subject
from pilite.lab.estimate.models import Model
from pilite.lab.estimate.profile import Block, CacheLevel, Profile, Section
from tests.conftest import ROOT
from tests.lab.estimate.rows import counted, row

STAGES = [
    {"operator": 0, "op": "CONV_2D", "kernel": "fill"},
    {"operator": 0, "op": "CONV_2D", "kernel": "gemm"},
    {"operator": -1, "op": "", "kernel": "move"},
]


def section(label: int, *turns: int) -> Section:
    """As many executions of one block by each thread."""
    executions = {thread: Counter({1: n}) for thread, n in enumerate(turns)}
    return Section(label, executions, caches=(CacheLevel(3, 1), CacheLevel(2, 1)))


def profile_of(*sections: Section) -> Profile:
    return Profile({1: Block(1, 0, 10, b"")}, sections)


MODEL = Model("fake", "", lambda codes: [0 for _ in codes])


@pytest.fixture
def _no_disassembler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilite.lab.estimate.cycles.disassemble", lambda codes: [() for _ in codes])


@pytest.mark.usefixtures("_no_disassembler")
def test_misses_of_the_last_level_and_its_writes_make_the_traffic() -> None:
    whole = count(profile_of(section(0, 5)), [MODEL]).whole
    assert (whole.instructions, whole.l1_misses, whole.last_level_misses) == (50, 3, 2)
    assert whole.dram_bytes == 64 * (2 + 1)


def test_the_longest_thread_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pilite.lab.estimate.count.Cost.section", lambda self, costs, s, t: 10.0 * s.executions[t[0]][1]
    )
    result = count(profile_of(section(1, 5, 1), section(2, 2, 4)), [MODEL])
    assert result.whole.cycles == {"fake": 70.0}
    assert [thread.cycles["fake"] for thread in result.threads] == [70.0, 50.0]
    assert result.balance == pytest.approx((70 + 50) / 2 / 70)
    assert result.sections[2].cycles == {"fake": 40.0}


def test_stages_are_added_up_by_operator() -> None:
    sections = {label: counted(10**label, 10.0**label) for label in range(4)}
    ends, conv = estimate.layers(STAGES, sections)
    assert (ends.index, ends.counted.instructions, ends.kernels) == (-1, 1 + 1000, ("move",))
    assert (conv.op, conv.counted.instructions, conv.kernels) == ("CONV_2D", 10 + 100, ("fill", "gemm"))


def test_operators_that_share_a_region_are_named_though_a_border_came_first() -> None:
    region = {**STAGES[1], "op": "CONV_2D + DEPTHWISE_CONV_2D"}
    (conv,) = estimate.layers([STAGES[0], region], {1: counted(1, 1.0), 2: counted(2, 2.0)})[1:]
    assert conv.op == region["op"]


@pytest.mark.parametrize(("threads", "runner"), [(1, "pilite-run"), (4, "pilite-run-counted")])
def test_several_threads_are_counted_where_none_takes_work_of_another(threads: int, runner: str) -> None:
    from tests.native import ARTIFACTS

    guest = guests.pilite(Path("model.so"), "cortex-a53", ARTIFACTS, threads)
    assert Path(guest.command[0]).name == guest.files[0].name == runner


def test_an_artifact_without_marks_has_no_layers() -> None:
    assert estimate.layers([], {0: Counted()}) == ()


def test_rows_become_the_json_of_the_schema() -> None:
    layers = estimate.layers(STAGES, {1: counted(1, 1.4)})
    document = estimate.document([row(layers=layers), row("litert", 150.4)])
    first, second = document["rows"]
    assert first["layers"][1]["cycles"] == {"a53-in-order": 1, "a53-llvm": 1}
    assert (second["numerics"], second["layers"], second["cycles"]["a53-llvm"]) == (None, [], 150)


def test_a_row_that_breaks_the_schema_is_not_written() -> None:
    with pytest.raises(jsonschema.ValidationError):
        estimate.document([row("onnx")])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("tf2_mobilenet_v2_1.0_224_ptq", "int8"), ("mobilenet_v2_1.0_224_quant", "uint8")],
)
def test_a_model_is_what_most_of_its_tensors_are(shared_models: Path, name: str, dtype: str) -> None:
    assert estimate.dtype_of(shared_models / f"{name}.tflite") == dtype


def test_a_core_without_a_model_is_refused_by_name() -> None:
    with pytest.raises(PiliteError, match=r"x86-64-v3: estimate knows cortex-a53"):
        estimate.estimate([Subject("net", Path(), "x86-64-v3", None)], [], Path())


@pytest.fixture
def keyword_spotting(llvm_mca: None, shared_models: Path) -> Subject:
    """The smallest real convolution network, built for the Cortex-A53."""
    from pilite.compiler import pipeline
    from tests.native import ARTIFACTS

    source = shared_models / "mlperf_tiny_kws_int8.tflite"
    built = pipeline.build(source, source.stem, "cortex-a53", "ref", ARTIFACTS)
    return Subject(source.stem, source, "cortex-a53", built.path)


@pytest.mark.qemu
@pytest.mark.slow
def test_a_model_on_a_core_beside_a_rival(keyword_spotting: Subject) -> None:
    from tests.native import ARTIFACTS

    rows = estimate.estimate([keyword_spotting], ["tflite"], ARTIFACTS)
    ours, theirs = estimate.document(rows)["rows"]
    assert (ours["runtime"], theirs["runtime"], theirs["runtime_version"]) == ("pilite", "tflite", "2.14.0")
    assert ours["instructions"] > 100_000
    assert theirs["cycles"]["a53-in-order"] > 100_000
    assert ours["balance"] == theirs["balance"] == 1.0
    assert [len(ours["by_thread"]), len(theirs["by_thread"])] == [1, 1]
    assert ours["by_thread"][0]["instructions"] == ours["instructions"]


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["pilite", "tflite"])
def test_two_runs_differ_by_less_than_a_thousandth(keyword_spotting: Subject, runtime: str) -> None:
    from pilite.lab.estimate import guests, plugin
    from tests.native import ARTIFACTS

    assert keyword_spotting.artifact is not None
    if runtime == "pilite":
        guest = guests.pilite(keyword_spotting.artifact, "cortex-a53", ARTIFACTS)
    else:
        guest = guests.rival(runtime, keyword_spotting.tflite, "cortex-a53", ARTIFACTS)
    profiles = [plugin.run_anew(guest, (), ARTIFACTS) for _ in range(2)]
    one, two = (profile.instructions(profile.whole()) for profile in profiles)
    assert abs(one - two) < one / 1000


@pytest.mark.qemu
@pytest.mark.slow
@pytest.mark.usefixtures("llvm_mca")
def test_three_percent_above_its_budget_a_model_fails(tmp_path: Path) -> None:
    """The task that CI runs, with a zoo model and budgets that say it was cheaper once."""
    file = tmp_path / "budgets.json"
    command = [sys.executable, "tasks.py", "estimate", "--gate", str(file), "--cpu", "cortex-a72"]
    name = ["--model", "mobilenet_v1_0.1_32_int8"]
    subprocess.run([*command, *name], cwd=ROOT, check=True, env={**os.environ, "CI": ""})
    document = json.loads(file.read_text())
    document["rows"][0]["budget"]["instructions"] = int(document["rows"][0]["budget"]["instructions"] / 1.03)
    file.write_text(json.dumps(document))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 of 2 values are more than 2% above" in done.stderr
    assert "mobilenet_v1_0.1_32_int8 cortex-a72 ref 1: instructions" in done.stderr
    assert json.loads(file.read_text()) == document


@pytest.mark.qemu
@pytest.mark.slow
def test_four_threads_share_the_work(keyword_spotting: Subject) -> None:
    from tests.native import ARTIFACTS

    one, four = (
        estimate.estimate([keyword_spotting], [], ARTIFACTS, threads=threads)[0] for threads in (1, 4)
    )
    assert four.threads == len(four.by_thread) == 4
    assert sum(thread.instructions for thread in four.by_thread) == four.counted.instructions
    assert max(thread.cycles["a53-in-order"] for thread in four.by_thread) == four.claim
    assert four.claim < one.claim
    assert 0 < four.balance <= 1
