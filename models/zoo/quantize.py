"""How the zoo quantizes: schemes of published files, drawn weights, ranges fitted to what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.zoo import draw
from models.zoo.arithmetic import Floats, Steps
from models.zoo.layers import Layer
from pilite.compiler.graph import Quant

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
    """Where the outputs of a sum of products shall lie, as real values."""

    top: float  # 99.5 % stay below
    offset: tuple[float, float]  # a channel's median, drawn from low to high, in parts of `top`
    keep: float = 0.0  # part of the accumulators' median that the bias leaves
    span: tuple[float, float] | None = None  # the output's range; None: fitted to what calibration saw


RELU6 = Target(4.0, (-0.1, 0.2), span=(0.0, 6.0))
TARGETS = {  # by a layer's role, else by its activation
    "RELU": RELU6,  # one range for all of them, so that concatenations need no rescaling
    "RELU6": RELU6,
    "NONE": Target(16.0, (-0.1, 0.1)),
    "logits": Target(7.0, (0.0, 0.0), keep=0.1),
    "before RELU": Target(4.0, (-0.1, 0.2)),
    "hard_swish": Target(6.0, (-0.1, 0.2)),  # what goes into one
    "gate": Target(3.0, (-0.1, 0.1)),
    "gate + 3": RELU6,
    "gate / 6": Target(1.0, (0.0, 0.0), span=(0.0, 1.0)),
    "whole picture": Target(2.0, (-0.1, 0.2), span=(0.0, 3.0)),  # a RELU whose range is not the others'
    "boxes": Target(4.0, (-0.1, 0.1), span=(-8.0, 8.0)),
    "scores": Target(4.0, (-0.9, -0.7), span=(-11.0, 5.0)),  # few boxes show anything
}


def target_of(layer: Layer) -> Target:
    return TARGETS[layer.role or str(getattr(layer.options, "activation", "NONE"))]


@dataclass(frozen=True, eq=False)
class Weights:
    """A filter as drawn: `steps` is what the file stores minus its zero point."""

    steps: Steps
    zero_point: int
    per_channel: bool  # a scale for each index of `axis`
    axis: int


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the calibration run: real = quant.scale * steps, steps = q - quant.zero_point."""

    steps: Steps  # (n, h, w, c)
    quant: Quant


@dataclass(frozen=True, eq=False)
class Constant:
    """An operand that the file holds: a filter, a bias, a number."""

    name: str
    data: npt.NDArray[Any]
    quant: Quant


@dataclass(frozen=True, eq=False)
class Filled:
    """A layer with everything that the file needs."""

    layer: Layer
    dtype: str  # of the output
    quant: Quant | None  # of the output
    constants: tuple[Constant, ...] = ()  # operands
    leading: int = 0  # how many of them come before the layer's inputs


def weights(layer: Layer, scheme: Scheme, seed: str) -> Weights:
    """Bell-shaped weights: the largest of a tensor, or of each channel, uses the whole 8-bit range."""
    axis = 3 if layer.op == "DEPTHWISE_CONV_2D" else 0
    per_channel = scheme.per_channel and layer.op != "FULLY_CONNECTED"
    drawn = draw.bell(f"{seed}/weights", layer.filter).astype(np.float32)
    others = tuple(i for i in range(drawn.ndim) if i != axis)
    largest = np.abs(drawn).max(axis=others if per_channel else None, keepdims=True)
    low, high = scheme.zero_points
    zero_point = int(draw.whole(f"{seed}/zero point", 1, low, high)[0])
    steps = np.rint(drawn * np.float32(127) / np.maximum(largest, 1))
    if scheme.dtype == "uint8":
        steps = np.clip(steps, scheme.low - zero_point, scheme.high - zero_point)
    return Weights(steps, zero_point, per_channel, axis if per_channel else 0)


def fit(
    sample: Floats, x_scale: float, target: Target, per_channel: bool, seed: str
) -> tuple[list[float], Floats]:
    """Weight scales (one, or one per channel) and the bias in accumulator steps, for `target`.

    The bias moves each channel's median to the drawn offset, as a folded batch normalization would.
    """
    median = _quantile(sample, 0.5)
    centre = np.rint(median * np.float32(1 - target.keep))
    above = sample - centre
    tops = _tops(above, seed) if per_channel else _pooled(above)
    scales = [float32(target.top / (x_scale * float(top))) for top in tops]
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


def range_quant(real: Floats, scheme: Scheme) -> Quant:
    """Asymmetric quantization that holds 99.9 % of `real`, and zero, with room to spare."""
    ends = _quantile(real.reshape(-1, 1), 0.0005)[0], _quantile(real.reshape(-1, 1), 0.9995)[0]
    low, high = min(0.0, float(ends[0]) * MARGIN), max(0.0, float(ends[1]) * MARGIN)
    return span_quant((low, max(high, low + 1e-3)), scheme)


def span_quant(span: tuple[float, float], scheme: Scheme) -> Quant:
    """Asymmetric quantization of low..high, which holds zero."""
    low, high = span
    scale = float32((high - low) / (scheme.high - scheme.low))
    return Quant((scale,), (scheme.low + round(-low / scale),))


def requantize(values: Floats, factor: Any, quant: Quant, scheme: Scheme) -> Value:
    """round(values * factor), clamped to the 8-bit range; at most one step from what TFLite computes."""
    steps = np.rint(np.multiply(values, factor, out=values), out=values)
    np.clip(steps, scheme.low - quant.zero_point, scheme.high - quant.zero_point, out=steps)
    return Value(steps.astype(np.float32, copy=False), quant)


def sample(values: Floats) -> Floats:
    """About SAMPLES rows of (n * h * w, c), evenly spread; an odd step meets all columns of a picture."""
    rows = values.reshape(-1, values.shape[-1])
    return rows[:: max(1, len(rows) // SAMPLES) | 1]


def _quantile(rows: Floats, part: float) -> Floats:
    """Per column the value that `part` of the rows do not exceed: one of them, never a mean of two."""
    k = min(len(rows) - 1, int(part * len(rows)))
    column: Floats = np.partition(rows, k, axis=0)[k]
    return column


def float32(value: float) -> float:
    return float(np.float32(value))
