"""Calibration adds up exactly, for every kind of window."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.zoo import arithmetic
from models.zoo.arithmetic import Window

Array = npt.NDArray[Any]
WINDOWS = (Window(), Window((2, 2)), Window((2, 1), "VALID"), Window(dilation=(2, 2)))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 7), (2, 3)])
@pytest.mark.parametrize("side", [8, 9])
def test_calibration_sums_exactly(side: int, kernel: tuple[int, int], window: Window) -> None:
    """Against whole-number arithmetic, tap by tap; 255 * 127 * 576 does not fit float32's mantissa."""
    rng = np.random.default_rng(0)
    x = rng.integers(-255, 256, (2, side, side, 64)).astype(np.float32)
    filter = rng.integers(120, 128, (8, *kernel, 64)).astype(np.float32)
    met = _met(x.astype(int), kernel, window)

    np.testing.assert_array_equal(
        arithmetic.conv(x, filter, window), np.einsum("nyxijc,oijc->nyxo", met.filled(0), filter.astype(int))
    )
    np.testing.assert_array_equal(
        arithmetic.depthwise(x, filter[:1], window),
        np.einsum("nyxijc,ijc->nyxc", met.filled(0), filter[0].astype(int)),
    )
    np.testing.assert_array_equal(arithmetic.maximum(x, kernel, window), met.max(axis=(3, 4)))
    np.testing.assert_array_equal(
        arithmetic.average(x, kernel, window), met.mean(axis=(3, 4)).filled(0).astype(np.float32)
    )


@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 1)])
def test_a_transpose_convolution_spreads_inputs(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    """It is what a SAME convolution with these weights and this stride passes back."""
    rng = np.random.default_rng(0)
    filter = rng.integers(-128, 128, (5, *kernel, 4)).astype(np.float32)
    x = rng.integers(-255, 256, (1, 3, 4, 4)).astype(np.float32)
    y = arithmetic.transposed(x, filter, stride)
    probe = rng.integers(-255, 256, y.shape).astype(np.float32)
    back = arithmetic.conv(probe, filter.transpose(3, 1, 2, 0), Window(stride))

    assert y.shape == (1, 3 * stride[0], 4 * stride[1], 5)
    assert np.vdot(y.astype(float), probe) == np.vdot(x.astype(float), back)


def test_sums_that_do_not_fit_float32_are_made_in_float64() -> None:
    assert arithmetic.exact_type(np.full((8, 9 * 64), 120, np.float32)) is np.float64
    assert arithmetic.exact_type(np.full((8, 64), 120, np.float32)) is np.float32


def test_a_depth_multiplier_repeats_each_input_channel() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)

    np.testing.assert_array_equal(
        arithmetic.depthwise(x, np.ones((1, 1, 1, 6), np.float32), Window()), np.repeat(x, 2, axis=-1)
    )


def _met(x: Array, kernel: tuple[int, int], window: Window) -> Any:
    """What a window meets, (n, oh, ow, kh, kw, c); what lies outside the image is masked."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, window.stride, window.dilation
    n, h, w, c = x.shape
    spans = ((h, (kh - 1) * dh + 1, sh), (w, (kw - 1) * dw + 1, sw))
    same = window.padding == "SAME"
    oh, ow = (-(-size // s) if same else (size - span) // s + 1 for size, span, s in spans)
    before = [max((-(-size // s) - 1) * s + span - size, 0) // 2 if same else 0 for size, span, s in spans]
    masked: Any = np.ma  # untyped
    met = masked.masked_all((n, oh, ow, kh, kw, c), np.int64)
    for oy, ox, i, j in np.ndindex(oh, ow, kh, kw):
        y, z = oy * sh + i * dh - before[0], ox * sw + j * dw - before[1]
        if 0 <= y < h and 0 <= z < w:
            met[:, oy, ox, i, j] = x[:, y, z]
    return met
