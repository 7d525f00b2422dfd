"""Where a resized image's rows and columns come from, as TFLite's reference kernels compute it.

Sources: XNNPACK as said below; reference/resize_bilinear.h, reference/resize_nearest_neighbor.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler.graph import Resize

FRACTION_BITS = 10
ONE = 1 << FRACTION_BITS


@dataclass(frozen=True, eq=False)
class Lines:
    """For every output row (or column) its two input rows and their weights: both (count, 2)."""

    index: npt.NDArray[np.int32]
    weight: npt.NDArray[Any]  # int32 with 10 fractional bits, or float32


def bilinear(size: int, count: int, o: Resize, *, rounded: bool) -> Lines:
    """`size` lines become `count`. `rounded`: the fixed point of int8 images, else the float32 of others."""
    return _fixed(size, count, o) if rounded else _float(size, count, o)


def _fixed(size: int, count: int, o: Resize) -> Lines:
    top, bottom = (size - 1, count - 1) if o.align_corners and count > 1 else (size, count)
    scale = (ONE * top + bottom // 2) // bottom
    at = np.arange(count, dtype=np.int64) * scale
    if o.half_pixel_centers:
        at = at + scale // 2 - ONE // 2
    low = np.maximum(_toward_zero(at), 0)
    high = np.minimum(_toward_zero(at + ONE - 1), size - 1)
    part = at - ONE * low
    return Lines(_pairs(low, high, np.int32), _pairs(ONE - part, part, np.int32))


def _toward_zero(x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(x < 0, -(-x // ONE), x // ONE)


def _float(size: int, count: int, o: Resize) -> Lines:
    at = _places(size, count, o)
    low = np.maximum(np.floor(at), np.float32(0)).astype(np.int32)
    high = np.minimum(np.ceil(at).astype(np.int32), size - 1)
    part = at - low.astype(np.float32)
    return Lines(_pairs(low, high, np.int32), _pairs(np.float32(1) - part, part, np.float32))


def fine(size: int, count: int, o: Resize) -> Lines:
    """XNNPACK's weights with 11 fractional bits (src/indirection.c)."""
    one = np.float32(1)
    less = one if o.align_corners and count > 1 else np.float32(0)
    scale = (np.float32(size) - less) / (np.float32(count) - less)
    at = np.arange(count, dtype=np.float32) * scale
    if o.half_pixel_centers:
        middle = at + (np.float32(0.5) * scale - np.float32(0.5))
        at = np.minimum(np.maximum(middle, np.float32(0)), np.float32(size - 1))
    low = at.astype(np.int32)
    part = np.rint((at - low.astype(np.float32)) * np.float32(2048)).astype(np.int32)
    return Lines(_pairs(low, np.minimum(low + 1, size - 1), np.int32), _pairs(2048 - part, part, np.int32))


def _places(size: int, count: int, o: Resize) -> npt.NDArray[np.float32]:
    scale = _scale(size, count, o)
    at = np.arange(count, dtype=np.float32)
    return (at + np.float32(0.5)) * scale - np.float32(0.5) if o.half_pixel_centers else at * scale


def _scale(size: int, count: int, o: Resize) -> np.float32:
    if o.align_corners and count > 1:
        return np.float32(np.float32(size - 1) / np.float32(count - 1))
    return np.float32(np.float32(size) / np.float32(count))


def _pairs(a: npt.NDArray[Any], b: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
    pairs: npt.NDArray[Any] = np.stack([a, b], -1).astype(dtype)
    return pairs


def nearest(size: int, count: int, o: Resize) -> npt.NDArray[np.int32]:
    """The input line of every output line."""
    offset = np.float32(0.5 if o.half_pixel_centers else 0)
    at = (np.arange(count, dtype=np.float32) + offset) * _scale(size, count, o)
    whole = np.floor(at.astype(np.float64) + 0.5) if o.align_corners else np.floor(at)
    lines: npt.NDArray[np.int32] = np.clip(whole, 0, size - 1).astype(np.int32)
    return lines
