"""What chains cost one thread and save it, on the models that have goals: `build --fuse auto` against off;
and how four threads share the work.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.compiler import fuse, pipeline
from pilite.lab.estimate import estimate
from pilite.lab.estimate.estimate import Row, Subject
from tests.native import ARTIFACTS

V1, V2 = "mobilenet_v1_1.0_224_quant_embedding_extractor", "mobilenet_v2_1.0_224_quant"
MODELS = (
    V2,
    pytest.param(V1, marks=pytest.mark.long),
    pytest.param("tf2_mobilenet_v2_1.0_224_ptq", marks=pytest.mark.long),
)
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
READ_MB = {(V2, "cortex-a53"): 5.0, (V2, "cortex-a72"): 4.8, (V1, "cortex-a53"): 6.0}  # at most
READ_MB_BY_FOUR = {(V2, "cortex-a53"): 5.6, (V1, "cortex-a53"): 8.0}
LONGEST = 0.28  # of the cycles of one thread, for the thread of four that has most
BALANCE = 0.9  # mean of four threads against the longest
LINE = 64  # bytes
EQUAL = 1.0005  # the error of the model itself is 0.1 % (ARCHITECTURE D49)

pytestmark = [pytest.mark.qemu, pytest.mark.slow]


@pytest.mark.usefixtures("llvm_mca")
@pytest.mark.parametrize("cpu", CORES)
@pytest.mark.parametrize("model", MODELS)
def test_chains_take_one_thread_no_more_cycles_and_save_memory_traffic(
    model: str, cpu: str, shared_models: Path
) -> None:
    single, chained = (
        counted(shared_models / f"{model}.tflite", cpu, mode) for mode in (fuse.OFF, fuse.AUTO)
    )

    assert chained.claim <= EQUAL * single.claim
    assert chained.counted.last_level_misses < single.counted.last_level_misses
    assert read(chained) <= 1e6 * READ_MB.get((model, cpu), 100)


@pytest.mark.usefixtures("llvm_mca")
@pytest.mark.parametrize("cpu", CORES)
@pytest.mark.parametrize("model", MODELS)
def test_four_threads_share_the_work_evenly(model: str, cpu: str, shared_models: Path) -> None:
    one, four = (counted(shared_models / f"{model}.tflite", cpu, fuse.AUTO, n) for n in (1, 4))

    assert four.claim <= LONGEST * one.claim
    assert four.balance >= BALANCE
    assert read(four) <= 1e6 * READ_MB_BY_FOUR.get((model, cpu), 100)


def counted(tflite: Path, cpu: str, mode: str, threads: int = 1) -> Row:
    """A second inference."""
    built = pipeline.build(tflite, tflite.stem, cpu, "ref", ARTIFACTS, chains=mode)
    subject = Subject(tflite.stem, tflite, cpu, built.path)
    (row,) = estimate.estimate([subject], [], ARTIFACTS, threads=threads)
    return row


def read(row: Row) -> int:
    """Bytes from memory."""
    return LINE * row.counted.last_level_misses
