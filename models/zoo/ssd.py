"""SSD on MobileNet V1 and V2: detections of COCO's classes on six images from fine to coarse.

The operators of the published quantized files, with TFLite_Detection_PostProcess: the ten detections of the
highest scores. An int8 model dequantizes boxes and scores before it, which takes no int8.
"""

from __future__ import annotations

import math

from models.zoo.layers import Box, Builder, Net
from models.zoo.mobilenet import V1_BLOCKS, V2_GROUPS, inverted_residual, v1_channels, v2_channels
from pilite.compiler.graph import Detection

CLASSES = 91  # of COCO, with the background
SMALLEST, LARGEST = 0.2, 0.95  # scales of the boxes at each pixel of the finest and of the coarsest image
RATIOS = (1.0, 2.0, 0.5, 3.0, 1 / 3)  # of width to height
POST_PROCESS = Detection(
    most=10,
    per_box=1,
    per_class=100,
    regular=False,
    score=1e-8,
    overlap=0.6,
    classes=CLASSES - 1,
    scale=(10.0, 10.0, 5.0, 5.0),
)
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
                fine = len(b.shapes)  # what the block's first operator gives
            x = inverted_residual(b, x, expansion, v2_channels(channels, width), stride if i == 0 else 1)
    x = b.conv(x, v2_channels(1280, max(1.0, width)), activation="RELU6")
    return _detected(b, [fine, x], width)


def _detected(b: Builder, images: list[int], width: float) -> Net:
    for narrow, wide in EXTRA:
        x = b.conv(images[-1], v2_channels(narrow, width), activation="RELU6")
        images.append(b.conv(x, v2_channels(wide, width), (3, 3), 2, "RELU6"))
    boxes, scores = [], []
    anchors: list[Box] = []
    for image, forms in zip(images, _forms(len(images)), strict=True):
        _, h, w, _ = b.shapes[image]
        count = h * w * len(forms)
        x = b.conv(image, 4 * len(forms), activation="NONE", role="boxes")
        boxes.append(b.reshape(x, 1, count, 1, 4))
        x = b.conv(image, CLASSES * len(forms), activation="NONE", role="scores")
        scores.append(b.reshape(x, 1, count, CLASSES))
        anchors += _tiled(h, w, forms)
    box = b.reshape(b.concat(boxes, axis=1), 1, len(anchors), 4)
    score = b.logistic(b.concat(scores, axis=1))
    if b.quantized_ends:
        box, score = b.dequantize(box), b.dequantize(score)
    return b.finish(*b.detect(box, score, anchors, POST_PROCESS), quantized=False)


def _forms(images: int) -> list[list[tuple[float, float]]]:
    """For each image the heights and widths of the boxes at a pixel (Liu et al., arXiv 1512.02325, 2.2).

    The finest has three, one of half its scale; the others one more square, of a scale towards the next.
    """
    scales = [SMALLEST + (LARGEST - SMALLEST) * i / (images - 1) for i in range(images)]
    forms = [[_form(SMALLEST / 2, 1.0), *(_form(SMALLEST, ratio) for ratio in RATIOS[1:3])]]
    for scale, larger in zip(scales[1:], [*scales[2:], 1.0], strict=True):
        forms.append([*(_form(scale, ratio) for ratio in RATIOS), _form(math.sqrt(scale * larger), 1.0)])
    return forms


def _form(scale: float, ratio: float) -> tuple[float, float]:
    return scale / math.sqrt(ratio), scale * math.sqrt(ratio)


def _tiled(h: int, w: int, forms: list[tuple[float, float]]) -> list[Box]:
    return [((y + 0.5) / h, (x + 0.5) / w, *form) for y in range(h) for x in range(w) for form in forms]
