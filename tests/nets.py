"""Models of several operators, put together by hand: every method adds one operator and returns its output.

    net = Net("int8", seed=1)
    x = net.input(1, 8, 8, 16)
    case = net.case("two readers", net.add(net.conv(x, 16), net.depthwise(x, (5, 5))))

Weights and inputs are random over the full range; scales are chosen so that results use their range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.zoo.writer import NO_OPTIONS, OpSpec, TensorSpec, write
from pilite.compiler.graph import (
    Add,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Mean,
    Options,
    Pad,
    Pool2D,
    Softmax,
)
from pilite.compiler.shapes import extent
from tests.draw import OneOp

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Pair = tuple[int, int]

DEVIATION = 74.0  # of numbers that are uniform over 256 values
WANTED = 40.0  # deviation of a result, in steps: most of the 256 values occur


@dataclass(frozen=True)
class Window:
    """How a window moves over an image."""

    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: str = "SAME"
    activation: str = "NONE"

    def result(self, image: Sequence[int], kernel: Pair) -> Shape:
        n, h, w = image[:3]
        oh, ow = (
            extent(*along, self.padding)
            for along in zip((h, w), kernel, self.stride, self.dilation, strict=True)
        )
        return n, oh, ow


@dataclass(frozen=True)
class Sums:
    """How sums of products are quantized; None: random, or what spreads the results over their range."""

    multiplier: float | None = None  # scale(x) * scale(w) / scale(y)
    weight: int | None = None  # the stored byte of all weights
    zero_point: int | None = None  # of uint8 weights
    bias: int = 1000  # the largest, by magnitude
    ties: bool = False  # every scale is a power of two


WINDOW, SUMS = Window(), Sums()


class Net:
    """A model in the making. `dtype` is that of all values, "int8" or "uint8"."""

    def __init__(self, dtype: str, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.tensors: list[TensorSpec] = []
        self.ops: list[OpSpec] = []
        self.inputs: list[int] = []

    def case(self, name: str, *outputs: int) -> OneOp:
        """The model, with random inputs."""
        arrays = [self._random(self.tensors[i]) for i in self.inputs]
        return OneOp(name, write(self.tensors, self.ops, self.inputs, outputs), arrays)

    def _random(self, spec: TensorSpec) -> Array:
        if spec.dtype == "float32":
            return self.rng.normal(0, 4, spec.shape).astype(np.float32)
        return self.integers(spec.shape)

    def shape(self, tensor: int) -> Shape:
        return self.tensors[tensor].shape

    def integers(self, shape: Shape) -> Array:
        limits = np.iinfo(self.dtype)
        return self.rng.integers(limits.min, limits.max + 1, shape).astype(self.dtype)

    # Tensors.

    def input(self, *shape: int, scale: float = 1 / 16, zero_point: int | None = None) -> int:
        self.inputs.append(self.value(shape, scale, zero_point))
        return self.inputs[-1]

    def real_input(self, *shape: int) -> int:
        self.inputs.append(self._real(shape))
        return self.inputs[-1]

    def _real(self, shape: Shape) -> int:
        return self._tensor(TensorSpec(f"t{len(self.tensors)}", shape, "float32"))

    def value(self, shape: Shape, scale: float, zero_point: int | None = None) -> int:
        middle = int(np.iinfo(self.dtype).max) - 127
        chosen = middle + int(self.rng.integers(-40, 41)) if zero_point is None else zero_point
        return self._tensor(TensorSpec(f"t{len(self.tensors)}", shape, self.dtype, (scale,), (chosen,)))

    def _tensor(self, spec: TensorSpec) -> int:
        self.tensors.append(spec)
        return len(self.tensors) - 1

    def _like(self, x: int, shape: Shape) -> int:
        """A tensor with the type and quantization of `x`."""
        spec = self.tensors[x]
        return self.value(shape, spec.scales[0], spec.zero_points[0]) if spec.scales else self._real(shape)

    def _scale(self, ties: bool = False) -> float:
        return 1 / 16 if ties else float(np.float32(self.rng.uniform(0.04, 0.08)))

    def _op(self, op: str, operands: Sequence[int], y: int, options: Options = NO_OPTIONS) -> int:
        self.ops.append(OpSpec(op, tuple(operands), (y,), options))
        return y

    # Sums of products.

    def conv(
        self, x: int, channels: int, kernel: Pair = (3, 3), window: Window = WINDOW, sums: Sums = SUMS
    ) -> int:
        shape = self.shape(x)
        options = Conv2D(window.padding, window.stride, window.dilation, window.activation)
        result = (*window.result(shape, kernel), channels)
        return self._sum("CONV_2D", x, (channels, *kernel, shape[3]), 0, result, options, sums)

    def depthwise(
        self, x: int, kernel: Pair = (3, 3), window: Window = WINDOW, sums: Sums = SUMS, multiplier: int = 1
    ) -> int:
        shape = self.shape(x)
        channels = shape[3] * multiplier
        options = DepthwiseConv2D(
            window.padding, window.stride, window.dilation, multiplier, window.activation
        )
        result = (*window.result(shape, kernel), channels)
        return self._sum("DEPTHWISE_CONV_2D", x, (1, *kernel, channels), 3, result, options, sums)

    def dense(self, x: int, units: int, activation: str = "NONE", sums: Sums = SUMS) -> int:
        depth = self.shape(x)[-1]
        rows = math.prod(self.shape(x)) // depth
        options = FullyConnected(activation, keep_num_dims=False)
        return self._sum("FULLY_CONNECTED", x, (units, depth), 0, (rows, units), options, sums)

    def _sum(
        self, op: str, x: int, weights: Shape, axis: int, result: Shape, options: Options, sums: Sums
    ) -> int:
        y_scale, x_scale = self._scale(sums.ties), self.tensors[x].scales[0]
        multiplier = sums.multiplier or WANTED / DEVIATION**2 / math.sqrt(math.prod(weights) / weights[axis])
        if sums.ties:
            multiplier = 2.0 ** round(math.log2(multiplier))
        w = self._weights(weights, axis, multiplier * y_scale / x_scale, sums)
        y = self.value(result, y_scale)
        return self._op(op, (x, w, self._bias(x, w, weights[axis], sums.bias)), y, options)

    def _weights(self, shape: Shape, axis: int, scale: float, sums: Sums) -> int:
        data = self.integers(shape)
        if sums.weight is not None:
            data = np.full(shape, sums.weight, np.uint8).view(self.dtype)
        name, channels = f"w{len(self.tensors)}", shape[axis]
        if self.dtype == "uint8":
            zero_point = int(self.rng.integers(256)) if sums.zero_point is None else sums.zero_point
            return self._tensor(TensorSpec(name, shape, "uint8", (scale,), (zero_point,), data=data))
        steps = self.rng.uniform(-1, 1, channels)
        factors = 2.0 ** (np.round(steps) if sums.ties else steps)
        scales = (np.float32(scale) * factors).astype(np.float32).tolist()
        return self._tensor(TensorSpec(name, shape, "int8", scales, (0,) * channels, axis, data))

    def _bias(self, x: int, w: int, channels: int, largest: int) -> int:
        x_scale = np.float32(self.tensors[x].scales[0])
        scales = [float(x_scale * np.float32(s)) for s in self.tensors[w].scales]
        data = self.rng.integers(-largest, largest + 1, channels).astype(np.int32)
        return self._tensor(
            TensorSpec(f"b{len(self.tensors)}", (channels,), "int32", scales, (0,) * len(scales), data=data)
        )

    # Everything else.

    def add(self, a: int, b: int, activation: str = "NONE") -> int:
        y = self.value(tuple(np.broadcast_shapes(self.shape(a), self.shape(b))), self._scale() * 1.5)
        return self._op("ADD", (a, b), y, Add(activation))

    def pool(self, x: int, kind: str, size: Pair = (2, 2), window: Window = WINDOW) -> int:
        """`kind`: AVERAGE or MAX."""
        options = Pool2D(window.padding, window.stride, size, window.activation)
        y = self._like(x, (*window.result(self.shape(x), size), self.shape(x)[3]))
        return self._op(f"{kind}_POOL_2D", (x,), y, options)

    def mean(self, x: int, axes: tuple[int, ...] = (1, 2)) -> int:
        shape = tuple(n for i, n in enumerate(self.shape(x)) if i not in axes)
        return self._op("MEAN", (x,), self.value(shape, self._scale() / 4), Mean(axes, keep_dims=False))

    def concatenation(self, parts: Sequence[int], axis: int = 3) -> int:
        """int8 needs equal quantization: the parts are requantized first."""
        first, scale = parts[0], self.tensors[parts[0]].scales[0]
        zero_point = self.tensors[first].zero_points[0]
        same = [p if self.dtype == "uint8" else self.requantize(p, scale, zero_point) for p in parts]
        total = sum(self.shape(p)[axis] for p in parts)
        shape = self.shape(first)
        y = self._like(first, (*shape[:axis], total, *shape[axis + 1 :]))
        return self._op("CONCATENATION", same, y, Concatenation(axis, "NONE"))

    def requantize(self, x: int, scale: float, zero_point: int | None = None) -> int:
        return self._op("QUANTIZE", (x,), self.value(self.shape(x), scale, zero_point))

    def quantize(self, x: int) -> int:
        """Real numbers to 8 bits."""
        return self._op("QUANTIZE", (x,), self.value(self.shape(x), self._scale()))

    def dequantize(self, x: int) -> int:
        return self._op("DEQUANTIZE", (x,), self._real(self.shape(x)))

    def pad(self, x: int, before: Shape, after: Shape, value: int | None = None) -> int:
        """`value`: the stored value of the border; None: the zero point."""
        shape = tuple(a + n + b for a, n, b in zip(before, self.shape(x), after, strict=True))
        op = "PAD" if value is None else "PADV2"
        return self._op(op, (x,), self._like(x, shape), Pad(before, after, value))

    def reshape(self, x: int, *shape: int) -> int:
        return self._op("RESHAPE", (x,), self._like(x, shape))

    def softmax(self, x: int) -> int:
        y = self.value(self.shape(x), 1 / 256, int(np.iinfo(self.dtype).min))
        return self._op("SOFTMAX", (x,), y, Softmax(1.0))
