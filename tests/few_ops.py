"""Models of a few operators where values are shared: written by hand (GRAPHS), and random ones.

case = made(residual, "int8", seed=3)
case = random_case("uint8", 17)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tests.draw import OneOp
from tests.nets import Net, Window

T = TypeVar("T")
Graph = Callable[[Net], list[int]]

VALID = Window(padding="VALID")
HALF = Window(stride=(2, 2))
WIDE = Window(dilation=(2, 3))
RELU6 = Window(activation="RELU6")


def two_convolutions(net: Net) -> list[int]:
    return [net.conv(net.conv(net.input(1, 7, 9, 3), 8, window=HALF), 5, window=RELU6)]


def residual(net: Net) -> list[int]:
    """Expand, depthwise, project, add: the block of MobileNet V2. The sum and the branch read one value."""
    x = net.conv(net.input(1, 8, 8, 3), 16, window=HALF)
    wide = net.depthwise(net.conv(x, 48, (1, 1), RELU6), window=RELU6)
    return [net.conv(net.add(x, net.conv(wide, 16, (1, 1))), 9, (1, 1))]


def diamond(net: Net) -> list[int]:
    """One value read with four different borders, and with none."""
    x = net.conv(net.input(1, 9, 8, 4), 8)
    parts = [net.conv(x, 8, kernel) for kernel in ((1, 1), (3, 3), (5, 5), (1, 7))]
    return [net.concatenation([*parts, x])]


def different_padding(net: Net) -> list[int]:
    """SAME and VALID, strides and dilations over one value: halos differ on every side."""
    x = net.depthwise(net.input(2, 9, 10, 6))
    return [
        net.conv(x, 4, (3, 3), VALID),
        net.conv(x, 4, (2, 2)),
        net.depthwise(x, (5, 5), WIDE),
        net.depthwise(x, (3, 3), HALF),
        net.pool(x, "AVERAGE", (3, 3), HALF),
        net.pool(x, "MAX", (2, 3)),
    ]


def border_of_a_view(net: Net) -> list[int]:
    """A convolution with padding over a reshaped value, while others read the value itself."""
    flat = net.dense(net.input(2, 12), 48)
    image = net.reshape(flat, 1, 4, 6, 4)
    return [net.conv(image, 5), net.conv(image, 3, (5, 5)), net.dense(flat, 7)]


def conv_then_reshape(net: Net) -> list[int]:
    """The reshaped output is an output of the model, and the value behind it another."""
    x = net.conv(net.input(1, 5, 5, 3), 4)
    return [net.reshape(x, 25, 4), x]


def reshape_twice(net: Net) -> list[int]:
    x = net.depthwise(net.input(1, 4, 4, 9))
    seen = net.reshape(net.reshape(x, 1, 144), 1, 12, 12, 1)
    return [net.conv(seen, 6), net.depthwise(seen, (3, 3)), net.softmax(net.reshape(x, 9, 16))]


def input_is_read_twice(net: Net) -> list[int]:
    x = net.input(1, 6, 7, 5)
    return [net.conv(x, 3), net.depthwise(x, (5, 5)), net.add(x, x), net.reshape(x, 210)]


def output_is_read(net: Net) -> list[int]:
    x = net.conv(net.input(1, 6, 6, 3), 7)
    y = net.depthwise(x, (3, 3))
    return [x, y, net.add(x, y)]


def padded_concatenation(net: Net) -> list[int]:
    """Parts written into a value with a border."""
    x = net.input(1, 6, 5, 4)
    joined = net.concatenation([net.conv(x, 3), net.pool(x, "MAX"), net.conv(x, 8, (1, 1))])
    rows = net.concatenation([joined, joined], axis=1)
    return [net.depthwise(joined, (3, 3)), net.conv(rows, 5, (3, 3)), net.conv(rows, 5, (1, 3))]


def pad_then_conv(net: Net) -> list[int]:
    """PAD and VALID as PyTorch's exporters write SAME; the padded value gets a border of its own."""
    x = net.conv(net.input(1, 7, 7, 3), 6)
    padded = net.pad(x, (0, 1, 1, 0), (0, 1, 1, 0))
    return [
        net.conv(padded, 4, (3, 3), Window(stride=(2, 2), padding="VALID")),
        net.depthwise(padded, (3, 3)),
    ]


def pad_with_a_value(net: Net) -> list[int]:
    """The padding of the convolution is the zero point, also around a border of another value."""
    x = net.pad(net.input(1, 5, 5, 3), (0, 1, 2, 0), (0, 1, 0, 0), value=100)
    return [net.conv(x, 4), net.depthwise(x, (5, 5)), net.pool(x, "AVERAGE", (3, 3))]


def pad_channels(net: Net) -> list[int]:
    x = net.pad(net.input(1, 5, 5, 3), (0, 0, 2, 1), (0, 1, 0, 4))
    return [net.add(x, net.conv(x, 8)), net.mean(x)]


def pool_then_depthwise(net: Net) -> list[int]:
    x = net.pool(net.input(2, 9, 9, 10), "AVERAGE", (3, 3), HALF)
    return [net.depthwise(net.pool(x, "MAX", (2, 2)), (5, 5)), net.depthwise(x, (3, 3), HALF, multiplier=3)]


def sums_of_bordered_values(net: Net) -> list[int]:
    """ADD, MEAN and QUANTIZE read and write values whose rows are not contiguous."""
    a, b = net.input(2, 5, 6, 4), net.input(4)
    left, right = net.conv(a, 4), net.depthwise(a)
    total = net.add(left, right, "RELU6")
    moved = net.requantize(total, 0.11)
    return [
        net.conv(left, 3),
        net.depthwise(right, (5, 5)),
        net.conv(net.add(total, b), 4),
        net.conv(moved, 4, (3, 3)),
        net.mean(total),
        net.mean(total, (0, 3)),
    ]


def bordered_readers(net: Net) -> list[int]:
    """Every operator reads a value with a border. (If it were also seen with another shape, it had none.)"""
    x = net.conv(net.input(2, 5, 4, 3), 6)
    return [
        net.conv(x, 3, (5, 5)),
        net.softmax(x),
        net.mean(x, (3,)),
        net.mean(x, (0, 1, 2, 3)),
        net.dequantize(x),
        net.requantize(x, 0.2),
        net.add(x, x),
        net.pool(x, "MAX"),
        net.concatenation([x, x], axis=2),
        net.pad(x, (1, 0, 2, 0), (0, 1, 0, 0), value=7),
        net.depthwise(x, (1, 1), multiplier=2),
    ]


def bordered_writers(net: Net) -> list[int]:
    """Every operator writes a value with a border."""
    x, row = net.input(2, 4, 5, 6), net.input(2, 1, 5, 1)
    values = [
        net.softmax(x),
        net.quantize(net.real_input(2, 4, 5, 6)),
        net.requantize(x, 0.2),
        net.add(x, row),
        net.add(row, net.conv(row, 6)),
        net.pool(x, "AVERAGE"),
        net.concatenation([x, x], axis=0),
        net.pad(x, (0, 1, 0, 0), (0, 0, 0, 1)),
        net.depthwise(x, (1, 1), multiplier=2),
        net.reshape(x, 2, 5, 4, 6),
        net.dense(net.reshape(x, 1, 1, 12, 20), 7),
    ]
    return [net.conv(v, 2, (3, 5)) for v in values if len(net.shape(v)) == 4]


def real_ends(net: Net) -> list[int]:
    """Real numbers at the ends, also seen with another shape."""
    image = net.quantize(net.real_input(1, 6, 7, 3))
    vector = net.quantize(net.reshape(net.real_input(2, 18), 1, 6, 6, 1))
    y = net.conv(image, 5)
    return [net.reshape(net.dequantize(y), 42, 5), y, net.dequantize(net.conv(vector, 3))]


def classifier(net: Net) -> list[int]:
    x = net.conv(net.input(1, 12, 12, 3), 8, window=HALF)
    x = net.depthwise(x, window=RELU6)
    x = net.pool(net.conv(x, 16, (1, 1), RELU6), "AVERAGE", (6, 6), VALID)
    return [net.softmax(net.dense(net.reshape(x, 1, 16), 10))]


GRAPHS: tuple[Graph, ...] = (
    two_convolutions,
    residual,
    diamond,
    different_padding,
    border_of_a_view,
    conv_then_reshape,
    reshape_twice,
    input_is_read_twice,
    output_is_read,
    padded_concatenation,
    pad_then_conv,
    pad_with_a_value,
    pad_channels,
    bordered_readers,
    bordered_writers,
    real_ends,
    pool_then_depthwise,
    sums_of_bordered_values,
    classifier,
)


def made(graph: Graph, dtype: str, seed: int) -> OneOp:
    net = Net(dtype, seed)
    return net.case(f"{graph.__name__}, {dtype}, seed {seed}", *graph(net))


# Random graphs: each operator reads any earlier images; every value that nobody reads is an output.


def random_graph(net: Net) -> list[int]:
    images = [net.input(1 + int(net.rng.integers(2)), *map(int, net.rng.integers(1, 12, 3)))]
    for _ in range(int(net.rng.integers(3, 9))):
        images.append(_step(net, images))
    read = {i for op in net.ops for i in op.inputs}
    return [i for i in images if i not in read] + [
        i for i in images[1:] if i in read and net.rng.random() < 0.2
    ]


def _step(net: Net, images: list[int]) -> int:
    x = images[int(net.rng.integers(len(images)))]
    if net.shape(x)[3] > 64:
        return net.conv(x, 5, (1, 1))
    return STEPS[int(net.rng.integers(len(STEPS)))](net, images, x)


def _choice(net: Net, items: list[T]) -> T:
    return items[int(net.rng.integers(len(items)))]


def _window(net: Net) -> Window:
    """SAME, so that it fits any image."""
    stride, dilation = _choice(net, [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 1)), ((1, 3), (1, 2))])
    return Window(stride, dilation, "SAME", _choice(net, ["NONE", "RELU", "RELU6"]))


def _kernel(net: Net) -> tuple[int, int]:
    return _choice(net, [(1, 1), (2, 2), (3, 3), (5, 5), (1, 3), (7, 2)])


def _partner(net: Net, images: list[int], x: int) -> int:
    """An image of the same size, if there is another one."""
    return _choice(net, [i for i in images if net.shape(i) == net.shape(x)])


def _join(net: Net, images: list[int], x: int) -> int:
    same = [i for i in images if net.shape(i)[:3] == net.shape(x)[:3]]
    return net.concatenation([x, _choice(net, same)])


def _turned(net: Net, images: list[int], x: int) -> int:
    n, h, w, c = net.shape(x)
    return net.reshape(x, n, w, h, c)


STEPS: tuple[Callable[[Net, list[int], int], int], ...] = (
    lambda net, _, x: net.conv(x, int(net.rng.integers(1, 20)), _kernel(net), _window(net)),
    lambda net, _, x: net.conv(x, int(net.rng.integers(1, 20)), (1, 1)),
    lambda net, _, x: net.depthwise(x, _kernel(net), _window(net)),
    lambda net, _, x: net.depthwise(x, (3, 3), multiplier=2),
    lambda net, images, x: net.add(x, _partner(net, images, x)),
    lambda net, _, x: net.pool(x, _choice(net, ["AVERAGE", "MAX"]), (2, 3)),
    lambda net, _, x: net.pad(x, (0, 1, 0, 0), (0, 0, 2, 1)),
    lambda net, _, x: net.pad(x, (0, 0, 1, 0), (0, 0, 0, 0), value=90),
    lambda net, _, x: net.softmax(x),
    lambda net, _, x: net.requantize(x, 0.09),
    _join,
    _turned,
)


def random_case(dtype: str, seed: int) -> OneOp:
    net = Net(dtype, seed)
    return net.case(f'random_case("{dtype}", {seed})', *random_graph(net))
