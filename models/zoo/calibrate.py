"""Gives a MobileNet weights and quantization: draws the weights, runs drawn pictures, fits the ranges.

Layer by layer: draw the weights, compute the accumulators of all pictures, then choose weight scale, bias and
output scale so that the layer uses its 8-bit range and neither clamps nor dies on other inputs. A batch
normalization folded into a trained model has the same effect. Nothing in the file depends on the order of
additions, on the machine or on a random generator of numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.zoo import draw, pictures
from models.zoo.arithmetic import Floats, Steps, conv, depthwise
from models.zoo.mobilenet import CLASSES, Layer
from pilite.compiler.graph import Conv2D, DepthwiseConv2D, Quant

PIXELS = 4 * 224 * 224  # of all calibration pictures together: enough samples for the last, smallest layers
LARGEST_SIDE = 224  # larger models are calibrated at this resolution: their layers see the same statistics
SAMPLES = 4096  # accumulators looked at per channel
FEWEST_ROWS = 64  # of a channel, to take its own quantile
MARGIN = 1.3  # room in an output range around what calibration saw


@dataclass(frozen=True)
class Scheme:
    """How a family of published files quantizes what is between the ends."""

    dtype: str
    low: int
    high: int
    input: Quant  # of the uint8 model input
    per_channel: bool
    zero_points: tuple[int, int]  # a weight tensor's, drawn from low to high


SCHEMES = {
    "uint8": Scheme("uint8", 0, 255, Quant((1 / 128,), (128,)), False, (96, 160)),
    "int8": Scheme("int8", -128, 127, Quant((float(np.float32(1 / 127.5)),), (127,)), True, (0, 0)),
}


@dataclass(frozen=True)
class Target:
    """Where the outputs of a convolution shall lie, as real values."""

    top: float  # 99.5 % stay below
    offset: tuple[float, float]  # a channel's median, drawn from low to high, in parts of `top`
    keep: float = 0.0  # part of the accumulators' median that the bias leaves


RELU6 = Target(4.0, (-0.1, 0.2))
LINEAR = Target(16.0, (-0.1, 0.1))
LOGITS = Target(7.0, (0.0, 0.0), keep=0.1)


@dataclass(frozen=True, eq=False)
class Weights:
    """A filter as drawn: `steps` is what the file stores minus its zero point."""

    steps: Steps
    zero_point: int
    axis: int  # of the output channels


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the calibration run: real = quant.scale * steps, steps = q - quant.zero_point."""

    steps: Steps  # (n, h, w, c)
    quant: Quant


@dataclass(frozen=True, eq=False)
class Filled:
    """A layer with everything that the file needs."""

    layer: Layer
    dtype: str  # of the output
    quant: Quant  # of the output
    filter: npt.NDArray[Any] | None = None
    filter_quant: Quant | None = None
    bias: npt.NDArray[np.int32] | None = None
    bias_quant: Quant | None = None


def fill(layers: tuple[Layer, ...], resolution: int, dtype: str, seed: str) -> list[Filled]:
    """Weights and quantization for every layer; the same arguments give the same numbers on any machine."""
    scheme = SCHEMES[dtype]
    values: list[Value | None] = [_input(resolution, scheme, seed)]
    filled = []
    for i, layer in enumerate(layers):
        operands = [value for value in (values[j] for j in layer.inputs) if value is not None]
        step, value = STEPS[layer.op](layer, operands, scheme, f"{seed}/{i}")
        filled.append(step)
        values.append(value)
        _forget(values, layers[i + 1 :])
    return filled


def _input(resolution: int, scheme: Scheme, seed: str) -> Value:
    side = min(resolution, LARGEST_SIDE)
    drawn = pictures.draw(f"{seed}/pictures", -(-PIXELS // side**2), side)
    return Value(drawn.astype(np.float32) - scheme.input.zero_point, scheme.input)


def _forget(values: list[Value | None], rest: tuple[Layer, ...]) -> None:
    """Drop what no later layer reads: all values of a 224 model together fill 100 MB."""
    needed = {j for layer in rest for j in layer.inputs}
    for j in range(len(values)):
        if j not in needed:
            values[j] = None


# One function per operator: (layer, operands, scheme, seed) -> the filled layer and its output.


def _convolution(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    options = layer.options
    assert isinstance(options, Conv2D | DepthwiseConv2D)
    weights = _weights(layer, scheme, seed)
    accumulate = depthwise if isinstance(options, DepthwiseConv2D) else conv
    acc = accumulate(xs[0].steps, weights.steps, options.stride[0])
    target = RELU6 if options.activation == "RELU6" else LOGITS if acc.shape[-1] == CLASSES else LINEAR
    sample = _sample(acc)
    scales, bias = _fit(sample, xs[0].quant.scale, target, scheme, seed)
    products = [_float32(xs[0].quant.scale * scale) for scale in scales]  # real value of one accumulator step
    acc += bias
    real = np.array(products, np.float32)
    quant = _relu6_quant(scheme) if target is RELU6 else _range_quant((sample + bias) * real, scheme)
    y = _requantize(acc, real / np.float32(quant.scale), quant, scheme)
    stored = (weights.steps + weights.zero_point).astype(scheme.dtype)
    filter_quant = Quant(tuple(scales), (weights.zero_point,) * len(scales), weights.axis)
    bias_quant = Quant(tuple(products), (0,) * len(products))
    return Filled(layer, scheme.dtype, quant, stored, filter_quant, bias.astype(np.int32), bias_quant), y


def _add(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    real = sum(np.float32(x.quant.scale) * x.steps for x in xs)
    assert isinstance(real, np.ndarray)
    quant = _range_quant(_sample(real), scheme)
    y = _requantize(real, np.float32(1 / quant.scale), quant, scheme)
    return Filled(layer, scheme.dtype, quant), y


def _average_pool(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """The mean over the picture in the input's scale, as AVERAGE_POOL_2D requires it."""
    mean = _mean(xs[0])
    return Filled(layer, scheme.dtype, mean.quant), Value(np.rint(mean.steps), mean.quant)


def _mean_in_own_range(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """The mean over the picture, its output range fitted; inputs are never negative after a ReLU6."""
    mean = _mean(xs[0])
    top = _float32(mean.quant.scale * float(mean.steps.max()) * MARGIN / (scheme.high - scheme.low))
    quant = Quant((top,), (scheme.low,))
    y = _requantize(mean.steps, np.float32(mean.quant.scale / top), quant, scheme)
    return Filled(layer, scheme.dtype, quant), y


def _reshape(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    return Filled(layer, scheme.dtype, xs[0].quant), xs[0]


def _softmax(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """TFLite fixes the output's quantization. Nobody calibrates behind it, so its values are not computed."""
    return Filled(layer, scheme.dtype, Quant((1 / 256,), (scheme.low,))), xs[0]


def _quantize(layer: Layer, xs: list[Value], scheme: Scheme, seed: str) -> tuple[Filled, Value]:
    """uint8 to int8 at the input, int8 to uint8 at the output: the same steps from another zero point."""
    if layer.inputs == (0,):
        quant = Quant(xs[0].quant.scales, (xs[0].quant.zero_point - 128,))
        return Filled(layer, "int8", quant), Value(xs[0].steps, quant)
    return Filled(layer, "uint8", Quant((1 / 256,), (0,))), xs[0]


Step = Callable[[Layer, list[Value], Scheme, str], tuple[Filled, Value]]
STEPS: dict[str, Step] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "MEAN": _mean_in_own_range,
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
}


def _weights(layer: Layer, scheme: Scheme, seed: str) -> Weights:
    """Bell-shaped weights: the largest of a tensor, or of each channel, uses the whole 8-bit range."""
    axis = 3 if layer.op == "DEPTHWISE_CONV_2D" else 0
    drawn = draw.bell(f"{seed}/weights", layer.filter).astype(np.float32)
    others = tuple(i for i in range(4) if i != axis)
    largest = np.abs(drawn).max(axis=others if scheme.per_channel else None, keepdims=True)
    low, high = scheme.zero_points
    zero_point = int(draw.whole(f"{seed}/zero point", 1, low, high)[0])
    steps = np.rint(drawn * np.float32(127) / np.maximum(largest, 1))
    if scheme.dtype == "uint8":
        steps = np.clip(steps, scheme.low - zero_point, scheme.high - zero_point)
    return Weights(steps, zero_point, axis if scheme.per_channel else 0)


def _fit(
    sample: Floats, x_scale: float, target: Target, scheme: Scheme, seed: str
) -> tuple[list[float], Floats]:
    """Weight scales (one, or one per channel) and the bias in accumulator steps, for `target`.

    The bias moves each channel's median to the drawn offset, as a folded batch normalization would.
    """
    median = _quantile(sample, 0.5)
    centre = np.rint(median * np.float32(1 - target.keep))
    above = sample - centre
    tops = _tops(above, seed) if scheme.per_channel else _pooled(above)
    scales = [_float32(target.top / (x_scale * float(top))) for top in tops]
    low, high = (round(1000 * end) for end in target.offset)
    offset = draw.whole(f"{seed}/offsets", sample.shape[1], low, high) / np.float32(1000)
    return scales, np.rint(offset * tops.astype(np.float32)) - centre


def _pooled(above: Floats) -> Floats:
    """One value that 99.5 % of all channels' accumulators stay below."""
    return np.maximum(_quantile(above.reshape(-1, 1), 0.995), 1)


def _tops(above: Floats, seed: str) -> Floats:
    """The same for each channel; where a channel has too few values, drawn around the common one."""
    if len(above) >= FEWEST_ROWS:
        return np.maximum(_quantile(above, 0.995), _pooled(above) / 8)
    return _pooled(above) * draw.whole(f"{seed}/tops", above.shape[1], 75, 125) / 100


def _relu6_quant(scheme: Scheme) -> Quant:
    return Quant((_float32(6 / 255),), (scheme.low,))


def _range_quant(real: Floats, scheme: Scheme) -> Quant:
    """Asymmetric quantization that holds 99.9 % of `real`, and zero, with room to spare."""
    ends = _quantile(real.reshape(-1, 1), 0.0005)[0], _quantile(real.reshape(-1, 1), 0.9995)[0]
    low, high = min(0.0, float(ends[0]) * MARGIN), max(0.0, float(ends[1]) * MARGIN)
    scale = _float32(max(high - low, 1e-3) / (scheme.high - scheme.low))
    return Quant((scale,), (scheme.low + round(-low / scale),))


def _requantize(values: Floats, factor: Any, quant: Quant, scheme: Scheme) -> Value:
    """round(values * factor), clamped to the 8-bit range; at most one step from what TFLite computes."""
    steps = np.rint(np.multiply(values, factor, out=values), out=values)
    np.clip(steps, scheme.low - quant.zero_point, scheme.high - quant.zero_point, out=steps)
    return Value(steps.astype(np.float32, copy=False), quant)


def _mean(x: Value) -> Value:
    """Sums of whole numbers far below 2**53 are exact in any order."""
    total = x.steps.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
    return Value((total / np.float64(x.steps.shape[1] * x.steps.shape[2])).astype(np.float32), x.quant)


def _sample(values: Floats) -> Floats:
    """About SAMPLES rows of (n * h * w, c), evenly spread; an odd step meets all columns of a picture."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[:: max(1, len(rows) // SAMPLES) | 1]


def _quantile(rows: Floats, part: float) -> Floats:
    """Per column the value that `part` of the rows do not exceed: one of them, never a mean of two."""
    k = min(len(rows) - 1, int(part * len(rows)))
    column: Floats = np.partition(rows, k, axis=0)[k]
    return column


def _float32(value: float) -> float:
    return float(np.float32(value))
