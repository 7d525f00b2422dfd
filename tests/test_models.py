"""Whole models, operator by operator: on every CPU the bytes of TFLite's reference kernels."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

import models
from pilite.compiler import pipeline
from pilite.lab import artifact, compare, hostcpu, oracle
from pilite.lab.artifact import TensorInfo
from tests.conftest import HARDWARE, SHARED_IMAGES
from tests.native import ARTIFACTS

ORACLE = oracle.RUNTIMES["tflite-ref"].package
THREADS = (1, 4)
ODD_THREADS = (3, 7)
NO_PICTURES = Path("none")
ODD_MODELS = ("mlperf_tiny_resnet8_int8", "mobilenet_v1_0.25_128_quant")

# Small ones first. The comment says what a model adds.
PUBLISHED = (
    "tflm_micro_speech_quantized",  # depth multiplier 8, a 10x8 window, FULLY_CONNECTED of a 4-D input
    "mlperf_tiny_ad01_int8",  # FULLY_CONNECTED only
    "mlperf_tiny_kws_int8",  # int8, a 10x4 window
    "mlperf_tiny_resnet8_int8",  # ADD with RELU
    "mlperf_tiny_vww_96_int8",
    "mobilenet_v1_0.25_128_quant",  # uint8 with weight zero points
    "mobilenet_v1_0.75_192_quant",
    "mobilenet_v1_1.0_224_quant_embedding_extractor",  # average pool as output
    "mobilenet_v2_1.0_224_quant",  # ADD of uint8
    "tflm_trained_lstm_int8",  # a state
    "tf2_mobilenet_v2_1.0_224_ptq",  # int8 between two QUANTIZE, MEAN
)
HEAVY = (  # hundreds of millions of elements
    "deeplabv3_mnv2_dm05_pascal_quant",
    "movenet_single_pose_lightning_ptq",
)
ZOO = ("mobilenet_v1_0.1_32_int8", "mobilenet_v2_0.1_32_uint8", "mobilenet_v2_0.1_32_int8")
SMALL_ZOO = (  # each architecture once, on this machine's CPU
    pytest.param("inception_v1_0.25_64_uint8", marks=pytest.mark.long),  # its operators are in the others
    "inception_v2_0.25_64_uint8",  # depth multiplier 8
    "inception_v3_0.25_96_int8",  # 1x7 windows, VALID
    "inception_v4_0.25_96_uint8",
    "resnet_50_0.25_64_int8",  # PAD, ADD with RELU
    "efficientnet_lite0_0.25_64_int8",  # 5x5 windows
    "mobilenet_v3_large_0.25_64_uint8",  # HARD_SWISH, gates
    pytest.param("mobilenet_v3_large_minimalistic_0.25_64_uint8", marks=pytest.mark.long),
    "deeplab_mobilenet_v2_0.25_65_uint8",  # dilations, RESIZE_BILINEAR, ARG_MAX
    "unet_mobilenet_v2_0.25_64_int8",  # TRANSPOSE_CONV
    "ssd_mobilenet_v1_0.25_96_uint8",  # several outputs, TFLite_Detection_PostProcess of uint8
    "ssd_mobilenet_v2_0.25_96_int8",  # and of float32
)
DETECTORS = ("ssd_mobilenet_v1_0.25_96_uint8", "ssd_mobilenet_v2_0.25_96_int8")
CPUS = ("x86-64-v3", "x86-64-v4", "cortex-a53", "cortex-a72", "cortex-a76")


def on_every_cpu(names: tuple[str, ...], *marks: pytest.MarkDecorator) -> list[ParameterSet]:
    """Each model with each CPU, a model's CPUs one after another because they share the oracle's answer."""
    return [pytest.param(name, cpu, marks=[*marks, *marks_of(cpu)]) for name in names for cpu in CPUS]


def marks_of(cpu: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.qemu] if hostcpu.arch_of(cpu) == "aarch64" else []


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu(PUBLISHED, pytest.mark.slow))
def test_every_operator_of_a_published_model_gives_tflites_bytes(
    name: str, cpu: str, shared_models: Path, shared_images: Path
) -> None:
    assert_same(shared_models / f"{name}.tflite", name, cpu, THREADS, shared_images)


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu(ZOO))
def test_every_operator_of_a_zoo_model_gives_tflites_bytes(name: str, cpu: str) -> None:
    assert_same(models.resolve(name, ARTIFACTS).path, name, cpu, THREADS, SHARED_IMAGES)


@pytest.mark.parametrize("name", SMALL_ZOO)
def test_every_operator_of_a_small_architecture_gives_tflites_bytes(name: str) -> None:
    assert_same(models.resolve(name, ARTIFACTS).path, name, "x86-64-v3", (1,), NO_PICTURES)


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu(DETECTORS, pytest.mark.long))
def test_every_operator_of_a_detector_gives_tflites_bytes(name: str, cpu: str) -> None:
    assert_same(models.resolve(name, ARTIFACTS).path, name, cpu, THREADS, NO_PICTURES)


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu(ODD_MODELS, pytest.mark.slow))
def test_odd_numbers_of_threads_change_no_byte(
    name: str, cpu: str, shared_models: Path, shared_images: Path
) -> None:
    assert_same(shared_models / f"{name}.tflite", name, cpu, ODD_THREADS, shared_images)


def assert_same(model: Path, name: str, cpu: str, threads: tuple[int, ...], pictures: Path) -> None:
    """Build twice, compare, and see that everything was compared."""
    if not runs_here(cpu):
        pytest.skip(f"{HARDWARE} code for {cpu} needs another machine")
    plain = artifact.read(pipeline.build(model, name, cpu, "ref", ARTIFACTS).path)
    layers = artifact.read(pipeline.build(model, name, cpu, "ref", ARTIFACTS, layers=True).path)
    right = truth(model, plain.source_sha256, plain.inputs, pictures)
    if right.oracle.runtime.package != ORACLE and any(one.op == "FULLY_CONNECTED" for one in layers.layers):
        pytest.skip(f"FULLY_CONNECTED needs {ORACLE} (Python <= 3.11): other packages round it otherwise")
    done = compare.compare(compare.Built(plain.path, layers.path), right, threads, ARTIFACTS)
    compare.verify([done])
    assert len(done.rows) == (len(layers.layers) + 1) * len(threads) * len(right.cases)
    assert all(row.elements for row in done.rows)


def runs_here(cpu: str) -> bool:
    """aarch64 code does, under QEMU; the levels of x86-64 are named in their order."""
    arch = hostcpu.arch_of(cpu)
    return arch == "aarch64" or (arch == platform.machine() and cpu <= hostcpu.best())


@functools.lru_cache(maxsize=1)
def truth(model: Path, sha256: str, tensors: tuple[TensorInfo, ...], pictures: Path) -> compare.Truth:
    """What is right. The last model's is kept, because its CPUs follow each other."""
    return compare.Truth(model, oracle.reference(), compare.cases(tensors, pictures), ARTIFACTS)


@pytest.mark.parametrize(("name", "cpu"), on_every_cpu(HEAVY, pytest.mark.slow, pytest.mark.long))
def test_every_operator_of_a_heavy_model_gives_tflites_bytes(
    name: str, cpu: str, shared_models: Path, shared_images: Path
) -> None:
    assert_same(shared_models / f"{name}.tflite", name, cpu, (1,), shared_images)


def test_every_published_model_is_compared(shared_models: Path) -> None:
    assert {path.stem for path in shared_models.glob("*.tflite")} == {*PUBLISHED, *HEAVY}
