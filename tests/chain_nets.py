"""Models whose operators can be computed together, a few rows at a time (pilite/compiler/chains.py)."""

from __future__ import annotations

from tests.few_ops import Graph
from tests.nets import Net, Window

RELU6 = Window(activation="RELU6")


def block(net: Net, x: int, channels: int, expanded: int, stride: int = 1, add: bool = False) -> int:
    """An inverted residual: expand, depthwise 3x3, project, and the addition of its input."""
    wide = net.conv(x, expanded, (1, 1), RELU6)
    y = net.conv(net.depthwise(wide, window=Window((stride, stride), activation="RELU6")), channels, (1, 1))
    return net.add(y, x) if add else y


def pairs(net: Net, x: int, *channels: int) -> int:
    """Depthwise-separable convolutions, of stride 1 and 2 in turn."""
    for i, count in enumerate(channels):
        x = net.conv(net.depthwise(x, window=Window((1 + i % 2, 1 + i % 2))), count, (1, 1), RELU6)
    return x


CHAINS: dict[str, Graph] = {
    "stride 1": lambda net: [block(net, net.input(1, 12, 12, 16), 24, 32)],
    "stride 2, odd": lambda net: [block(net, net.input(1, 13, 11, 16), 24, 32, 2)],
    "residual": lambda net: [block(net, net.input(1, 9, 10, 24), 24, 40, 1, True)],
    "stem": lambda net: [
        net.conv(net.depthwise(net.conv(net.input(1, 23, 25, 3), 16, window=Window((2, 2)))), 8, (1, 1))
    ],
    "pairs": lambda net: [pairs(net, net.input(1, 17, 15, 8), 16, 24, 20)],
    "two blocks, a skip inside": lambda net: [
        block(net, block(net, net.input(1, 14, 14, 8), 16, 24, 2), 16, 40, 1, True)
    ],
    "5 x 5, dilated": lambda net: [
        net.conv(
            net.depthwise(net.depthwise(net.input(1, 11, 9, 16), (5, 5)), window=Window((1, 1), (2, 2))), 8
        )
    ],
    "valid padding": lambda net: [
        net.depthwise(
            net.conv(net.conv(net.input(1, 16, 13, 5), 7, (1, 1)), 9, (3, 2), Window(padding="VALID")),
            window=Window((2, 2), padding="VALID"),
        )
    ],
    "1 x 1 of stride 2": lambda net: [
        net.depthwise(net.conv(net.conv(net.input(1, 11, 10, 8), 12, (1, 1)), 16, (1, 1), Window((2, 2))))
    ],
    "1 x 1 of stride 2 behind two": lambda net: [
        net.conv(
            net.conv(net.conv(net.input(1, 15, 10, 8), 12, (1, 1)), 16, (1, 1)), 9, (1, 1), Window((2, 2))
        )
    ],
    "strides beyond their windows": lambda net: [
        net.conv(net.depthwise(net.conv(net.input(1, 17, 9, 8), 12, (1, 1))), 9, (1, 1), Window((2, 2))),
        net.conv(net.depthwise(net.conv(net.input(1, 19, 9, 8), 8, (1, 1))), 9, (2, 2), Window((3, 3))),
    ],
    "all rows made, border needed": lambda net: [
        net.depthwise(
            net.conv(net.depthwise(net.conv(net.input(1, 11, 9, 8), 12, (1, 1))), 9, (2, 2), Window((2, 2)))
        ),
        net.depthwise(net.conv(net.conv(net.input(1, 11, 9, 8), 12, (1, 1)), 9, (3, 3), Window((3, 3)))),
    ],
    "columns": lambda net: [
        block(net, net.input(1, 19, 1, 3), 5, 9),
        block(net, net.input(1, 18, 3, 3), 3, 9, 1, True),
    ],
    "two rows": lambda net: [block(net, net.input(1, 2, 21, 4), 4, 8, 1, True)],
}
