"""Sums for calibration, exact in floating point: every partial sum is a whole number in the mantissa.

So the order in which a BLAS adds cannot show, and every machine computes the same accumulators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler.shapes import extent

Steps = npt.NDArray[np.float32]  # quantized values minus their zero point, (n, h, w, c)
Floats = npt.NDArray[np.floating[Any]]
Pair = tuple[int, int]
LARGEST_STEP = 255  # |q - zero point| of an 8-bit value


@dataclass(frozen=True)
class Window:
    """How a window moves over an image, as in the operators' options."""

    stride: Pair = (1, 1)
    padding: str = "SAME"
    dilation: Pair = (1, 1)


def conv(x: Steps, filter: Steps, window: Window) -> Floats:
    """Accumulators of a convolution without bias, (n, oh, ow, oc); `filter` is (oc, kh, kw, ic)."""
    taps = _taps(x, filter.shape[1:3], window)
    return dense(np.concatenate(taps, axis=-1) if len(taps) > 1 else taps[0], filter.reshape(len(filter), -1))


def dense(x: Steps, filter: Steps) -> Floats:
    """`x` (..., depth) times `filter` (units, depth): (..., units)."""
    exact = exact_type(filter)
    acc: Floats = np.matmul(x.astype(exact, copy=False), filter.T.astype(exact))
    return acc


def depthwise(x: Steps, filter: Steps, window: Window) -> Floats:
    """Accumulators of a depthwise convolution, (n, oh, ow, c * multiplier); `filter` (1, kh, kw, the same).

    float32 is exact: a few dozen products of 8-bit steps stay below 2**24.
    """
    _, *kernel, channels = filter.shape
    assert exact_type(filter.reshape(-1, channels).T) is np.float32
    x = np.repeat(x, channels // x.shape[-1], axis=-1)
    acc: Floats | None = None
    for tap, weights in zip(_taps(x, kernel, window), filter.reshape(-1, channels), strict=True):
        acc = tap * weights if acc is None else np.add(acc, tap * weights, out=acc)
    assert acc is not None
    return acc


def transposed(x: Steps, filter: Steps, stride: Pair) -> Floats:
    """Accumulators of a SAME transpose convolution, (n, h * sh, w * sw, oc); `filter` is (oc, kh, kw, ic).

    Every input adds its products to a window of outputs; the windows of neighbours overlap.
    """
    (n, h, w, _), (oc, kh, kw, _), (sh, sw) = x.shape, filter.shape, stride
    exact = exact_type(filter.reshape(oc, -1))
    acc = np.zeros((n, (h - 1) * sh + max(kh, sh), (w - 1) * sw + max(kw, sw), oc), exact)
    for i, j in np.ndindex(kh, kw):
        acc[:, i : i + (h - 1) * sh + 1 : sh, j : j + (w - 1) * sw + 1 : sw] += dense(x, filter[:, i, j])
    top, left = max(kh - sh, 0) // 2, max(kw - sw, 0) // 2
    return acc[:, top : top + h * sh, left : left + w * sw]


def average(x: Steps, kernel: Pair, window: Window) -> Steps:
    """Mean of what the window meets; padding does not count. Sums of whole numbers are exact in any order."""
    total = sum(tap.astype(np.float64) for tap in _taps(x, kernel, window))
    count = sum(tap.astype(np.float64) for tap in _taps(np.ones_like(x[:1, :, :, :1]), kernel, window))
    mean: Steps = np.asarray(total / count).astype(np.float32)
    return mean


def maximum(x: Steps, kernel: Pair, window: Window) -> Steps:
    """The largest value that the window meets; padding does not count."""
    taps = _taps(x, kernel, window, padding=-2 * LARGEST_STEP)
    largest = taps[0].copy()
    for tap in taps[1:]:
        np.maximum(largest, tap, out=largest)
    return largest


def exact_type(rows: Steps) -> type[np.floating[Any]]:
    """The cheapest float type that holds every partial sum of these weight rows times 8-bit steps exactly."""
    largest = LARGEST_STEP * float(np.abs(rows).astype(np.float64).sum(axis=1).max())
    return np.float32 if largest < 2**24 else np.float64


def _taps(x: Steps, kernel: Any, window: Window, padding: float = 0) -> list[Steps]:
    """For each position in the window the inputs that it meets, (n, oh, ow, c); 0 is the zero point."""
    along = list(zip(x.shape[1:3], kernel, window.stride, window.dilation, strict=True))
    if window.padding == "SAME":
        x = np.pad(x, [(0, 0), *(_same(*one) for one in along), (0, 0)], constant_values=padding)
    starts = [range(0, k * dilation, dilation) for _, k, _, dilation in along]
    (oh, ow), (sh, sw) = (extent(*one, window.padding) for one in along), window.stride
    return [
        x[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
        for i in starts[0]
        for j in starts[1]
    ]


def _same(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """TFLite's SAME padding before and after; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
