"""Convolutions for calibration, exact in floating point: every partial sum is a whole number in the mantissa.

So the order in which a BLAS adds cannot show, and every machine computes the same accumulators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Steps = npt.NDArray[np.float32]  # quantized values minus their zero point, (n, h, w, c)
Floats = npt.NDArray[np.floating[Any]]
LARGEST_STEP = 255  # |q - zero point| of an 8-bit value


def conv(x: Steps, filter: Steps, stride: int) -> Floats:
    """Accumulators of a SAME convolution without bias, (n, oh, ow, oc); `filter` is (oc, kh, kw, ic)."""
    size = filter.shape[1]
    exact = exact_type(filter.reshape(len(filter), -1))
    taps = [x] if size == stride == 1 else _taps(x, size, stride)
    columns = np.concatenate(taps, axis=-1) if len(taps) > 1 else taps[0]
    matrix = filter.reshape(len(filter), -1).T.astype(exact)
    acc: Floats = np.matmul(columns.astype(exact, copy=False), matrix)
    return acc


def depthwise(x: Steps, filter: Steps, stride: int) -> Floats:
    """Accumulators of a SAME depthwise convolution, (n, oh, ow, c); `filter` is (1, kh, kw, c).

    float32 is exact: nine products of 8-bit steps stay far below 2**24.
    """
    _, size, _, channels = filter.shape
    acc: Floats | None = None
    for tap, weights in zip(_taps(x, size, stride), filter.reshape(-1, channels), strict=True):
        acc = tap * weights if acc is None else np.add(acc, tap * weights, out=acc)
    assert acc is not None
    return acc


def exact_type(rows: Steps) -> type[np.floating[Any]]:
    """The cheapest float type that holds every partial sum of these weight rows times 8-bit steps exactly."""
    largest = LARGEST_STEP * float(np.abs(rows).astype(np.float64).sum(axis=1).max())
    return np.float32 if largest < 2**24 else np.float64


def _taps(x: Steps, size: int, stride: int) -> list[Steps]:
    """For each filter position the inputs that it meets, (n, oh, ow, c); padding is 0: the zero point."""
    edges = [(0, 0), *(_same(n, size, stride) for n in x.shape[1:3]), (0, 0)]
    padded = np.pad(x, edges)
    oh, ow = (-(-n // stride) for n in x.shape[1:3])
    return [
        padded[:, i : i + (oh - 1) * stride + 1 : stride, j : j + (ow - 1) * stride + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TFLite's SAME padding before and after; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
