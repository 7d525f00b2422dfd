"""STEPS: how each operator of the zoo is calibrated.

STEPS[layer.op](layer, operands, scheme, seed)  ->  the filled layer, its output
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.zoo import arithmetic
from models.zoo.arithmetic import Floats, Window
from models.zoo.layers import Layer
from models.zoo.quantize import (
    MARGIN,
    Filled,
    Scheme,
    Value,
    Weights,
    fit,
    float32,
    range_quant,
    requantize,
    sample,
    span_quant,
    target_of,
    weights,
)
from pilite.compiler.graph import Add, Conv2D, DepthwiseConv2D, Pad, Pool2D, Quant


def _sums(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """Convolutions and FULLY_CONNECTED."""
    drawn, target = weights(layer, scheme, seed), target_of(layer)
    acc = _accumulated(layer, xs[0], drawn)
    seen = sample(acc)
    scales, bias = fit(seen, xs[0].quant.scale, target, drawn.per_channel, seed)
    products = [float32(xs[0].quant.scale * scale) for scale in scales]  # real value of one accumulator step
    acc += bias
    real = np.array(products, np.float32)
    quant = span_quant(target.span, scheme) if target.span else range_quant((seen + bias) * real, scheme)
    y = requantize(acc, real / np.float32(quant.scale), quant, scheme)
    stored = (drawn.steps + drawn.zero_point).astype(scheme.dtype)
    filter_quant = Quant(tuple(scales), (drawn.zero_point,) * len(scales), drawn.axis)
    bias_quant = Quant(tuple(products), (0,) * len(products))
    return Filled(layer, scheme.dtype, quant, stored, filter_quant, bias.astype(np.int32), bias_quant), y


def _accumulated(layer: Layer, x: Value, drawn: Weights) -> Floats:
    options = layer.options
    if isinstance(options, Conv2D | DepthwiseConv2D):
        window = Window(options.stride, options.padding, options.dilation)
        sums = arithmetic.depthwise if isinstance(options, DepthwiseConv2D) else arithmetic.conv
        return sums(x.steps, drawn.steps, window)
    return arithmetic.dense(x.steps.reshape(len(x.steps), -1), drawn.steps)


def _add(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    real = sum(np.float32(x.quant.scale) * x.steps for x in xs)
    assert isinstance(real, np.ndarray)
    assert isinstance(layer.options, Add)
    if layer.options.activation == "RELU":
        real = np.maximum(real, 0)
    return _ranged(layer, real, scheme)


def _ranged(layer: Layer, real: Floats, scheme: Scheme) -> tuple[Filled, Value]:
    """An output whose range is fitted to its values."""
    quant = range_quant(sample(real), scheme)
    y = requantize(real, np.float32(1 / quant.scale), quant, scheme)
    return Filled(layer, scheme.dtype, quant), y


def _pool(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """In the input's scale, as the operators require it."""
    options, x = layer.options, xs[0]
    assert isinstance(options, Pool2D)
    pooled = arithmetic.maximum if layer.op == "MAX_POOL_2D" else arithmetic.average
    steps = pooled(x.steps, options.window, Window(options.stride, options.padding))
    return Filled(layer, scheme.dtype, x.quant), Value(np.rint(steps), x.quant)


def _mean(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """The mean over the picture, its output range fitted; inputs are never negative after a ReLU."""
    x = xs[0]
    _, h, w, _ = x.steps.shape
    steps = arithmetic.average(x.steps, (h, w), Window(padding="VALID"))
    top = float32(x.quant.scale * float(steps.max()) * MARGIN / (scheme.high - scheme.low))
    quant = Quant((top,), (scheme.low,))
    y = requantize(steps, np.float32(x.quant.scale / top), quant, scheme)
    return Filled(layer, scheme.dtype, quant), y


def _concatenation(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    quant = xs[0].quant
    assert all(x.quant == quant for x in xs), f"{layer}: parts of different scales"
    return Filled(layer, scheme.dtype, quant), Value(np.concatenate([x.steps for x in xs], axis=-1), quant)


def _pad(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    assert isinstance(layer.options, Pad)
    around = list(zip(layer.options.before, layer.options.after, strict=True))
    return Filled(layer, scheme.dtype, xs[0].quant), Value(np.pad(xs[0].steps, around), xs[0].quant)


def _reshape(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    shape = (len(xs[0].steps), *layer.shape[1:])
    return Filled(layer, scheme.dtype, xs[0].quant), Value(xs[0].steps.reshape(shape), xs[0].quant)


def _softmax(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """TFLite fixes the output's quantization. Nobody calibrates behind it, so its values are not computed."""
    quant = Quant((1 / 256,), (scheme.low,))
    return Filled(layer, scheme.dtype, quant), Value(xs[0].steps, quant)


def _quantize(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """uint8 to int8 at the input, int8 to uint8 at an output: the same steps from another zero point."""
    dtype, moved = ("int8", -128) if layer.inputs == (0,) else ("uint8", 128)
    quant = Quant(xs[0].quant.scales, (xs[0].quant.zero_point + moved,))
    return Filled(layer, dtype, quant), Value(xs[0].steps, quant)


Step = Callable[[Layer, list[Value], Scheme, str], tuple[Filled, Value]]
STEPS: dict[str, Step] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _sums,
    "DEPTHWISE_CONV_2D": _sums,
    "FULLY_CONNECTED": _sums,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "PAD": _pad,
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
}
