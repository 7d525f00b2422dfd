"""Classes of operators, choices that `tune` made for them, and that no choice changes a byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pilite.compiler import cpu as cpus
from pilite.compiler import pipeline
from pilite.compiler.cpu import Choice
from pilite.compiler.kernels import KERNELS, select
from pilite.compiler.kernels.tuning import candidates, choose, class_of
from pilite.compiler.layout import Layout
from tests.few_ops import made, residual
from tests.native import EVERY_CPU, HERE, opened
from tests.samples import REQUANT, SMALL, Sample, conv, depthwise

CPU = cpus.load("cortex-a72")
SAMPLE = conv(SMALL, -127, REQUANT)
PLAIN = "qs8_gemm_4x4c16__neon"  # never the first choice for 16 channels


def vector() -> Sample:
    weight = np.ones((10, 1, 1, 33), np.int16)
    return replace(SAMPLE, y=Layout((1, 10)), arrays={"weight": weight})


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        (SAMPLE, "conv window m64 k256 n16"),
        (conv(SMALL, -127, REQUANT, 12), "conv window m64 k256 n4"),
        (vector(), "conv 1x1 m1 k64 n2"),
        (depthwise(6, 3, -127), "depthwise 3x3 s1 w8"),
        (depthwise(64, 5, -127), "depthwise 5x5 s1 w32"),
    ],
)
def test_a_class_tells_kind_length_and_multiple(sample: Sample, name: str) -> None:
    assert class_of(sample.spec, sample.arrays, sample.y) == name


def test_without_a_choice_the_first_kernel_that_fits_is_used() -> None:
    bare = replace(CPU, choices=())
    assert choose(SAMPLE.spec, SAMPLE.arrays, SAMPLE.y, bare) == (
        select(SAMPLE.spec, SAMPLE.arrays, bare),
        bare,
    )


@pytest.mark.parametrize("operators", ["conv window m64 k256 n16", cpus.EVERY_CLASS])
def test_a_choice_decides_kernel_and_rows(operators: str) -> None:
    cpu = replace(CPU, choices=((operators, Choice(PLAIN, 3)),))
    kernel, tiled = choose(SAMPLE.spec, SAMPLE.arrays, SAMPLE.y, cpu)
    assert (kernel.name, tiled.tile("gemm_mull")) == (PLAIN, (3, 4))


@pytest.mark.parametrize(
    "name",
    ["qs8_gemm_8x8c4__neondot", "qs8_gemm_4x8c2__neon_a53", "qs8_dwconv_4x8__neon", "no_such_kernel"],
    ids=["another feature", "another order", "another operator", "unknown"],
)
def test_a_choice_that_does_not_fit_is_no_choice(name: str) -> None:
    cpu = CPU.forced(Choice(name, 3))
    kernel, tiled = choose(SAMPLE.spec, SAMPLE.arrays, SAMPLE.y, cpu)
    assert (kernel, tiled) == (select(SAMPLE.spec, SAMPLE.arrays, CPU), cpu)


@pytest.mark.parametrize("name", cpus.names())
def test_every_choice_of_the_tree_names_a_candidate_of_its_cpu(name: str) -> None:
    cpu = cpus.load(name)
    chosen = {f"{choice.kernel}@{choice.rows}" for _, choice in cpu.choices}
    assert chosen <= set(candidates(cpu)), f"kernels changed: run tune --cpu {name}"
    assert candidates(cpu)


@pytest.mark.parametrize("cpu", EVERY_CPU)
def test_no_choice_changes_a_byte(cpu: str, tmp_path: Path) -> None:
    """Narrow, odd and tall tiles of every kernel."""
    case = made(residual, "int8", 0)
    model = tmp_path / "m.tflite"
    model.write_bytes(case.model)
    plain = opened(pipeline.build(model, "m", cpu, "ref", tmp_path).path, cpu)(*case.inputs)
    tiles = [tile for tile in candidates(cpus.load(cpu)) if tile.endswith(("@1", "@3", "@8"))]
    for tile in tiles if cpu == HERE else tiles[1::3]:
        built = pipeline.build(model, "m", cpu, "ref", tmp_path, tile=tile)
        found = opened(built.path, cpu)(*case.inputs)
        for want, got in zip(plain, found, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=tile)


def test_every_kernel_with_a_tile_is_a_candidate_somewhere() -> None:
    offered = {tile.partition("@")[0] for name in cpus.names() for tile in candidates(cpus.load(name))}
    by_geometry = ("dwconv", ("neondot", "avx512vnni"))  # these choose their tile by themselves
    tiled = {kernel.name for kernel in KERNELS if "gemm" in kernel.name or "dwconv" in kernel.name}
    assert offered == {n for n in tiled if by_geometry[0] not in n or not n.endswith(by_geometry[1])}
