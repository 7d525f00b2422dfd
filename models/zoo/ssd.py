"""SSD on MobileNet V1 and V2: boxes and scores of COCO's classes on six images from fine to coarse.

The operators of the published quantized files up to TFLite_Detection_PostProcess.
"""

from __future__ import annotations

from models.zoo.layers import Builder, Net
from models.zoo.mobilenet import V1_BLOCKS, V2_GROUPS, inverted_residual, v1_channels, v2_channels

CLASSES = 91  # of COCO, with the background
ANCHORS = (3, 6, 6, 6, 6, 6)  # boxes at each pixel of the six images
EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))  # channels of the coarser images: 1x1, then 3x3


def mobilenet_v1(width: float, resolution: int, dtype: str) -> Net:
    """The finest image is that before the last stride."""
    b = Builder(resolution, dtype)
    x = b.conv(b.input, v1_channels(32, width), (3, 3), 2, "RELU6")
    fine = x
    for channels, stride in V1_BLOCKS:
        if stride == 2:
            fine = x
        x = b.depthwise(x, stride=stride)
        x = b.conv(x, v1_channels(channels, width), activation="RELU6")
    return _detected(b, [fine, x], width)


def mobilenet_v2(width: float, resolution: int, dtype: str) -> Net:
    """The finest image is the expansion before the last stride."""
    b = Builder(resolution, dtype)
    x = b.conv(b.input, v2_channels(32, width), (3, 3), 2, "RELU6")
    fine = x
    for expansion, channels, repeats, stride in V2_GROUPS:
        for i in range(repeats):
            if stride == 2 and i == 0:
                fine = len(b.layers) + 1  # what the block's first operator gives
            x = inverted_residual(b, x, expansion, v2_channels(channels, width), stride if i == 0 else 1)
    x = b.conv(x, v2_channels(1280, max(1.0, width)), activation="RELU6")
    return _detected(b, [fine, x], width)


def _detected(b: Builder, images: list[int], width: float) -> Net:
    for narrow, wide in EXTRA:
        x = b.conv(images[-1], v2_channels(narrow, width), activation="RELU6")
        images.append(b.conv(x, v2_channels(wide, width), (3, 3), 2, "RELU6"))
    boxes, scores = [], []
    for image, anchors in zip(images, ANCHORS, strict=True):
        _, h, w, _ = b.shapes[image]
        count = h * w * anchors
        boxes.append(b.reshape(b.conv(image, 4 * anchors, activation="NONE", role="boxes"), 1, count, 1, 4))
        x = b.conv(image, CLASSES * anchors, activation="NONE", role="scores")
        scores.append(b.reshape(x, 1, count, CLASSES))
    box = b.concat(boxes, axis=1)
    total = b.shapes[box][1]
    return b.finish(b.reshape(box, 1, total, 4), b.logistic(b.concat(scores, axis=1)))
