"""The linear form of an addition: proved for all pairs, refused where a tie shows, computed as proved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilite.compiler import cpu as cpus
from pilite.compiler.fixedpoint import Multiplier, Requant, Rounding
from pilite.compiler.kernels import addition, select
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QAdd
from tests.kernels import KernelRun, results

CLAMP = Requant(Rounding.GEMMLOWP, -7, -128, 127)
HALF = Multiplier(1 << 30, 0)


def spec(first: float, second: float, requant: Requant = CLAMP) -> QAdd:
    """y = first * (a - 5) + second * (b + 9) as TFLite prepares it: the larger input scale becomes 1/2."""
    twice = 2 * max(first, second)
    terms = Multiplier.of(first / twice), Multiplier.of(second / twice)
    return QAdd(20, (5, -9), terms, Multiplier.of(twice / (1 << 20)), requant)


INSTRUCTIONS = {
    **dict.fromkeys(("cortex-a53", "cortex-a72", "cortex-a76"), "mla"),
    **dict.fromkeys(("x86-64-v3", "x86-64-v4"), "vpmulld"),
}
SPECS = [
    spec(0.6137291, 0.7431137),
    spec(1.9031771, 0.0321733),
    spec(0.0071317, 0.0113171),
    replace(spec(0.3771193, 0.9113327), subtract=True),
    spec(0.8231719, 0.7171373, replace(CLAMP, clamp_min=-7, clamp_max=90)),
]


@pytest.mark.parametrize("one", SPECS, ids=str)
def test_the_form_equals_the_reference_for_every_pair(one: QAdd) -> None:
    form = addition.linear(one)

    assert form is not None
    total = np.add.outer(addition.INPUTS * form.weights[0], addition.INPUTS * form.weights[1]) + form.constant
    low, high = one.requant.clamp_min, one.requant.clamp_max
    assert np.abs(total).max() < 1 << 31
    np.testing.assert_array_equal(np.clip(total >> form.shift, low, high), addition.results(one))


def test_ties_of_both_signs_have_no_linear_form() -> None:
    """1/2 * a + 1/2 * b rounds -0.5 down and 0.5 up."""
    one = QAdd(20, (0, 0), (HALF, HALF), Multiplier(1 << 30, -19), replace(CLAMP, zero_point=0))

    assert addition.linear(one) is None
    assert {select(one, {}, cpus.load(cpu)).name for cpu in INSTRUCTIONS} == {"qs8_add_8"}


@pytest.mark.slow
@pytest.mark.parametrize("cpu", INSTRUCTIONS)
def test_the_kernel_computes_every_pair(cpu: str) -> None:
    pairs = Layout((256 * 256,))
    a, b = (x.astype(np.int8).ravel() for x in np.meshgrid(addition.INPUTS, addition.INPUTS, indexing="ij"))
    runs = []
    for one in SPECS:
        kernel = select(one, {}, cpus.load(cpu))
        assert kernel.instruction == INSTRUCTIONS[cpu]
        function = kernel.family.emit("kernel", one, None, (pairs, pairs), pairs, cpus.load(cpu))
        runs.append(KernelRun(function, [a, b], np.zeros(pairs.shape, np.int8)))

    for one, found in zip(SPECS, results(runs, cpu), strict=True):
        np.testing.assert_array_equal(found, addition.results(one).ravel())
