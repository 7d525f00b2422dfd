"""ResNet-50 version 1.5 (the stride is in the 3x3 convolution), as Keras builds and TFLite converts it."""

from __future__ import annotations

from models.zoo.layers import CLASSES, Builder, Net

# (channels inside, blocks, stride of the first) of each stage; a block's output has four times the channels
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def resnet_50(width: float, resolution: int, dtype: str) -> Net:
    """Explicit PAD and a VALID first convolution; ReLU behind every addition."""
    b = Builder(resolution, dtype)
    x = b.conv(b.pad(b.input, 3), channels(64, width), (7, 7), 2, padding="VALID")
    x = b.pool(x, "MAX", (3, 3), 2)
    for inside, blocks, stride in STAGES:
        for i in range(blocks):
            x = _block(b, x, channels(inside, width), stride if i == 0 else 1)
    return b.finish(b.softmax(b.dense(b.mean(x, keep_dims=False), CLASSES, "logits")))


def channels(count: int, width: float) -> int:
    return max(8, int(count * width))


def _block(b: Builder, x: int, inside: int, stride: int) -> int:
    """Bottleneck; the shortcut is a convolution where the shape changes."""
    y = b.conv(x, inside)
    y = b.conv(y, inside, (3, 3), stride)
    y = b.conv(y, 4 * inside, activation="NONE")
    same = b.shapes[x] == b.shapes[y]
    shortcut = x if same else b.conv(x, 4 * inside, stride=stride, activation="NONE")
    return b.sum(y, shortcut, "RELU")
