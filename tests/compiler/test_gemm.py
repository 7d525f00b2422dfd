"""Every matrix kernel against numpy, on its own: tile edges, lengths of sums, what the weights decide.

The order of KERNELS and `tune` choose among these; here each one computes everything that it says it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pilite.compiler import cpu as cpus
from pilite.compiler import spec as s
from pilite.compiler.cpu import Cpu
from pilite.compiler.fixedpoint import Multiplier, Requant, Rounding, multiply, wrap_int32
from pilite.compiler.kernels import KERNELS, Kernel
from pilite.compiler.kernels.emit import HIDDEN, Share, emitting
from pilite.compiler.kernels.families import Gemm
from pilite.compiler.kernels.gemm_vnni import SHORT, DotUnsigned
from pilite.compiler.layout import Halo, Layout
from tests.kernels import KernelRun, results
from tests.native import EVERY_CPU

Array = npt.NDArray[Any]
BORDER = Halo(1, 1, 1, 1)
RELU = Requant(Rounding.GEMMLOWP, -128, -128, 127)  # negative ties cannot show
LINEAR = Requant(Rounding.GEMMLOWP, 3, -120, 125)
LEFT = Requant(Rounding.GEMMLOWP, -1, -128, 127, left=True)


@dataclass(frozen=True)
class Case:
    """A convolution of a (height, width, depth) image by a square kernel that keeps its size."""

    image: tuple[int, int, int]
    channels: int
    kernel: int = 1
    weights: tuple[int, int] = (-127, 127)  # least and largest
    requant: Requant = RELU
    uniform: bool = False  # one multiplier for all channels
    border: bool = False  # the output has a halo


def cases() -> Iterator[Case]:
    for pixels, channels in product((1, 2, 3, 4, 5, 8, 9), (1, 7, 8, 9, 16, 17)):
        yield Case((1, pixels, 6), channels)
    for depth in (1, 2, 3, 4, 7, 8, 15, 16, 17, 24, 31, 33, 64, 160, 161, 175, 200):
        yield Case((1, 5, depth), 9, requant=LINEAR)
    for weights in ((-1, 1), (-20, 20), (-63, 63), (-85, 85), (-128, 127), (-55, 200), (-255, 0)):
        yield Case((1, 6, 48), 16, weights=weights)
        yield Case((3, 5, 24), 17, kernel=3, weights=weights, requant=LINEAR, uniform=True)
    for width, requant in product((1, 2, 3, 5, 7), (RELU, LINEAR, LEFT)):
        yield Case((4, width, 3), 8, kernel=3, requant=requant, border=True)
        yield Case((4, width, 10), 24, requant=requant, uniform=True, border=True)
    yield Case((5, 6, 30), 12, kernel=5, requant=LEFT)
    yield Case((3, 4, 1), 8, kernel=7)


def arrays(case: Case, rng: np.random.Generator) -> dict[str, Array]:
    """Weights with many at both ends; multipliers that use all of int8, with ties; some shift nothing."""
    channels, k = case.channels, case.kernel
    shape = (channels, k, k, case.image[2])
    weight = rng.integers(*case.weights, shape, endpoint=True)
    ends = rng.random(shape) < 0.2
    weight[ends] = rng.choice(case.weights, int(ends.sum()))
    reach = 128.0 * max(map(abs, case.weights)) * np.sqrt(k * k * case.image[2])
    kinds = np.zeros(channels, np.int64) if case.uniform else np.arange(channels)
    reals = 100.0 / reach * 2.0 ** -(kinds % 3)
    multipliers = [
        Multiplier.of(float(2.0 ** np.round(np.log2(m))) if i % 2 else m) for i, m in enumerate(reals)
    ]
    if case.uniform:
        multipliers = multipliers[:1] * channels
    if case.requant.left:
        multipliers[0] = Multiplier.of(1.7)
    return {
        "weight": weight.astype(np.int16),
        "bias": rng.integers(-int(reach), int(reach) + 1, channels).astype(np.int32),
        "mantissa": np.array([m.mantissa for m in multipliers], np.int32),
        "right": np.array([m.right for m in multipliers], np.int32),
        "left": np.array([m.left for m in multipliers], np.int32),
    }


def layouts(case: Case) -> tuple[s.Window, Layout, Layout]:
    height, width, depth = case.image
    r = case.kernel // 2
    window = s.Window((case.kernel,) * 2, (1, 1), (1, 1), (r, r), (r, r))
    halo = BORDER if case.border else Halo()
    return (
        window,
        Layout((1, height, width, depth), halo=window.halo),
        Layout((1, height, width, case.channels), halo=halo),
    )


def expected(case: Case, x: Array, a: dict[str, Array]) -> Array:
    """The interior of the output, (height, width, channels)."""
    height, width, _ = case.image
    k = case.kernel
    view: Any = np.lib.stride_tricks.sliding_window_view
    windows = view(x.astype(np.int64), (k, k), axis=(0, 1))
    acc = np.einsum("hwcij,oijc->hwo", windows, a["weight"].astype(np.int64)) + a["bias"]
    y = np.empty((height, width, case.channels), np.int8)
    for c in range(case.channels):
        m = Multiplier(int(a["mantissa"][c]), int(a["left"][c]) - int(a["right"][c]))
        q = multiply(wrap_int32(acc[..., c]), m) + case.requant.zero_point
        y[..., c] = np.clip(q, case.requant.clamp_min, case.requant.clamp_max)
    return y


def run(kernel: Kernel, case: Case, cpu: Cpu, x: Array, a: dict[str, Array]) -> KernelRun:
    window, source, target = layouts(case)
    right = a["right"]
    spec = s.QConv2D(window, replace(case.requant, right=(int(right.min()), int(right.max()))))
    variant, constants = kernel.family.prepare(spec, a)
    scratch = [np.zeros(n, np.int8) for n in kernel.family.scratch(variant, (source,), target)]
    function = kernel.family.emit("kernel", spec, variant, (source,), target, cpu)
    slack = np.zeros(64, np.int8)  # what a kernel may read behind its inputs
    inputs = [
        np.concatenate([x.ravel(), slack]),
        *(np.append(c, slack.view(c.dtype)) for c in constants),
        *scratch,
    ]
    return KernelRun(function, inputs, np.empty(target.outer, np.int8))


def test_windows_and_short_rows_of_int8_weights_need_no_row_sums() -> None:
    for shape in ((16, 3, 200), (16, 1, SHORT)):
        weights = np.full(shape, -128)
        assert DotUnsigned().variant(weights).moved == 128
        for others in (np.full((16, 1, SHORT + 1), -128), weights - 1, weights + 256):
            found = DotUnsigned().variant(others)
            assert (found.moved, found.offset) == (0, min(0, others.min()))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_CPU)
def test_matrix_kernels_compute_what_numpy_computes(name: str) -> None:
    cpu = cpus.load(name)
    rng = np.random.default_rng(7)
    runs, wanted, names = [], [], []
    for kernel, case in product(KERNELS, cases()):
        a = arrays(case, rng)
        if not (isinstance(kernel.family, Gemm) and kernel.fits(cpu) and _wants(kernel, case, a)):
            continue
        source = layouts(case)[1]
        x = rng.choice(np.array([-128, 127, *range(-128, 128, 9)], np.int8), source.outer[1:])
        runs.append(run(kernel, case, cpu, x, a))
        wanted.append(expected(case, x, a))
        names.append(f"{kernel.name}: {case}")

    found = [interior(y, case_y) for y, case_y in zip(results(runs, name), wanted, strict=True)]

    for label, y, truth in zip(names, found, wanted, strict=True):
        np.testing.assert_array_equal(y, truth, err_msg=label)


def _wants(kernel: Kernel, case: Case, a: dict[str, Array]) -> bool:
    return kernel.wants(s.QConv2D(layouts(case)[0], case.requant), a)


def interior(y: Array, like: Array) -> Array:
    r = (y.shape[1] - like.shape[0]) // 2
    return y[0, r : r + like.shape[0], r : r + like.shape[1]]


@pytest.mark.parametrize(
    ("name", "cpu_name", "sign"),
    [
        ("qs8_gemm_8x8c4__neondot", "cortex-a76", HIDDEN),
        ("qs8_gemm_4x8c2__neon_a53", "cortex-a53", 'T.Cast("int64"'),
    ],
    ids=["one loop whose start is hidden", "positions of 64 bits"],
)
@pytest.mark.parametrize("weights", [(-127, 127), (-55, 200)], ids=["int8", "with row sums"])
def test_for_rows_of_a_chain_tiles_without_row_sums_have(
    name: str, cpu_name: str, sign: str, weights: tuple[int, int]
) -> None:
    """Else LLVM finishes short sums row by row, and spills; or extends each address for itself."""
    cpu = cpus.load(cpu_name)
    kernel = next(k for k in KERNELS if k.name == name)
    case = Case((2, 112, 16), 96, weights=weights, border=True)
    a = arrays(case, np.random.default_rng(1))
    window, x, y = layouts(case)
    variant, _ = kernel.family.prepare(s.QConv2D(window, case.requant), a)
    with emitting(Share.ROWS):
        function = kernel.family.emit("k", s.QConv2D(window, case.requant), variant, (x,), y, cpu)

    assert (sign in function.script()) is (variant.offset == 0)
