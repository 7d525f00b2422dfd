"""FAMILIES: the zoo's architectures by name, and what can be asked of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.zoo import deeplab, efficientnet, inception, mobilenet, mobilenet_v3, resnet, ssd, unet
from models.zoo.layers import Net


@dataclass(frozen=True)
class Family:
    """`build(width, resolution, dtype)`; the size and the work of the published quantized files."""

    build: Callable[[float, int, str], Net]
    published: int  # pixels of a side of the square RGB input
    gmacs: str  # 10**9 multiplications of one inference at width 1.0, to the digits of the source
    source: str  # of that figure
    smallest: int = 32  # pixels that the architecture has room for
    width_in_name: bool = False  # also when it is 1.0, as published


_COUNTED = "counted here: none is published"
_SLIM = "tensorflow/models, slim's table of MobileNet V3"
_TORCHVISION = "torchvision's table of classification weights"

FAMILIES: dict[str, Family] = {
    "mobilenet_v1": Family(mobilenet.v1, 224, "0.569", "arXiv 1704.04861, table 4", width_in_name=True),
    "mobilenet_v2": Family(mobilenet.v2, 224, "0.30", "arXiv 1801.04381, table 4", width_in_name=True),
    "inception_v1": Family(inception.v1, 224, "1.50", f"{_TORCHVISION}, GoogLeNet: 3x3 for 5x5, too"),
    "inception_v2": Family(inception.v2, 224, "1.94", "arXiv 1707.07012, table 2"),
    "inception_v3": Family(inception.v3, 299, "5.71", _TORCHVISION, smallest=75),
    "inception_v4": Family(inception.v4, 299, "12.3", "timm's card of inception_v4.tf_in1k", smallest=75),
    "resnet_50": Family(resnet.resnet_50, 224, "4.09", _TORCHVISION),
    "efficientnet_lite0": Family(efficientnet.lite0, 224, "0.4", "timm's card of efficientnet_lite0"),
    "mobilenet_v3_large": Family(mobilenet_v3.large, 224, "0.217", _SLIM),
    "mobilenet_v3_large_minimalistic": Family(mobilenet_v3.minimalistic, 224, "0.209", _SLIM),
    "deeplab_mobilenet_v2": Family(deeplab.mobilenet_v2, 513, "2.75", "tensorflow/models, deeplab/g3doc"),
    "unet_mobilenet_v2": Family(unet.mobilenet_v2, 128, "0.586", _COUNTED),
    "ssd_mobilenet_v1": Family(ssd.mobilenet_v1, 300, "1.2", "arXiv 1704.04861, table 13", smallest=64),
    "ssd_mobilenet_v2": Family(ssd.mobilenet_v2, 300, "0.77", _COUNTED, smallest=64),
}
