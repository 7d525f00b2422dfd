"""Random models of one operator, with inputs: every operator and dtype that pilite compiles.

    case = seeded("CONV_2D", "int8", 17)     # the same model in every process

The draws lean to where kernels break: sizes around vector widths, zero points at the ends, scales that are
powers of two (every second sum is a tie), multipliers above 1, full-range weights, windows larger than the
image. Left out is only what the runtimes refuse or leave undefined.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.zoo.writer import TensorSpec
from pilite.compiler.graph import (
    ABSENT,
    Add,
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Pad,
    Pool2D,
    TransposeConv,
)
from pilite.compiler.shapes import extent
from tests import detect_ops, element_ops, move_ops, recurrent_ops, reduce_ops, wide_ops
from tests.draw import CHANNELS, DEPTHS, SIDES, Array, Draw, OneOp, Shape

DTYPES = ("uint8", "int8")
WIDE = (*DTYPES, "int16")
WINDOWS = (1, 1, 1, 2, 3, 3, 3, 4, 5, 7)
MAX_MULTIPLY_ADDS = 1_500_000  # keeps the reference kernels at milliseconds


def seeded(op: str, dtype: str, seed: int) -> OneOp:
    """The model of this number."""
    rng = np.random.default_rng([zlib.crc32(f"{op} {dtype}".encode()), seed])
    case = random_model(op, dtype, rng)
    return OneOp(f'seeded("{op}", "{dtype}", {seed})', case.model, case.inputs)


def random_model(op: str, dtype: str, rng: np.random.Generator) -> OneOp:
    """One operator of OPS on `dtype` (QUANTIZE: to it): random shapes, options, quantization and inputs."""
    return OPS[op](Draw(rng, dtype), op)


# Convolutions and FULLY_CONNECTED.


@dataclass(frozen=True)
class Window:
    """A window over an image, with the result's size."""

    image: tuple[int, int]
    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: str

    @property
    def result(self) -> tuple[int, int]:
        h, w = (
            extent(*along, self.padding)
            for along in zip(self.image, self.size, self.stride, self.dilation, strict=True)
        )
        return h, w


def _window(d: Draw, dilated: bool) -> Window:
    stride = (1, 1) if d.chance(0.4) else d.pair((1, 2, 3))
    dilation = d.pair((1, 2, 3)) if dilated and d.chance(0.3) else (1, 1)
    window = Window(d.pair(SIDES), d.pair(WINDOWS), stride, dilation, d.pick(("SAME", "VALID")))
    if min(window.result) >= 1:
        return window
    return Window(window.image, window.size, stride, dilation, "SAME")


def _conv_2d(d: Draw, op: str) -> OneOp:
    window, batch = _window(d, dilated=True), d.pick((1, 1, 1, 2, 3))
    ic, oc = d.pair(CHANNELS)
    if batch * math.prod((*window.result, *window.size, ic, oc)) > MAX_MULTIPLY_ADDS:
        ic, oc = d.pair((1, 3, 8, 9))
    groups = d.pick((2, 3, 5)) if max(ic, oc) < 10 and d.chance(0.3) else 1
    oc *= groups
    x = d.activation((batch, *window.image, ic * groups))
    w = _weights(d, (oc, *window.size, ic), axis=0)
    b = _bias(d, x, w, oc)  # TFLite's quantized kernel refuses to do without
    y, activation = _result(d, x, w, (batch, *window.result, oc), taps=math.prod(window.size) * ic)
    return d.finish(op, (x, w, b), y, Conv2D(window.padding, window.stride, window.dilation, activation))


def _depthwise_conv_2d(d: Draw, op: str) -> OneOp:
    window, batch = _window(d, dilated=True), d.pick((1, 1, 1, 2, 3))
    channels, multiplier = d.pick(CHANNELS), d.pick((1, 1, 1, 2, 3, 8))
    oc = channels * multiplier
    x = d.activation((batch, *window.image, channels))
    w = _weights(d, (1, *window.size, oc), axis=3)
    y, activation = _result(d, x, w, (batch, *window.result, oc), taps=math.prod(window.size))
    options = DepthwiseConv2D(window.padding, window.stride, window.dilation, multiplier, activation)
    operands = (x, w) if d.chance(0.15) else (x, w, _bias(d, x, w, oc))
    return d.finish(op, operands, y, options)


def _fully_connected(d: Draw, op: str) -> OneOp:
    depth, units = d.pick(DEPTHS), d.pick(DEPTHS)
    rows = d.pick(((1,), (1,), (2,), (5,), (2, 3), (1, 2, 2)))
    x = d.activation((*rows, depth))
    w = _weights(d, (units, depth), axis=0)
    keep = len(d.tensors[w].scales) == 1 and d.chance(0.3)
    shape = (*rows, units) if keep else (math.prod(rows), units)
    y, activation = _result(d, x, w, shape, taps=depth)
    bias = ABSENT if d.chance(0.15) else _bias(d, x, w, units)
    return d.finish(op, (x, w, bias), y, FullyConnected(activation, keep))


def _transpose_conv(d: Draw, op: str) -> OneOp:
    """Mostly the output that a convolution back to the input has; else any size."""
    image, size, batch = d.pair(SIDES[:11]), d.pair(WINDOWS), d.pick((1, 1, 2))
    stride, padding = d.pick(((1, 1), (2, 2), (2, 2), d.pair((1, 2, 3, 5)))), d.pick(("SAME", "VALID"))
    sides = zip(image, size, stride, strict=True)
    full = [(n - 1) * s + max(k if padding == "VALID" else 1, 1) for n, k, s in sides]
    result = (
        d.pair((1, 2, 5, 9))
        if d.chance(0.15)
        else tuple(n + d.pick((0, s - 1)) for n, s in zip(full, stride, strict=True))
    )
    ic, oc = d.pair(CHANNELS)
    if batch * math.prod((*image, *size, ic, oc)) > MAX_MULTIPLY_ADDS:
        ic, oc = d.pair((1, 3, 8, 9))
    shape = (batch, *result, oc)
    x = d.activation((batch, *image, ic))
    w = _weights(d, (oc, *size, ic), axis=0)
    operands = (d.integers(shape), w, x) if d.chance(0.3) else (d.integers(shape), w, x, _bias(d, x, w, oc))
    taps = max(math.prod(size) * ic // math.prod(stride), ic)
    y, activation = _result(d, x, w, shape, taps)
    return d.finish(op, operands, y, TransposeConv(padding, stride, activation))


def _weights(d: Draw, shape: Shape, axis: int) -> int:
    """uint8: one scale, any zero point. int8: a scale per channel or one; FULLY_CONNECTED may shift that."""
    base, data = d.scale() / 16, d.values(shape)
    if d.dtype == "uint8":
        return d.tensor(shape, (base,), d.zero_point(), data=data)
    if d.chance(0.2):
        shifted = len(shape) == 2 and d.chance(0.5)
        return d.tensor(shape, (base,), d.zero_point() if shifted else 0, data=data)
    scales = [d.near(base, 4) if d.chance(0.7) else base * d.pick((0.25, 0.5, 2)) for _ in range(shape[axis])]
    return d.tensor(shape, scales, data=data, axis=axis)


def _bias(d: Draw, x: int, w: int, channels: int) -> int:
    scales = [float(np.float32(d.tensors[x].scales[0]) * np.float32(s)) for s in d.tensors[w].scales]
    spread = 0 if d.chance(0.1) else d.pick((100, 5_000, 200_000))
    data = d.rng.integers(-spread, spread + 1, channels).astype(np.int32)
    return d.tensor((channels,), scales, dtype="int32", data=data)


def _result(d: Draw, x: int, w: int, shape: Shape, taps: int) -> tuple[int, str]:
    """The output tensor, scaled so that sums of `taps` random products fill its range, and an activation."""
    product = d.tensors[x].scales[0] * float(np.mean(d.tensors[w].scales))
    mean, spread = _sums(d.tensors[x], d.tensors[w], taps)
    if d.chance(0.1):
        scale = d.near(product / 2, 2)  # multipliers from 1 to 4 and beyond: a left shift
    elif d.chance(0.25):
        scale = 2.0 ** round(math.log2(product * spread / 40))  # with powers of two before: ties
    else:
        scale = d.near(product * spread / 40, 3)
    return d.activation(shape, scale, d.centred(mean * product / scale)), d.fused(scale)


def _sums(x: TensorSpec, w: TensorSpec, taps: int) -> tuple[float, float]:
    """Mean and spread of a sum of `taps` products; a mean far from zero counts as spread in part."""
    x_mean = np.iinfo(x.dtype).max - 127.5 - x.zero_points[0]
    assert w.data is not None
    w_mean = float(w.data.mean()) - w.zero_points[0]
    variance = (74**2 + x_mean**2) * (float(w.data.std()) ** 2 + 1 + w_mean**2) - (x_mean * w_mean) ** 2
    mean = taps * x_mean * w_mean
    return mean, math.sqrt(taps * variance) + abs(mean) / 3


# Element by element, and pools.


def _add(d: Draw, op: str) -> OneOp:
    if d.dtype not in DTYPES:
        return element_ops.pair(d, op)
    a_shape, b_shape = d.broadcast(d.shape())
    a_scale = d.scale()
    b_scale = a_scale if d.chance(0.2) else d.near(a_scale, 30)
    a = d.activation(a_shape, a_scale)
    b = d.constant(b_shape, b_scale) if d.chance(0.25) else d.activation(b_shape, b_scale)
    scale = max(a_scale, b_scale) * 2 if d.chance(0.2) else d.near(a_scale + b_scale, 3)
    y = d.activation(np.broadcast_shapes(a_shape, b_shape), scale)
    return d.finish(op, (a, b) if d.chance(0.7) else (b, a), y, Add(d.fused(scale)))


def _pool_2d(d: Draw, op: str) -> OneOp:
    """Scales differ in one of ten: TFLite pools the stored values all the same."""
    window, batch, channels = _window(d, dilated=False), d.pick((1, 1, 1, 2, 3)), d.pick(CHANNELS)
    x = d.activation((batch, *window.image, channels))
    spec, shape = d.tensors[x], (batch, *window.result, channels)
    y = d.activation(shape) if d.chance(0.1) else d.activation(shape, spec.scales[0], spec.zero_points[0])
    options = Pool2D(window.padding, window.stride, window.size, d.fused(d.tensors[y].scales[0]))
    return d.finish(op, (x,), y, options)


def _concatenation(d: Draw, op: str) -> OneOp:
    """uint8 operands may have any scale, int8 operands have the output's."""
    shape, count = d.shape(), d.pick((1, 2, 2, 3, 4, 5))
    axis = int(d.rng.integers(len(shape)))
    scale, zero_point = d.scale(), d.zero_point()
    operands = []
    for i in range(count):
        part = (*shape[:axis], d.pick((1, 2, 3, 8, 17)), *shape[axis + 1 :])
        same = d.dtype != "uint8" or d.chance(0.4)
        quant = (scale, zero_point) if same else (d.near(scale, 8), None)
        operands.append(d.constant(part, *quant) if i and d.chance(0.2) else d.activation(part, *quant))
    total = sum(d.tensors[i].shape[axis] for i in operands)
    y = d.activation((*shape[:axis], total, *shape[axis + 1 :]), scale, zero_point)
    stored = axis - len(shape) if d.chance(0.3) else axis
    return d.finish(op, d.rng.permutation(operands).tolist(), y, Concatenation(stored, "NONE"))


def _quantize(d: Draw, op: str) -> OneOp:
    y_scale, shape = d.scale(), d.shape()
    if d.chance(0.5):
        x = d.tensor(shape, dtype="float32")
        model = d.model(op, (x,), d.activation(shape, y_scale))
        return OneOp(op, model, [_reals(d, shape, y_scale)])
    if d.dtype == "int16":
        to = d.pick(("int8", "int16"))
        y = d.tensor(shape, (y_scale,), d.zero_point(to), dtype=to)
        return d.finish(op, (d.activation(shape, d.near(y_scale, 8)),), y)
    kind = d.pick(DTYPES)
    scale = y_scale if d.chance(0.3) else d.near(y_scale, 8)
    zero_point = d.zero_point(kind)
    x = d.tensor(shape, (scale,), zero_point, dtype=kind)
    flipped = zero_point + {"int8": -128, "uint8": 128}[d.dtype]  # with equal scales: only the sign changes
    limits = np.iinfo(d.dtype)
    flips = kind != d.dtype and scale == y_scale and limits.min <= flipped <= limits.max
    return d.finish(op, (x,), d.activation(shape, y_scale, flipped if flips else None))


def _reals(d: Draw, shape: Shape, scale: float) -> Array:
    """Spread over the range, ties, far outside, zeros of both signs and denormals; all below 2**31 steps."""
    steps = d.rng.standard_normal(shape) * d.pick((1, 60, 200, 100_000))
    if d.chance(0.4):
        steps = np.round(steps) + 0.5
    values = (steps * scale).astype(np.float32)
    special = np.array([0.0, -0.0, 1e-40, scale / 2, -scale / 2], np.float32)
    return np.where(d.rng.random(shape) < 0.1, d.rng.choice(special, shape), values)


def _dequantize(d: Draw, op: str) -> OneOp:
    shape = d.shape()
    return d.finish(op, (d.activation(shape),), d.tensor(shape, dtype="float32"))


# Moving bytes.


def _reshape(d: Draw, op: str) -> OneOp:
    """Any new shape with the same number of values; the quantization may change, the bytes do not."""
    shape = d.shape()
    cut = int(d.rng.integers(0, len(shape) + 1))
    groups = (math.prod(shape[:cut]), math.prod(shape[cut:]))
    x = d.activation(shape)
    y = d.activation(d.pick((groups, (*groups[::-1], 1), (math.prod(shape),), shape[::-1])))
    return d.finish(op, (x,), y)


def _squeeze(d: Draw, op: str) -> OneOp:
    small = d.shape(most=3)
    x = d.activation(_with_ones(d, small))
    return d.finish(op, (x,), d.activation(small))


def _with_ones(d: Draw, shape: Shape) -> Shape:
    sizes = list(shape)
    for _ in range(int(d.rng.integers(1, 3))):
        sizes.insert(int(d.rng.integers(len(sizes) + 1)), 1)
    return tuple(sizes)


def _expand_dims(d: Draw, op: str) -> OneOp:
    x = d.activation(d.shape(most=4))
    spec = d.tensors[x]
    axis = int(d.rng.integers(len(spec.shape) + 1))
    y = d.activation((*spec.shape[:axis], 1, *spec.shape[axis:]), spec.scales[0], spec.zero_points[0])
    given = axis - len(spec.shape) - 1 if d.chance(0.3) else axis
    return d.finish(op, (x, d.tensor((1,), dtype="int32", data=np.array([given], np.int32))), y)


def _pad(d: Draw, op: str) -> OneOp:
    """Quantization differs between input and output in one of ten: TFLite copies the stored values."""
    x = d.activation(d.shape())
    spec = d.tensors[x]
    before, after = (tuple(d.pick((0, 0, 1, 2, 3)) for _ in spec.shape) for _ in range(2))
    shape = tuple(a + n + b for a, n, b in zip(before, spec.shape, after, strict=True))
    y = d.activation(shape) if d.chance(0.1) else d.activation(shape, spec.scales[0], spec.zero_points[0])
    value = int(d.values((1,))[0]) if op == "PADV2" else None
    return d.finish(op, (x,), y, Pad(before, after, value))


def _wide_or(narrow: Callable[[Draw, str], OneOp]) -> Callable[[Draw, str], OneOp]:
    return lambda d, op: wide_ops.OPS[op](d, op) if d.dtype == "int16" else narrow(d, op)


OPS: dict[str, Callable[[Draw, str], OneOp]] = {
    **detect_ops.OPS,
    **element_ops.OPS,
    **move_ops.OPS,
    **recurrent_ops.OPS,
    **reduce_ops.OPS,
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool_2d,
    "CONCATENATION": _concatenation,
    "CONV_2D": _wide_or(_conv_2d),
    "DEPTHWISE_CONV_2D": _wide_or(_depthwise_conv_2d),
    "DEQUANTIZE": _dequantize,
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _wide_or(_fully_connected),
    "MAX_POOL_2D": _pool_2d,
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "TRANSPOSE_CONV": _wide_or(_transpose_conv),
}
# The dtypes that an operator computes in; the others do both 8-bit types.
SPECIAL: dict[str, tuple[str, ...]] = {
    **detect_ops.DTYPES,
    **element_ops.DTYPES,
    **move_ops.DTYPES,
    **recurrent_ops.DTYPES,
    **reduce_ops.DTYPES,
    **dict.fromkeys(wide_ops.OPS, WIDE),
    **dict.fromkeys(("CONCATENATION", "EXPAND_DIMS", "PAD", "PADV2", "RESHAPE", "SQUEEZE"), WIDE),
    **dict.fromkeys(("AVERAGE_POOL_2D", "DEQUANTIZE", "MAX_POOL_2D", "QUANTIZE"), WIDE),
    "ADD": (*WIDE, "int32", "float32"),
}
ROWS = [(op, dtype) for op in OPS for dtype in SPECIAL.get(op, DTYPES)]
