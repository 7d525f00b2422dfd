"""EfficientNet-Lite0: inverted residuals with 3x3 and 5x5 windows, ReLU6, no squeeze-and-excite."""

from __future__ import annotations

from models.zoo.layers import Builder, Net
from models.zoo.mobilenet import inverted_residual, v2_channels

# (expansion, channels, repeats, stride of the first, window) of each group
GROUPS = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
CLASSES = 1000  # no background class


def lite0(width: float, resolution: int, dtype: str) -> Net:
    b = Builder(resolution, dtype)
    x = b.conv(b.input, v2_channels(32, width), (3, 3), 2, "RELU6")
    for expansion, channels, repeats, stride, kernel in GROUPS:
        for i in range(repeats):
            x = inverted_residual(
                b, x, expansion, v2_channels(channels, width), stride if i == 0 else 1, kernel
            )
    x = b.global_pool(b.conv(x, v2_channels(1280, max(1.0, width)), activation="RELU6"))
    return b.finish(b.softmax(b.dense(b.reshape(x, 1, b.channels(x)), CLASSES, "logits")))
