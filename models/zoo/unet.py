"""A U-Net: MobileNet V2 goes down, transpose convolutions go up, joined with images of the same size.

Layers and channels of TensorFlow's tutorial on image segmentation, which google-coral's
keras_post_training_unet_mv2_128_quant follows: a class of three for every pixel.
"""

from __future__ import annotations

from models.zoo.layers import Builder, Net
from models.zoo.mobilenet import V2_GROUPS, inverted_residual, v2_channels

CLASSES = 3
UP = (512, 256, 128, 64)  # channels of each doubling


def mobilenet_v2(width: float, resolution: int, dtype: str) -> Net:
    b = Builder(resolution, dtype)
    x, skips = _features(b, width)
    for channels, skip in zip(UP, reversed(skips), strict=True):
        x = b.relu(b.transpose_conv(x, v2_channels(channels, width), role="before RELU"), role="RELU")
        x = b.concat([x, skip])
    return b.finish(b.transpose_conv(x, CLASSES))


def _features(b: Builder, width: float) -> tuple[int, list[int]]:
    """MobileNet V2 up to its last bottleneck, and the expansions before each stride."""
    x = b.conv(b.input, v2_channels(32, width), (3, 3), 2, "RELU6")
    skips = []
    for expansion, channels, repeats, stride in V2_GROUPS:
        for i in range(repeats):
            if stride == 2 and i == 0:
                skips.append(len(b.layers) + 1)  # what the block's first operator gives
            x = inverted_residual(b, x, expansion, v2_channels(channels, width), stride if i == 0 else 1)
    return x, skips
