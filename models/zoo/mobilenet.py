"""MobileNet V1 and V2 as lists of TFLite operators, the same list as in the published quantized files.

Widths follow the published rules: V1 truncates `width * channels` (at least 8), V2 rounds to a multiple of 8
that is not more than 10 % smaller. V2 widens its last convolution above 1280 channels only when `width` > 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from pilite.compiler.graph import Add, Conv2D, DepthwiseConv2D, Mean, NoOptions, Options, Pool2D, Softmax

CLASSES = 1001  # ImageNet and a background class

# (channels, stride) of each depthwise-separable block
V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip

# (expansion, channels, repeats, stride of the first) of each group of inverted residuals
V2_GROUPS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One operator. Value 0 is the model's input, value i + 1 the output of layer i."""

    op: str  # TFLite's name
    inputs: tuple[int, ...]  # values
    shape: tuple[int, ...]  # of the output
    options: Options
    filter: tuple[int, ...] = ()  # (oc, kh, kw, ic), or (1, kh, kw, c) if depthwise; empty without weights

    @property
    def macs(self) -> int:
        """Multiplications of one 8-bit input by one weight; padding counts, as is usual."""
        if self.op == "CONV_2D":
            return math.prod(self.shape) * math.prod(self.filter[1:])
        return math.prod(self.shape) * math.prod(self.filter[1:3]) if self.filter else 0


@dataclass
class _Chain:
    """Layers so far; each new one reads the value before it."""

    shape: tuple[int, ...]
    quantized_ends: bool  # int8 inside, uint8 outside
    layers: list[Layer] = field(default_factory=list)

    def add(self, op: str, shape: tuple[int, ...], options: Options, filter: tuple[int, ...] = ()) -> None:
        self.layers.append(Layer(op, (len(self.layers),), shape, options, filter))
        self.shape = shape

    def conv(self, channels: int, kernel: int, stride: int, activation: str) -> None:
        options = Conv2D("SAME", (stride, stride), (1, 1), activation)
        filter = (channels, kernel, kernel, self.shape[3])
        self.add("CONV_2D", self._strided(stride, channels), options, filter)

    def depthwise(self, stride: int) -> None:
        channels = self.shape[3]
        options = DepthwiseConv2D("SAME", (stride, stride), (1, 1), 1, "RELU6")
        self.add("DEPTHWISE_CONV_2D", self._strided(stride, channels), options, (1, 3, 3, channels))

    def residual(self, skip: int) -> None:
        """Add value `skip` to the last one, in the operand order of the published files."""
        last = len(self.layers)
        pair = (skip, last) if self.quantized_ends else (last, skip)
        self.layers.append(Layer("ADD", pair, self.shape, Add("NONE")))

    def head(self, pool_stride: int) -> None:
        """Global mean, a 1x1 convolution to the classes, softmax."""
        pooled = (1, 1, 1, self.shape[3])
        if self.quantized_ends:
            self.add("MEAN", pooled, Mean((1, 2), True))
        else:
            window = (self.shape[1], self.shape[2])
            self.add("AVERAGE_POOL_2D", pooled, Pool2D("VALID", (pool_stride, pool_stride), window, "NONE"))
        self.conv(CLASSES, 1, 1, "NONE")
        self.add("RESHAPE", (1, CLASSES), NoOptions())
        self.add("SOFTMAX", (1, CLASSES), Softmax(1.0))

    def ends(self) -> None:
        """QUANTIZE between the uint8 outside and the int8 inside."""
        if self.quantized_ends:
            self.add("QUANTIZE", self.shape, NoOptions())

    def _strided(self, stride: int, channels: int) -> tuple[int, ...]:
        return (1, -(-self.shape[1] // stride), -(-self.shape[2] // stride), channels)


def v1(width: float, resolution: int, dtype: str) -> tuple[Layer, ...]:
    """MobileNet V1: 13 blocks of depthwise 3x3 and pointwise 1x1 convolution."""
    chain = _Chain((1, resolution, resolution, 3), dtype == "int8")
    chain.ends()
    chain.conv(v1_channels(32, width), 3, 2, "RELU6")
    for channels, stride in V1_BLOCKS:
        chain.depthwise(stride)
        chain.conv(v1_channels(channels, width), 1, 1, "RELU6")
    chain.head(pool_stride=2)
    chain.ends()
    return tuple(chain.layers)


def v2(width: float, resolution: int, dtype: str) -> tuple[Layer, ...]:
    """MobileNet V2: inverted residuals with linear bottlenecks."""
    chain = _Chain((1, resolution, resolution, 3), dtype == "int8")
    chain.ends()
    chain.conv(v2_channels(32, width), 3, 2, "RELU6")
    for expansion, channels, repeats, stride in V2_GROUPS:
        for i in range(repeats):
            _inverted_residual(chain, expansion, v2_channels(channels, width), stride if i == 0 else 1)
    chain.conv(v2_channels(1280, max(1.0, width)), 1, 1, "RELU6")
    chain.head(pool_stride=1)
    chain.ends()
    return tuple(chain.layers)


FAMILIES: dict[str, Callable[[float, int, str], tuple[Layer, ...]]] = {"v1": v1, "v2": v2}


def v1_channels(channels: int, width: float) -> int:
    return max(8, int(channels * width))


def v2_channels(channels: int, width: float) -> int:
    """The multiple of 8 nearest to `channels * width` that is not more than 10 % smaller, at least 8."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def _inverted_residual(chain: _Chain, expansion: int, channels: int, stride: int) -> None:
    """Expand 1x1, depthwise 3x3, project 1x1 without activation; add the input where the shapes allow it."""
    start, before = len(chain.layers), chain.shape
    if expansion > 1:
        chain.conv(before[3] * expansion, 1, 1, "RELU6")
    chain.depthwise(stride)
    chain.conv(channels, 1, 1, "NONE")
    if chain.shape == before:
        chain.residual(start)
