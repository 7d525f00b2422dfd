"""Random convolutions and FULLY_CONNECTED on 16-bit values with 8-bit weights and a 64-bit bias."""

from __future__ import annotations

import math

import numpy as np

from pilite.compiler.graph import Conv2D, DepthwiseConv2D, FullyConnected, Options, TransposeConv
from pilite.compiler.shapes import extent
from tests.draw import CHANNELS, DEPTHS, Draw, OneOp, Shape

SIZES = (1, 2, 3, 5, 8, 9)


def conv(d: Draw, op: str) -> OneOp:
    """CONV_2D and DEPTHWISE_CONV_2D."""
    image, size, stride = d.pair(SIZES), d.pair((1, 1, 2, 3, 5)), d.pair((1, 1, 2, 3))
    dilation, padding, batch = d.pick(((1, 1), (1, 1), (2, 1))), d.pick(("SAME", "VALID")), d.pick((1, 1, 2))
    sides = [extent(*side, padding) for side in zip(image, size, stride, dilation, strict=True)]
    if min(sides) < 1:
        padding = "SAME"
        sides = [extent(*side, padding) for side in zip(image, size, stride, dilation, strict=True)]
    ic, activation = d.pick(CHANNELS), d.pick(("NONE", "RELU", "RELU6", "RELU_N1_TO_1"))
    multiplier = d.pick((1, 1, 2, 3))
    deep = op == "DEPTHWISE_CONV_2D"
    oc = ic * multiplier if deep else d.pick(CHANNELS)
    groups = d.pick((1, 1, 1, 2, 3)) if not deep and max(ic, oc) < 10 else 1
    shape = (1, *size, oc) if deep else (oc * groups, *size, ic)
    options: Options = Conv2D(padding, stride, dilation, activation)
    if deep:
        options = DepthwiseConv2D(padding, stride, dilation, multiplier, activation)
    result = (batch, *sides, oc * groups)
    return _finish(d, op, (batch, *image, ic * groups), shape, 3 if deep else 0, result, options)


def fully_connected(d: Draw, op: str) -> OneOp:
    rows, depth, units = d.pick(((1,), (1,), (2,), (5,), (2, 3))), d.pick(DEPTHS), d.pick(DEPTHS)
    keep = d.chance(0.3)
    options = FullyConnected(d.pick(("NONE", "RELU")), keep)
    result = (*rows, units) if keep else (math.prod(rows), units)
    return _finish(d, op, (*rows, depth), (units, depth), 0, result, options, single=keep)


def _finish(
    d: Draw,
    op: str,
    x_shape: Shape,
    w_shape: Shape,
    axis: int,
    y_shape: Shape,
    options: Options,
    *,
    single: bool = False,
) -> OneOp:
    """Outputs that use their range, or leave it; one scale for all weights or one per channel."""
    channels, scale = w_shape[axis], d.near(2.0**-14, 8)
    count = 1 if single or d.chance(0.3) else channels
    scales = [d.near(0.01, 4) for _ in range(count)]
    x = d.tensor(x_shape, (scale,))
    w = d.tensor(
        w_shape, scales, dtype="int8", data=d.rng.integers(-127, 128, w_shape).astype(np.int8), axis=axis
    )
    products = [float(np.float32(scale) * np.float32(s)) for s in scales]
    to = "int64" if op == "DEPTHWISE_CONV_2D" else d.pick(("int64", "int64", "int32"))
    bias = d.rng.integers(-(2 ** d.pick((4, 20, 33 if to == "int64" else 30))), 2**20, channels)
    b = d.tensor((channels,), products, dtype=to, data=bias.astype(to))
    spread = math.sqrt(math.prod(w_shape) / channels) * 19_000 * 73
    y = d.tensor(y_shape, (d.near(max(products) * spread / 12_000, 4),))
    sums = (x, w) if op != "CONV_2D" and d.chance(0.25) else (x, w, b)
    operands = (d.integers(y_shape), w, x, *sums[2:]) if op == "TRANSPOSE_CONV" else sums
    return d.finish(op, operands, y, options)


def transpose_conv(d: Draw, op: str) -> OneOp:
    """The output of a convolution back to the input's size, or any other."""
    image, size, stride = d.pair(SIZES), d.pair((1, 1, 2, 3, 5)), d.pair((1, 2, 2, 3))
    batch, padding, activation = (
        d.pick((1, 1, 2)),
        d.pick(("SAME", "VALID")),
        d.pick(("NONE", "RELU", "RELU6")),
    )
    sides = [
        n * s + (max(k - s, 0) if padding == "VALID" else 0)
        for n, k, s in zip(image, size, stride, strict=True)
    ]
    if d.chance(0.15):
        sides = list(d.pair((1, 2, 5, 9)))
    ic, oc = d.pick(CHANNELS), d.pick(CHANNELS)
    options = TransposeConv(padding, stride, activation)
    return _finish(d, op, (batch, *image, ic), (oc, *size, ic), 0, (batch, *sides, oc), options)


OPS = {
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": conv,
    "FULLY_CONNECTED": fully_connected,
    "TRANSPOSE_CONV": transpose_conv,
}
