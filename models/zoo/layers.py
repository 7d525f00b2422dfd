"""A model's operators as data, and the builder that the architectures list them with.

    b = Builder(224, "uint8")
    x = b.conv(b.input, 32, (3, 3), stride=2)
    net = b.finish(b.classify(b.global_pool(x)))

A value is a number: 0 is the model's input, then come the outputs of the layers in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pilite.compiler import detection
from pilite.compiler.graph import (
    Add,
    ArgMax,
    Binary,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    Detection,
    FullyConnected,
    Mean,
    NoOptions,
    Options,
    Pad,
    Pool2D,
    Resize,
    Softmax,
    TransposeConv,
)
from pilite.compiler.shapes import extent

CLASSES = 1001  # ImageNet and a background class

Shape = tuple[int, ...]
Pair = tuple[int, int]
Box = tuple[float, float, float, float]  # y and x of the centre, height, width, in parts of the picture


@dataclass(frozen=True)
class Layer:
    """One operator."""

    op: str  # TFLite's name
    inputs: tuple[int, ...]  # values
    shape: Shape  # of the output
    options: Options
    filter: Shape = ()  # (oc, kh, kw, ic), (1, kh, kw, c) if depthwise, (units, depth); empty without weights
    role: str = ""  # what the output is, where its range is not that of its activation: quantize.TARGETS
    number: float | None = None  # the second operand of ADD or MUL, a constant
    anchors: tuple[Box, ...] = ()  # the third operand of TFLite_Detection_PostProcess
    more: tuple[Shape, ...] = ()  # of further outputs

    @property
    def macs(self) -> int:
        """Multiplications of one 8-bit input by one weight; padding counts, as is usual."""
        taps = self.filter[1:3] if self.op == "DEPTHWISE_CONV_2D" else self.filter[1:]
        apart = math.prod(self.options.stride) if isinstance(self.options, TransposeConv) else 1
        return math.prod(self.shape) * math.prod(taps) // apart if self.filter else 0


@dataclass(frozen=True)
class Net:
    """A whole model."""

    layers: tuple[Layer, ...]
    outputs: tuple[int, ...]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


class Builder:
    """Layers so far; every method adds one operator and returns its output."""

    def __init__(self, resolution: int, dtype: str) -> None:
        self.quantized_ends = dtype == "int8"  # int8 inside, uint8 outside
        self.layers: list[Layer] = []
        self.input = 0
        self.shapes: list[Shape] = [(1, resolution, resolution, 3)]
        if self.quantized_ends:
            self.input = self.add("QUANTIZE", (0,), self.shapes[0], NoOptions())

    def finish(self, *outputs: int, quantized: bool = True) -> Net:
        """`quantized`: outputs are 8-bit values and become uint8."""
        if self.quantized_ends and quantized:
            outputs = tuple(self.add("QUANTIZE", (y,), self.shapes[y], NoOptions()) for y in outputs)
        return Net(tuple(self.layers), outputs)

    def add(
        self,
        op: str,
        inputs: tuple[int, ...],
        shape: Shape,
        options: Options,
        filter: Shape = (),
        role: str = "",
        number: float | None = None,
    ) -> int:
        return self._append(Layer(op, inputs, shape, options, filter, role, number))

    def _append(self, layer: Layer) -> int:
        self.layers.append(layer)
        self.shapes += (layer.shape, *layer.more)
        return len(self.shapes) - 1 - len(layer.more)

    def channels(self, x: int) -> int:
        return self.shapes[x][-1]

    # Sums of products.

    def conv(
        self,
        x: int,
        channels: int,
        kernel: Pair = (1, 1),
        stride: int = 1,
        activation: str = "RELU",
        padding: str = "SAME",
        role: str = "",
    ) -> int:
        options = Conv2D(padding, (stride, stride), (1, 1), activation)
        image = self._moved(x, kernel, stride, 1, padding)
        filter = (channels, *kernel, self.channels(x))
        return self.add("CONV_2D", (x,), (*image, channels), options, filter, role)

    def depthwise(
        self,
        x: int,
        kernel: Pair = (3, 3),
        stride: int = 1,
        activation: str = "RELU6",
        dilation: int = 1,
        multiplier: int = 1,
        role: str = "",
    ) -> int:
        options = DepthwiseConv2D("SAME", (stride, stride), (dilation, dilation), multiplier, activation)
        channels = self.channels(x) * multiplier
        image = self._moved(x, kernel, stride, dilation, "SAME")
        return self.add("DEPTHWISE_CONV_2D", (x,), (*image, channels), options, (1, *kernel, channels), role)

    def transpose_conv(self, x: int, channels: int, role: str = "") -> int:
        """3x3 with stride 2: an image of twice the height and width."""
        n, h, w, depth = self.shapes[x]
        shape = (n, 2 * h, 2 * w, channels)
        options = TransposeConv("SAME", (2, 2), "NONE", shape)
        return self.add("TRANSPOSE_CONV", (x,), shape, options, (channels, 3, 3, depth), role)

    def dense(self, x: int, units: int, role: str = "") -> int:
        depth = math.prod(self.shapes[x][1:])
        return self.add(
            "FULLY_CONNECTED", (x,), (1, units), FullyConnected("NONE", False), (units, depth), role
        )

    # Everything else.

    def pool(self, x: int, kind: str, window: Pair, stride: int, padding: str = "SAME") -> int:
        """`kind`: AVERAGE or MAX."""
        options = Pool2D(padding, (stride, stride), window, "NONE")
        image = self._moved(x, window, stride, 1, padding)
        return self.add(f"{kind}_POOL_2D", (x,), (*image, self.channels(x)), options)

    def global_pool(self, x: int, stride: int = 1) -> int:
        """AVERAGE_POOL_2D over the whole image."""
        _, h, w, _ = self.shapes[x]
        return self.pool(x, "AVERAGE", (h, w), stride, "VALID")

    def mean(self, x: int, keep_dims: bool) -> int:
        shape = (1, 1, 1, self.channels(x)) if keep_dims else (1, self.channels(x))
        return self.add("MEAN", (x,), shape, Mean((1, 2), keep_dims))

    def sum(self, a: int, b: int, activation: str = "NONE") -> int:
        return self.add("ADD", (a, b), self.shapes[a], Add(activation))

    def concat(self, parts: Sequence[int], axis: int = 3) -> int:
        shape = list(self.shapes[parts[0]])
        shape[axis] = sum(self.shapes[part][axis] for part in parts)
        return self.add("CONCATENATION", tuple(parts), tuple(shape), Concatenation(axis, "NONE"))

    def pad(self, x: int, border: int) -> int:
        """`border` zeros on each side of the image."""
        around = (0, border, border, 0)
        shape = tuple(n + 2 * more for n, more in zip(self.shapes[x], around, strict=True))
        return self.add("PAD", (x,), shape, Pad(around, around))

    def reshape(self, x: int, *shape: int) -> int:
        return self.add("RESHAPE", (x,), shape, NoOptions())

    def softmax(self, x: int) -> int:
        return self.add("SOFTMAX", (x,), self.shapes[x], Softmax(1.0))

    def logistic(self, x: int) -> int:
        return self.add("LOGISTIC", (x,), self.shapes[x], NoOptions())

    def relu(self, x: int, role: str) -> int:
        return self.add("RELU", (x,), self.shapes[x], NoOptions(), role=role)

    def hard_swish(self, x: int) -> int:
        return self.add("HARD_SWISH", (x,), self.shapes[x], NoOptions())

    def rescale(self, x: int, role: str) -> int:
        """QUANTIZE to the range of `role`."""
        return self.add("QUANTIZE", (x,), self.shapes[x], NoOptions(), role=role)

    def plus(self, x: int, number: float, activation: str, role: str) -> int:
        return self.add("ADD", (x,), self.shapes[x], Add(activation), role=role, number=number)

    def times(self, x: int, number: float, role: str) -> int:
        return self.add("MUL", (x,), self.shapes[x], Binary("NONE"), role=role, number=number)

    def product(self, a: int, b: int) -> int:
        """`b` is broadcast."""
        return self.add("MUL", (a, b), self.shapes[a], Binary("NONE"))

    def resize(self, x: int, h: int, w: int) -> int:
        """RESIZE_BILINEAR with aligned corners."""
        n, *_, c = self.shapes[x]
        return self.add("RESIZE_BILINEAR", (x,), (n, h, w, c), Resize(True, False, (h, w)))

    def arg_max(self, x: int) -> int:
        """The class of every pixel, int64."""
        return self.add("ARG_MAX", (x,), self.shapes[x][:-1], ArgMax("int64", len(self.shapes[x]) - 1))

    def dequantize(self, x: int) -> int:
        return self.add("DEQUANTIZE", (x,), self.shapes[x], NoOptions())

    def detect(self, boxes: int, scores: int, anchors: Sequence[Box], options: Detection) -> tuple[int, ...]:
        """TFLite_Detection_PostProcess: boxes, classes and scores of detections, and how many there are."""
        count = options.most * options.per_box
        more = ((1, count), (1, count), (1,))
        operands = (boxes, scores)
        layer = Layer(detection.OP, operands, (1, count, 4), options, anchors=tuple(anchors), more=more)
        first = self._append(layer)
        return tuple(range(first, first + 4))

    def classify(self, x: int) -> int:
        """Classes of a pooled image by a 1x1 convolution, as slim's networks do."""
        x = self.conv(x, CLASSES, activation="NONE", role="logits")
        return self.softmax(self.reshape(x, 1, CLASSES))

    def _moved(self, x: int, window: Pair, stride: int, dilation: int, padding: str) -> Shape:
        """Batch, height and width after a window has moved over `x`."""
        n, h, w, _ = self.shapes[x]
        return n, *(
            extent(size, k, stride, dilation, padding) for size, k in zip((h, w), window, strict=True)
        )
