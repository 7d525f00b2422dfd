"""Whole models with operators that are computed together: the bytes of the same model without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import models
from pilite.compiler import fuse, pipeline
from pilite.lab import artifact, execute, inputs
from tests.conftest import HARDWARE
from tests.native import ARTIFACTS
from tests.test_models import HEAVY, PUBLISHED, SMALL_ZOO, ZOO, on_every_cpu, runs_here

THREADS = (1, 3, 4)
SEEDS = (0, 1)
SMALL = tuple(str(one if isinstance(one, str) else one.values[0]) for one in (*ZOO, *SMALL_ZOO))

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu((*PUBLISHED, *HEAVY)))
def test_chains_change_no_byte_of_a_published_model(name: str, cpu: str, shared_models: Path) -> None:
    assert_same(shared_models / f"{name}.tflite", name, cpu)


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu(SMALL))
def test_chains_change_no_byte_of_a_zoo_model(name: str, cpu: str) -> None:
    assert_same(models.resolve(name, ARTIFACTS).path, name, cpu)


def assert_same(model: Path, name: str, cpu: str) -> None:
    """Both ways of chaining, alone and with threads; single operators are compared with TFLite elsewhere."""
    if not runs_here(cpu):
        pytest.skip(f"{HARDWARE} code for {cpu} needs another machine")
    single, *chained = (
        artifact.read(pipeline.build(model, name, cpu, "ref", ARTIFACTS, chains=mode).path)
        for mode in (fuse.OFF, fuse.AUTO, fuse.ALL)
    )
    sets = [inputs.random_inputs(single.inputs, seed) for seed in SEEDS]
    right = execute.outputs(single, sets, 1, ARTIFACTS)
    for one in chained:
        for threads in THREADS:
            found = execute.outputs(one, sets, threads, ARTIFACTS)
            for wanted, got in zip(right, found, strict=True):
                for x, y in zip(wanted, got, strict=True):
                    np.testing.assert_array_equal(x, y, err_msg=f"{one.path}, {threads} threads")
