"""Geometry and numbers where kernels break, one operator each, bit for bit against TFLite.

Random models (test_one_op.py) meet most of these now and then; here each is met on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.batch import check_bits
from tests.draw import OneOp
from tests.native import EVERY_CPU
from tests.nets import Net, Pair, Sums, Window
from tests.one_op import DTYPES

Make = Callable[[Net], int]
pytestmark = pytest.mark.slow

ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
EDGES = (*range(1, 18), 31, 32, 33)  # MR, NR and K granules are 4, 8 or 16: each with its neighbours
TIES = Sums(ties=True, bias=60)


def conv(image: tuple[int, int, int, int], channels: int, kernel: Pair = (1, 1), **window: object) -> Make:
    sums = window.pop("sums", Sums())
    assert isinstance(sums, Sums)
    return lambda net: net.conv(net.input(*image), channels, kernel, Window(**window), sums)  # type: ignore[arg-type]


def depthwise(image: tuple[int, int, int, int], kernel: Pair, multiplier: int = 1, **window: object) -> Make:
    sums = window.pop("sums", Sums())
    assert isinstance(sums, Sums)
    spans = Window(**window)  # type: ignore[arg-type]
    return lambda net: net.depthwise(net.input(*image), kernel, spans, sums, multiplier)


def dense(rows: int, depth: int, units: int, sums: Sums = Sums()) -> Make:  # noqa: B008 - frozen
    return lambda net: net.dense(net.input(rows, depth), units, sums=sums)


# Geometry.


def widths() -> Iterator[tuple[str, Make]]:
    """Pixels per row against the rows of a register tile; halos on both sides."""
    for width in EDGES:
        yield f"conv 1x1, width {width}", conv((1, 2, width, 5), 7)
        yield f"conv 3x3, width {width}", conv((1, 3, width, 3), 16, (3, 3))
        yield f"depthwise 3x3, width {width}", depthwise((1, 3, width, 9), (3, 3))


def channels() -> Iterator[tuple[str, Make]]:
    """Output channels against the columns of a register tile and the channels of a depthwise block."""
    for n in EDGES:
        yield f"conv 1x1 to {n}", conv((1, 2, 5, 6), n)
        yield f"conv 3x3 to {n}", conv((1, 3, 4, 2), n, (3, 3))
        yield f"depthwise 3x3 of {n}", depthwise((1, 4, 5, n), (3, 3))
        yield f"pools of {n}", lambda net, n=n: net.pool(net.pool(net.input(1, 4, 4, n), "AVERAGE"), "MAX")  # type: ignore[misc]


def depths() -> Iterator[tuple[str, Make]]:
    """Length of the sum against the granules of K and the 96 values that AVX2 widens at a time."""
    for n in (*EDGES, 95, 96, 97, 191, 192, 193, 200, 260):
        yield f"conv 1x1 from {n}", conv((1, 2, 3, n), 5)
        yield f"conv 1x1 from {n} to 16", conv((1, 2, 5, n), 16)
        yield f"fully connected from {n}", dense(2, n, 24)
    for n in EDGES[:12]:
        yield f"conv 3x3 from {n}", conv((1, 3, 4, n), 3, (3, 3))
        yield f"conv 1x3 dilated from {n}", conv((1, 2, 7, n), 8, (1, 3), dilation=(1, 2))
    for n in (1, 3, 9, 17):  # many runs, too long together to be straight code, each shorter than a step
        yield f"conv 9x9 dilated from {n}", conv((1, 5, 6, n), 5, (9, 9), dilation=(1, 2))


def windows() -> Iterator[tuple[str, Make]]:
    """Stride, dilation, padding and batch, also where the window is larger than the image."""
    for kernel, stride, dilation, padding in product(
        ((1, 1), (2, 3), (3, 3)), ((1, 1), (2, 1), (3, 4)), ((1, 1), (2, 1), (1, 3)), ("SAME", "VALID")
    ):
        spans: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding": padding}
        text = f"{kernel}, stride {stride}, dilation {dilation}, {padding}"
        yield f"conv {text}", conv((1, 9, 10, 3), 5 if sum(kernel) % 2 else 16, kernel, **spans)
        yield f"depthwise {text}", depthwise((1, 9, 10, 3), kernel, **spans)
    for image in ((3, 1, 1, 4), (3, 1, 6, 4), (3, 6, 1, 4), (1, 2, 2, 4), (2, 1, 9, 17)):
        yield f"conv 5x5 on {image}", conv(image, 9, (5, 5))
        yield f"depthwise 5x5 on {image}", depthwise(image, (5, 5), stride=(2, 2))
        yield f"conv 1x1 on {image}", conv(image, 9)
        yield f"conv 1x1, stride 2 on {image}", conv(image, 9, stride=(2, 2))


LARGE = ((5, 5), (7, 7), (1, 9), (9, 1), (10, 4), (11, 11), (4, 8), (3, 11), (6, 6), (33, 1))


def large_windows() -> Iterator[tuple[str, Make]]:
    """Depthwise windows around and above the 32 taps that are unrolled."""
    for kernel, multiplier in product(LARGE, (1, 8)):
        yield f"depthwise {kernel} x{multiplier}", depthwise((1, 12, 11, 3), kernel, multiplier)
    for kernel in LARGE[:6]:
        yield f"depthwise {kernel} of 1", depthwise((1, 12, 11, 1), kernel, 8)
        yield f"depthwise {kernel}, stride 2", depthwise((1, 13, 14, 17), kernel, stride=(2, 2))
        yield f"conv {kernel}", conv((1, 12, 11, 2), 5, kernel)


# Numbers.


# Stored weight (a byte, so 128 is -128 in int8) and zero point (uint8 only): their distance reaches 255.
ENDS = ((0, 255), (255, 0), (128, 0), (128, 255), (127, 128), (129, 1))


def extremes() -> Iterator[tuple[str, Make]]:
    """All weights at an end of their range: sums of products in int16 overflow here first."""
    for weight, zero_point in ENDS:
        sums = Sums(weight=weight, zero_point=zero_point)
        text = f"weights {weight}, zero point {zero_point}"
        yield f"conv, {text}", conv((1, 3, 5, 17), 9, (3, 3), sums=sums)
        yield f"conv to 16, {text}", conv((1, 3, 5, 16), 16, (3, 3), sums=sums)
        yield f"depthwise, {text}", depthwise((1, 5, 5, 17), (3, 3), sums=sums)
        yield f"large depthwise, {text}", depthwise((1, 7, 7, 9), (7, 7), sums=sums)
        yield f"dense, {text}", dense(2, 40, 9, sums)


MULTIPLIERS = (2.0**-40, 2.0**-32, 1.5 * 2.0**-32, 1.99 * 2.0**-32, 2.0**-31, 2.0**-30, 2.0**-20, 0.5)
LEFT = (0.75, 0.999999, 1.0, 1.000001, 1.5, 2.0, 7.3, 100.0)


def multipliers() -> Iterator[tuple[str, Make]]:
    """From mantissa 0 over the largest right shift to left shifts; biases that make large accumulators."""
    for m in MULTIPLIERS:
        sums = Sums(multiplier=m, bias=2_000_000_000)
        yield f"conv, multiplier {m}", conv((1, 2, 5, 3), 17, sums=sums)
        yield f"conv to 16, multiplier {m}", conv((1, 2, 5, 3), 16, sums=sums)
        yield f"depthwise, multiplier {m}", depthwise((1, 3, 5, 17), (3, 3), sums=sums)
    for m in LEFT:
        sums = Sums(multiplier=m, weight=1, zero_point=0, bias=30)
        yield f"conv, multiplier {m}", conv((1, 2, 5, 2), 17, sums=sums)
        yield f"conv to 8, multiplier {m}", conv((1, 2, 5, 2), 8, sums=sums)
        yield f"depthwise, multiplier {m}", depthwise((1, 3, 5, 17), (1, 2), sums=sums)
        yield f"dense, multiplier {m}", dense(3, 3, 17, sums)


def activations() -> Iterator[tuple[str, Make]]:
    """Every second result is a tie. It shows where the clamp does not hide negative values."""
    for activation in ACTIVATIONS:
        yield f"conv, ties, {activation}", conv((1, 5, 5, 8), 33, activation=activation, sums=TIES)
        yield f"conv to 16, ties, {activation}", conv((1, 5, 5, 8), 16, activation=activation, sums=TIES)
        yield (
            f"depthwise, ties, {activation}",
            depthwise((1, 9, 9, 33), (3, 3), activation=activation, sums=TIES),
        )
        yield f"conv, {activation}", conv((1, 5, 5, 8), 33, activation=activation)
        yield f"depthwise, {activation}", depthwise((1, 9, 9, 33), (3, 3), activation=activation)
        yield f"average pool, {activation}", _pool(activation)
    yield "dense, ties", dense(9, 33, 33, TIES)


def _pool(activation: str) -> Make:
    spans = Window(stride=(1, 2), activation=activation)
    return lambda net: net.pool(net.input(2, 7, 7, 9), "AVERAGE", (3, 3), spans)


def large() -> Iterator[tuple[str, Make]]:
    """Enough work to be shared by threads, and sums that reach far."""
    yield "many rows", conv((1, 33, 31, 16), 24, (3, 3))
    yield "many columns", conv((1, 2, 2, 64), 521)
    yield "a long vector", dense(1, 1280, 257)
    yield "an overflowing sum", _overflowing
    yield "large depthwise", depthwise((1, 41, 43, 33), (3, 3))
    yield "few rows, many channels", depthwise((1, 3, 3, 333), (3, 3))
    yield "batch 3", conv((3, 13, 17, 19), 21, (3, 3), stride=(2, 2))
    yield "a mean of many", lambda net: net.mean(net.input(2, 30, 31, 17))
    yield "an average of many", lambda net: net.pool(net.input(1, 33, 33, 9), "AVERAGE", (33, 33))


def _overflowing(net: Net) -> int:
    """67,000 products of 128 and up to 255 leave int32, where TFLite's sum wraps."""
    x = net.input(1, 67_000, zero_point=int(np.iinfo(net.dtype).max))
    return net.dense(x, 3, sums=Sums(weight=128, zero_point=0, multiplier=2.0**-24))


GROUPS = (
    widths,
    channels,
    depths,
    windows,
    large_windows,
    extremes,
    multipliers,
    activations,
    large,
)


@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_edges_give_the_bits_of_tflite(
    group: Callable[[], Iterator[tuple[str, Make]]], dtype: str, cpu: str
) -> None:
    check_bits([_case(name, make, dtype) for name, make in group()], cpu)


def _case(name: str, make: Make, dtype: str) -> OneOp:
    net = Net(dtype)
    return net.case(f"{dtype} {name}", make(net))
