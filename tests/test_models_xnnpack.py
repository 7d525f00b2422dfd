"""Whole models in numerics xnnpack, operator by operator: on every CPU the bytes of LiteRT on a Pi.

Larger ones are in `python3 run.py test --long`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

import models
from pilite.compiler import pipeline, tflite
from pilite.lab import artifact, compare, hostcpu, oracle
from tests.native import ARTIFACTS, EVERY_CPU
from tests.test_models import HEAVY, THREADS
from tests.test_models import PUBLISHED as PUBLISHED_MODELS

ZOO = ("mobilenet_v2_0.1_32_uint8", "mobilenet_v2_0.1_32_int8")
PUBLISHED = (  # with operators that are left to builtin kernels
    "mlperf_tiny_kws_int8",  # SOFTMAX, AVERAGE_POOL_2D
    "tflm_trained_lstm_int8",  # UNIDIRECTIONAL_SEQUENCE_LSTM
)

pytestmark = [pytest.mark.slow, pytest.mark.qemu]


@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("name", ZOO)
def test_every_operator_of_a_zoo_model_gives_the_bytes_of_litert_on_a_pi(name: str, cpu: str) -> None:
    assert_same(models.resolve(name, ARTIFACTS).path, name, cpu)


@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_operator_of_a_published_model_gives_the_bytes_of_litert_on_a_pi(
    name: str, cpu: str, shared_models: Path
) -> None:
    assert_same(shared_models / f"{name}.tflite", name, cpu)


@pytest.mark.long
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("name", [*PUBLISHED_MODELS, *HEAVY])
def test_every_operator_of_every_published_model_gives_the_bytes_of_litert_on_a_pi(
    name: str, cpu: str, shared_models: Path
) -> None:
    assert_same(shared_models / f"{name}.tflite", name, cpu)


@pytest.mark.parametrize("name", [*PUBLISHED_MODELS, *HEAVY])
def test_no_published_model_is_refused(name: str, shared_models: Path) -> None:
    assert tflite.read(shared_models / f"{name}.tflite", "xnnpack").nodes


def assert_same(model: Path, name: str, cpu: str) -> None:
    plain, layers = (
        pipeline.build(model, name, cpu, "xnnpack", ARTIFACTS, layers=every).path for every in (False, True)
    )
    right = truth(model, oracle.promised("xnnpack", "q31", cpu))
    done = compare.compare(compare.Built(plain, layers), right, THREADS, ARTIFACTS)

    compare.verify([done])
    assert not done.wrong
    assert done.operators


@functools.cache
def truth(model: Path, found: oracle.Oracle) -> compare.Truth:
    sets = compare.cases(artifact.read(_any(model)).inputs)
    return compare.Truth(model, found, sets, ARTIFACTS)


def _any(model: Path) -> Path:
    return pipeline.build(model, model.stem, hostcpu.best(), "xnnpack", ARTIFACTS).path
