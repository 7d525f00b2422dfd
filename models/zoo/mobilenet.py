"""MobileNet V1 and V2 as lists of TFLite operators, the same list as in the published quantized files.

Widths follow the published rules: V1 truncates `width * channels` (at least 8), V2 rounds to a multiple of 8
that is not more than 10 % smaller. V2 widens its last convolution above 1280 channels only when `width` > 1.
"""

from __future__ import annotations

from models.zoo.layers import Builder, Net

# (channels, stride) of each depthwise-separable block
V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

# (expansion, channels, repeats, stride of the first) of each group of inverted residuals
V2_GROUPS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def v1(width: float, resolution: int, dtype: str) -> Net:
    """MobileNet V1: 13 blocks of depthwise 3x3 and pointwise 1x1 convolution."""
    b = Builder(resolution, dtype)
    x = b.conv(b.input, v1_channels(32, width), (3, 3), 2, "RELU6")
    for channels, stride in V1_BLOCKS:
        x = b.depthwise(x, stride=stride)
        x = b.conv(x, v1_channels(channels, width), activation="RELU6")
    return _classified(b, x, pool_stride=2)


def v2(width: float, resolution: int, dtype: str) -> Net:
    """MobileNet V2: inverted residuals with linear bottlenecks."""
    b = Builder(resolution, dtype)
    x = b.conv(b.input, v2_channels(32, width), (3, 3), 2, "RELU6")
    for expansion, channels, repeats, stride in V2_GROUPS:
        for i in range(repeats):
            x = inverted_residual(b, x, expansion, v2_channels(channels, width), stride if i == 0 else 1)
    x = b.conv(x, v2_channels(1280, max(1.0, width)), activation="RELU6")
    return _classified(b, x, pool_stride=1)


def v1_channels(channels: int, width: float) -> int:
    return max(8, int(channels * width))


def v2_channels(channels: int, width: float) -> int:
    """The multiple of 8 nearest to `channels * width` that is not more than 10 % smaller, at least 8."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def inverted_residual(
    b: Builder, x: int, expansion: int, channels: int, stride: int, kernel: int = 3, dilation: int = 1
) -> int:
    """Expand 1x1, depthwise, project 1x1 without activation; add the input where the shapes allow it."""
    y = b.conv(x, b.channels(x) * expansion, activation="RELU6") if expansion > 1 else x
    y = b.depthwise(y, (kernel, kernel), stride, dilation=dilation)
    return residual(b, x, b.conv(y, channels, activation="NONE"))


def residual(b: Builder, x: int, y: int) -> int:
    """`y`, or its sum with `x` if both have the same shape; operands in the order of the published files."""
    if b.shapes[x] != b.shapes[y]:
        return y
    return b.sum(x, y) if b.quantized_ends else b.sum(y, x)


def _classified(b: Builder, x: int, pool_stride: int) -> Net:
    pooled = b.mean(x, keep_dims=True) if b.quantized_ends else b.global_pool(x, pool_stride)
    return b.finish(b.classify(pooled))
