"""Every kernel takes every border: what surrounds a value neither changes a result nor is changed by it.

The planner decides which values get a border from all of their readers, so each kernel must cope with any.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from _pytest.mark.structures import ParameterSet

from pilite.compiler import cpu as cpus
from pilite.compiler.kernels import select
from pilite.compiler.layout import Halo, Layout
from pilite.compiler.spec import Fill, Move
from tests.kernels import KernelRun, results
from tests.native import EVERY_CPU, HERE
from tests.samples import SMALL, Sample, samples

Array = npt.NDArray[Any]

BORDERS = (Halo(), Halo(3, 3, 3, 3), Halo(0, 1, 0, 0), Halo(1, 0, 2, 5))
COMBINATIONS = [(x, y) for x in BORDERS for y in BORDERS]


def bordered(sample: Sample, x_halo: Halo, y_halo: Halo) -> Sample:
    """The sample with these borders, as far as its values are images; what it reads itself stays."""
    xs = tuple(replace(x, halo=x.halo | x_halo) if len(x.shape) == 4 else x for x in sample.xs)
    y = replace(sample.y, halo=y_halo) if len(sample.y.shape) == 4 else sample.y
    return replace(sample, xs=xs, y=y)


def inside(array: Array, layout: Layout) -> Array:
    """The interior of a bordered array; all of one that is no image."""
    if len(layout.shape) != 4:
        return array
    _, h, w, _ = layout.shape
    return array[:, layout.halo.top :, layout.halo.left :][:, :h, :w]


def filled(layout: Layout, needed: Halo, seed: int) -> Array:
    """Equal values for equal seeds inside, zeros in the border that is read, noise in the rest of it."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(layout.size)
    array = _random(noise, layout.outer, layout.dtype)
    if layout.halo:
        top, left = layout.halo.top - needed.top, layout.halo.left - needed.left
        _, h, w, _ = layout.shape
        rows = slice(top, top + needed.top + h + needed.bottom)
        array[:, rows, left : left + needed.left + w + needed.right] = 0
    inside(array, layout)[...] = _random(rng, layout.shape, layout.dtype)
    return array


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype == "float32":
        return rng.normal(0, 4, shape).astype(np.float32)
    if dtype == "int16":
        return rng.integers(-(1 << 15), 1 << 15, shape, np.int16)
    if dtype in ("int32", "int64"):  # positions in an image of SMALL pixels a side, among others
        return rng.integers(0, SMALL, shape, np.dtype(dtype))
    return rng.integers(0, 256, shape).astype(np.uint8).view(dtype)


def run(sample: Sample, needed: tuple[Halo, ...], cpu: cpus.Cpu) -> KernelRun:
    kernel = select(sample.spec, sample.arrays, cpu)
    variant, constants = kernel.family.prepare(sample.spec, sample.arrays)
    function = kernel.family.emit("kernel", sample.spec, variant, sample.xs, sample.y, cpu)
    values = [filled(x, halo, i) for i, (x, halo) in enumerate(zip(sample.xs, needed, strict=True))]
    scratch = [np.zeros(n, np.int8) for n in kernel.family.scratch(variant, sample.xs, sample.y)]
    return KernelRun(function, [*values, *constants, *scratch], np.zeros(sample.y.outer, sample.y.dtype))


def takes_borders(sample: Sample) -> bool:
    """Fill exists for borders; constants in float64 do not pass through the loader."""
    return not isinstance(sample.spec, Fill) and not sample.scales_in_float64


SAMPLES = [sample for sample in samples(SMALL) if takes_borders(sample)]


def every_kernel() -> list[ParameterSet]:
    """Each sample with the CPUs that use another kernel for it than those of the same architecture before."""
    rows, seen = [], set()
    for sample, parameter in product(SAMPLES, EVERY_CPU):
        cpu = cpus.load(str(parameter.values[0]))
        key = (sample.name, cpu.arch, select(sample.spec, sample.arrays, cpu).name)
        if key not in seen:
            rows.append(pytest.param(sample, cpu.name, marks=parameter.marks, id=f"{sample.name}-{cpu.name}"))
        seen.add(key)
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("sample", "cpu"), every_kernel())
def test_a_border_neither_changes_a_result_nor_is_changed(sample: Sample, cpu: str) -> None:
    needed = tuple(x.halo for x in sample.xs)
    variants = [bordered(sample, x, y) for x, y in COMBINATIONS]

    found = results([run(variant, needed, cpus.load(cpu)) for variant in variants], cpu)
    wanted = inside(found[0], variants[0].y).copy()
    for variant, got in zip(variants, found, strict=True):
        text = f"input border {[x.halo for x in variant.xs]}, output border {variant.y.halo}"
        np.testing.assert_array_equal(inside(got, variant.y), wanted, err_msg=text)
        inside(got, variant.y)[...] = 0
        assert not got.any(), f"{text}: the border was written"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_the_samples_tell_something(sample: Sample) -> None:
    """Results vary, so that a wrong address shows."""
    (got,) = results([run(sample, tuple(x.halo for x in sample.xs), cpus.load(HERE))], HERE)

    found = set(np.unique(got))
    assert len(found) > 5 or got.size == 1 or found == {0, 1}


@pytest.mark.parametrize("halo", BORDERS[1:], ids=str)
def test_a_fill_writes_the_border_and_nothing_else(halo: Halo) -> None:
    y = Layout((2, 5, 4, 3), halo=halo)
    cpu = cpus.load(HERE)
    fill = Sample("fill", Fill(7, whole=False), (), y)

    copy = Sample("move", Move((0, 0, 0, 0)), (y,), y)  # a model without inputs is none
    _, got = results([run(copy, (halo,), cpu), run(fill, (), cpu)], cpu.name)
    interior = inside(got, y).copy()
    inside(got, y)[...] = 7
    assert not interior.any()
    assert (got == 7).all()
