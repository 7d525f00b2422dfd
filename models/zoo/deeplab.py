"""DeepLab v3 on MobileNet V2 at output stride 16: the operators of the published quantized files."""

from __future__ import annotations

from models.zoo.layers import Builder, Net
from models.zoo.mobilenet import V2_GROUPS, inverted_residual, v1_channels

CLASSES = 21  # of Pascal VOC, with the background
HEAD = 256  # channels, at any width
SHRINKS = 4  # strides before the windows widen instead


def mobilenet_v2(width: float, resolution: int, dtype: str) -> Net:
    """A branch sees the whole picture; the classes of all pixels are the output, int64."""
    b = Builder(resolution, dtype)
    x = _features(b, width)
    _, h, w, _ = b.shapes[x]
    whole = b.global_pool(x)
    near = b.conv(x, HEAD)
    whole = b.resize(b.conv(whole, HEAD, role="whole picture"), h, w)
    x = b.conv(b.concat([b.rescale(whole, "RELU"), near]), HEAD)
    x = b.resize(b.conv(x, CLASSES, activation="NONE"), h, w)
    return b.finish(b.arg_max(b.resize(x, resolution, resolution)), quantized=False)


def _features(b: Builder, width: float) -> int:
    """MobileNet V2 up to its last bottleneck. After the fourth stride, strides become dilations."""
    x = b.conv(b.input, v1_channels(32, width), (3, 3), 2, "RELU6")
    strides, dilation = 1, 1
    for expansion, channels, repeats, stride in V2_GROUPS:
        for i in range(repeats):
            step, spread = stride if i == 0 else 1, dilation
            if step == 2:
                strides += 1
                if strides > SHRINKS:
                    step, dilation = 1, 2  # from the next block on
            x = inverted_residual(b, x, expansion, v1_channels(channels, width), step, dilation=spread)
    return x
