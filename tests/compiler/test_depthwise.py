"""Depthwise kernels against numpy, alone: tile edges, strides, odd sizes, weights that int8 cannot hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pilite.compiler import cpu as cpus
from pilite.compiler import spec as s
from pilite.compiler.fixedpoint import (
    Requant,
    Rounding,
    rounding_doubling_high_mul,
    rounding_shift_right,
)
from pilite.compiler.kernels import select
from pilite.compiler.kernels.depthwise import Mull8
from pilite.compiler.kernels.depthwise_dot import QUAD, Piece, cover
from pilite.compiler.kernels.emit import Share, emitting
from pilite.compiler.layout import Halo, Layout
from tests.kernels import KernelRun, results

Pair = tuple[int, int]
ZERO_POINT = 3
SLACK = 64  # bytes that a kernel may read behind a buffer


# Which kernel, and how its window is cut.


@pytest.mark.parametrize("pixels", [1, 2, 4])
@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_every_tap_of_every_pixel_is_in_one_piece(pixels: int, width: int, stride: int) -> None:
    pieces = cover(pixels, width, stride)

    taps = [(p.pixel, p.pattern.tap + i) for p in pieces for i in range(p.pattern.count)]
    assert sorted(taps) == [(pixel, tap) for pixel in range(pixels) for tap in range(width)]
    assert all(column_of(p) == p.pixel * stride + p.pattern.tap for p in pieces)
    assert all(0 <= p.pattern.lane <= p.pattern.lane + p.pattern.count <= QUAD for p in pieces)


def column_of(piece: Piece) -> int:
    return piece.group + piece.pattern.lane


def test_two_pixels_of_a_3x3_window_share_one_group() -> None:
    assert {p.group for p in cover(2, 3, 1)} == {0}
    assert len(cover(2, 3, 2)) == 2


@pytest.mark.parametrize(
    ("kernel", "dilation", "instruction"),
    [
        ((3, 3), (1, 1), "sdot"),
        ((5, 5), (2, 1), "sdot"),
        ((3, 3), (1, 2), "smlal"),
        ((9, 9), (1, 1), "smlal"),
    ],
)
def test_the_dot_product_takes_windows_of_neighbours(kernel: Pair, dilation: Pair, instruction: str) -> None:
    spec, arrays = operator(np.zeros((*kernel, 8), np.int16), (1, 1), dilation, -128)

    assert select(spec, arrays, cpus.load("cortex-a76")).instruction == instruction


@pytest.mark.parametrize("largest", [1, 28, 64, 127])
@pytest.mark.parametrize("rows", [1, 3])
def test_chains_hold_every_step_once_and_never_overflow(largest: int, rows: int) -> None:
    weight = np.random.default_rng(0).integers(-largest, largest + 1, (rows, 25, 16))

    chains = Mull8().chains(weight)

    assert sorted(step for chain in chains for step in chain) == list(range(25))
    assert all(np.abs(weight[:, chain]).sum(axis=1).max() <= 255 for chain in chains)
    assert len(chains) <= {1: 1, 28: 4, 64: 9, 127: 13}[largest]


def test_a_chain_ends_where_one_more_unit_could_overflow() -> None:
    weight = np.array([100, 100, 55, 1]).reshape(1, 4, 1)

    assert Mull8().chains(weight) == [[0, 1, 2], [3]]


# Rows of a chain.


@pytest.mark.parametrize(
    ("stride", "largest", "channels", "wide"),
    [(1, 127, 16, True), (1, 200, 16, False), (2, 200, 16, True), (1, 127, 8, False)],
    ids=["stride 1", "two steps of a weight", "the same at stride 2", "one block"],
)
def test_positions_have_64_bits_where_llvm_may_know_how_far_tiles_are_apart(
    stride: int, largest: int, channels: int, wide: bool
) -> None:
    weight = np.full((3, 3, channels), largest, np.int16)

    assert ('Cast("int64"' in of_rows(weight, stride, "cortex-a53")) is wide


@pytest.mark.parametrize(("largest", "wide"), [(127, True), (200, False)])
def test_the_dot_product_has_them_where_no_weight_takes_two_steps(largest: int, wide: bool) -> None:
    weight = np.full((3, 3, 16), largest, np.int16)

    assert ('Cast("int64"' in of_rows(weight, 1, "cortex-a76")) is wide


def test_llvm_does_not_know_how_far_the_lines_of_a_dot_product_tile_are_apart() -> None:
    """Else it brings their stores together and finishes the whole tile at once: 7 % more cycles."""
    assert of_rows(np.full((3, 3, 16), 1, np.int16), 1, "cortex-a76").count("pilite_apart") == 2


def of_rows(weight: Any, stride: int, cpu_name: str) -> str:
    """The kernel for three rows of a chain."""
    spec, arrays = operator(weight, (stride, stride), (1, 1), -128)
    cpu, channels = cpus.load(cpu_name), weight.shape[2]
    kernel = select(spec, arrays, cpu)
    variant, _ = kernel.family.prepare(spec, arrays)
    x = Layout((1, 2 * stride + 3, 12 * stride + 2, channels), "int8", Halo())
    with emitting(Share.ROWS):
        return str(
            kernel.family.emit("k", spec, variant, (x,), Layout((1, 3, 12, channels), "int8"), cpu).script()
        )


# Numbers.

WINDOWS: list[tuple[Pair, Pair, Pair]] = [  # kernel, stride, dilation
    ((3, 3), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (1, 1)),
    ((5, 5), (1, 1), (1, 1)),
    ((5, 5), (2, 2), (1, 1)),
    ((3, 3), (1, 1), (2, 2)),
    ((3, 3), (2, 1), (2, 1)),
    ((1, 3), (1, 2), (1, 1)),
    ((3, 1), (2, 1), (1, 1)),
    ((7, 3), (1, 3), (1, 1)),
    ((2, 7), (3, 1), (1, 1)),
    ((9, 11), (1, 1), (1, 1)),
]
SIZES = [(1, 1), (2, 3), (3, 5), (7, 7), (9, 4), (8, 9)]
CHANNELS = [3, 8, 12, 16, 25]
LOWEST = [-127, -128, -255, -20]  # weight: splits, is -128, needs nine bits, is small on both sides


def cases() -> list[tuple[tuple[Pair, Pair, Pair], Pair, int, int]]:
    """Every window with half of the sizes; channels and weights take turns."""
    pairs = [(window, size) for i, window in enumerate(WINDOWS) for size in SIZES[i % 2 :: 2]]
    return [
        (window, size, CHANNELS[i % len(CHANNELS)], LOWEST[i % len(LOWEST)])
        for i, (window, size) in enumerate(pairs)
    ]


def operator(
    weight: Any, stride: Pair, dilation: Pair, clamp_min: int, seed: int = 0
) -> tuple[s.QDepthwiseConv2D, s.Arrays]:
    rng = np.random.default_rng(seed)
    around = tuple((k - 1) * d // 2 for k, d in zip(weight.shape, dilation, strict=False))
    before = around[0], around[1]
    after = tuple((k - 1) * d - a for k, d, a in zip(weight.shape, dilation, before, strict=False))
    window = s.Window(weight.shape[:2], stride, dilation, before, (after[0], after[1]))
    channels = weight.shape[2]
    arrays = {
        "weight": weight,
        "bias": rng.integers(-20_000, 20_000, channels).astype(np.int32),
        "mantissa": rng.integers(1 << 30, (1 << 31) - 1, channels).astype(np.int32),
        "right": rng.integers(6, 7 if seed % 3 else 10, channels).astype(np.int32),  # one for all, or not
    }
    right = int(arrays["right"].min()), int(arrays["right"].max())
    requant = Requant(Rounding.GEMMLOWP, ZERO_POINT, clamp_min, 127, right=right)
    return s.QDepthwiseConv2D(window, requant), arrays


def expected(x: Any, spec: s.QDepthwiseConv2D, arrays: s.Arrays, shape: tuple[int, ...]) -> Any:
    """x with its halo (1, h, w, c) -> (1, oh, ow, c)."""
    _, oh, ow, _ = shape
    (down, right), (dy, dx) = spec.window.stride, spec.window.dilation
    weight = np.asarray(arrays["weight"], np.int64)
    acc = np.zeros(shape, np.int64) + np.asarray(arrays["bias"], np.int64)
    for i, j in np.ndindex(*weight.shape[:2]):
        rows = slice(i * dy, i * dy + (oh - 1) * down + 1, down)
        columns = slice(j * dx, j * dx + (ow - 1) * right + 1, right)
        acc += x[:, rows, columns].astype(np.int64) * weight[i, j]
    q = rounding_shift_right(rounding_doubling_high_mul(acc, arrays["mantissa"]), arrays["right"])
    return np.clip(q + ZERO_POINT, spec.requant.clamp_min, 127).astype(np.int8)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", cpus.names())
def test_depthwise_equals_numpy(cpu: str) -> None:
    target, runs, wanted = cpus.load(cpu), [], []
    for seed, ((kernel, stride, dilation), (h, w), channels, low) in enumerate(cases()):
        rng = np.random.default_rng(seed)
        weight = rng.integers(low, min(-low, 128), (*kernel, channels)).astype(np.int16)
        spec, arrays = operator(weight, stride, dilation, (-128, ZERO_POINT)[seed % 2], seed)
        x = Layout((1, h, w, channels), halo=Halo(*spec.window.before, *spec.window.after))
        y = Layout((1, -(-h // stride[0]), -(-w // stride[1]), channels))
        values = [-128] if seed % 4 == 3 else range(-128, 128)  # -128 everywhere: as far as sums can go
        data = rng.choice(values, x.outer).astype(np.int8)
        family = select(spec, arrays, target).family
        variant, constants = family.prepare(spec, arrays)
        function = family.emit("kernel", spec, variant, (x,), y, target)
        buffer = np.concatenate([data.ravel(), np.full(SLACK, 77, np.int8)])
        runs.append(KernelRun(function, [buffer, *constants], np.zeros(y.shape, np.int8)))
        wanted.append(expected(data, spec, arrays, y.shape))

    for case, found, right in zip(cases(), results(runs, cpu), wanted, strict=True):
        np.testing.assert_array_equal(found, right, str(case))
