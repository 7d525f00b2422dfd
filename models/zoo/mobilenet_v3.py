"""MobileNet V3 large: with squeeze-and-excite and hard swish, and the minimalistic one without them."""

from __future__ import annotations

from dataclasses import dataclass

from models.zoo.layers import Builder, Net
from models.zoo.mobilenet import residual, v2_channels


@dataclass(frozen=True)
class Block:
    """One inverted residual, as the rows of arXiv 1905.02244, table 1."""

    kernel: int
    expanded: int
    channels: int
    excite: bool
    swish: bool
    stride: int


LARGE = tuple(
    Block(*row)
    for row in (
        (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
    )
)  # fmt: skip
MINIMALISTIC = tuple(Block(3, one.expanded, one.channels, False, False, one.stride) for one in LARGE)


def large(width: float, resolution: int, dtype: str) -> Net:
    return _net(LARGE, width, resolution, dtype)


def minimalistic(width: float, resolution: int, dtype: str) -> Net:
    return _net(MINIMALISTIC, width, resolution, dtype)


def _net(blocks: tuple[Block, ...], width: float, resolution: int, dtype: str) -> Net:
    swish = blocks is LARGE
    b = Builder(resolution, dtype)
    x = _conv(b, b.input, v2_channels(16, width), swish, kernel=3, stride=2)
    for block in blocks:
        x = _block(b, x, block, width)
    x = _conv(b, x, v2_channels(960, width), swish)
    x = b.mean(x, keep_dims=True) if b.quantized_ends else b.global_pool(x)
    x = _conv(b, x, v2_channels(1280, max(1.0, width)), swish)
    return b.finish(b.classify(x))


def _block(b: Builder, x: int, block: Block, width: float) -> int:
    expanded, channels = v2_channels(block.expanded, width), v2_channels(block.channels, width)
    y = x if block.expanded == block.channels == 16 else _conv(b, x, expanded, block.swish)
    y = _depthwise(b, y, block)
    if block.excite:
        y = _excited(b, y)
    return residual(b, x, b.conv(y, channels, activation="NONE"))


def _conv(b: Builder, x: int, channels: int, swish: bool, kernel: int = 1, stride: int = 1) -> int:
    if not swish:
        return b.conv(x, channels, (kernel, kernel), stride)
    return b.hard_swish(b.conv(x, channels, (kernel, kernel), stride, "NONE", role="hard_swish"))


def _depthwise(b: Builder, x: int, block: Block) -> int:
    kernel = (block.kernel, block.kernel)
    if not block.swish:
        return b.depthwise(x, kernel, block.stride, "RELU")
    return b.hard_swish(b.depthwise(x, kernel, block.stride, "NONE", role="hard_swish"))


def _excited(b: Builder, x: int) -> int:
    """Each channel times a gate that follows from all channels' means; hard sigmoid: relu6(x + 3) / 6."""
    channels = b.channels(x)
    gate = b.mean(x, keep_dims=True) if b.quantized_ends else b.global_pool(x)
    gate = b.conv(gate, v2_channels(channels, 0.25))
    gate = b.conv(gate, channels, activation="NONE", role="gate")
    gate = b.plus(gate, 3.0, "RELU6", "gate + 3")
    return b.product(x, b.times(gate, 1 / 6, "gate / 6"))
