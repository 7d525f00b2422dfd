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
    TARGETS,
    Constant,
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
from pilite.compiler import detection
from pilite.compiler.graph import (
    Add,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    Pad,
    Pool2D,
    Quant,
    TransposeConv,
)

CLAMPS = {"NONE": (-np.inf, np.inf), "RELU": (0, np.inf), "RELU6": (0, 6)}


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
    filter = Constant("filter", stored, Quant(tuple(scales), (drawn.zero_point,) * len(scales), drawn.axis))
    added = Constant("bias", bias.astype(np.int32), Quant(tuple(products), (0,) * len(products)))
    if isinstance(layer.options, TransposeConv):
        shape = Constant("shape", np.array(layer.shape, np.int32), Quant((), ()))
        return Filled(layer, scheme.dtype, quant, (shape, filter, added), leading=2), y
    return Filled(layer, scheme.dtype, quant, (filter, added)), y


def _accumulated(layer: Layer, x: Value, drawn: Weights) -> Floats:
    options = layer.options
    if isinstance(options, Conv2D | DepthwiseConv2D):
        window = Window(options.stride, options.padding, options.dilation)
        sums = arithmetic.depthwise if isinstance(options, DepthwiseConv2D) else arithmetic.conv
        return sums(x.steps, drawn.steps, window)
    if isinstance(options, TransposeConv):
        return arithmetic.transposed(x.steps, drawn.steps, options.stride)
    return arithmetic.dense(x.steps.reshape(len(x.steps), -1), drawn.steps)


def _add(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """Two values, or a value and the layer's number."""
    operands, constants = _operands(layer, xs, scheme)
    real = sum(operands)
    assert isinstance(real, np.ndarray)
    assert isinstance(layer.options, Add)
    low, high = CLAMPS[layer.options.activation]
    return _ranged(layer, np.clip(real, low, high), scheme, constants)


def _mul(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    operands, constants = _operands(layer, xs, scheme)
    return _ranged(layer, operands[0] * operands[1], scheme, constants)


def _relu(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    return _ranged(layer, np.float32(xs[0].quant.scale) * np.maximum(xs[0].steps, 0), scheme)


def _hard_swish(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """x * relu6(x + 3) / 6"""
    x = np.float32(xs[0].quant.scale) * xs[0].steps
    return _ranged(layer, x * np.clip(x + np.float32(3), 0, 6) / np.float32(6), scheme)


def _operands(layer: Layer, xs: list[Value], scheme: Scheme) -> tuple[list[Floats], tuple[Constant, ...]]:
    """Real values; the number is one stored value at the end of its range."""
    real: list[Floats] = [np.float32(x.quant.scale) * x.steps for x in xs]
    if layer.number is None:
        return real, ()
    stored = np.array([scheme.high], scheme.dtype)
    constant = Constant("number", stored, span_quant((0, layer.number), scheme))
    return [*real, np.array([layer.number], np.float32)], (constant,)


def _ranged(
    layer: Layer, real: Floats, scheme: Scheme, constants: tuple[Constant, ...] = ()
) -> tuple[Filled, Value]:
    """An output whose range is fitted to its values, or is its role's."""
    span = TARGETS[layer.role].span if layer.role else None
    quant = span_quant(span, scheme) if span else range_quant(sample(real), scheme)
    y = requantize(real, np.float32(1 / quant.scale), quant, scheme)
    return Filled(layer, scheme.dtype, quant, constants), y


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
    assert isinstance(layer.options, Concatenation)
    steps = np.concatenate([x.steps for x in xs], axis=layer.options.axis)
    return Filled(layer, scheme.dtype, quant), Value(steps, quant)


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
    """uint8 to int8 at the input, int8 to uint8 at an output: the same steps from another zero point.

    With a role: to the range of that.
    """
    if layer.role:
        return _ranged(layer, np.float32(xs[0].quant.scale) * xs[0].steps, scheme)
    dtype, moved = ("int8", -128) if layer.inputs == (0,) else ("uint8", 128)
    quant = Quant(xs[0].quant.scales, (xs[0].quant.zero_point + moved,))
    return Filled(layer, dtype, quant), Value(xs[0].steps, quant)


def _logistic(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """As SOFTMAX: TFLite fixes the output's quantization, and nobody calibrates behind it."""
    return _softmax(layer, xs, scheme, seed)


def _dequantize(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    return Filled(layer, "float32", None), xs[0]


def _detect(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """Detections, not computed. Anchors have the dtype of the boxes: real values in int8 models."""
    real = np.array(layer.anchors, np.float32)
    anchors = Constant("anchors", real, Quant((), ()))
    if scheme.dtype == "uint8":
        quant = span_quant((0.0, float(real.max())), scheme)
        stored = requantize(real, np.float32(1 / quant.scale), quant, scheme).steps + quant.zero_point
        anchors = Constant("anchors", stored.astype(scheme.dtype), quant)
    return Filled(layer, "float32", None, (anchors,)), xs[0]


def _resize(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """The nearest pixels: their statistics are those of interpolated ones."""
    _, h, w, _ = xs[0].steps.shape
    rows, columns = (np.arange(n) * size // n for n, size in zip(layer.shape[1:3], (h, w), strict=True))
    return Filled(layer, scheme.dtype, xs[0].quant), Value(xs[0].steps[:, rows][:, :, columns], xs[0].quant)


def _arg_max(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """Numbers of classes, not computed."""
    return Filled(layer, "int64", None), xs[0]


Step = Callable[[Layer, list[Value], Scheme, str], tuple[Filled, Value]]
STEPS: dict[str, Step] = {
    "ADD": _add,
    "ARG_MAX": _arg_max,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _sums,
    detection.OP: _detect,
    "DEPTHWISE_CONV_2D": _sums,
    "DEQUANTIZE": _dequantize,
    "FULLY_CONNECTED": _sums,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _logistic,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "MUL": _mul,
    "PAD": _pad,
    "QUANTIZE": _quantize,
    "RELU": _relu,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "SOFTMAX": _softmax,
    "TRANSPOSE_CONV": _sums,
}
