"""Random models of one operator that computes element by element, or on images and along axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.zoo.writer import NO_OPTIONS
from pilite.compiler import elements
from pilite.compiler.graph import Add, ArgMax, Binary, Gelu, LeakyRelu, Options, Resize
from tests.draw import CHANNELS, Array, Draw, OneOp, Shape

EIGHT_BIT = ("uint8", "int8")
QUANTIZED = (*EIGHT_BIT, "int16")
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17)


def plain(d: Draw) -> bool:
    return d.dtype not in QUANTIZED


# One operand.


def _unary(d: Draw, op: str) -> OneOp:
    """Equal scales in one of five."""
    shape = d.shape()
    x = d.value(shape)
    if plain(d):
        return _finish(d, op, (x,), d.value(shape))
    scale = d.tensors[x].scales[0]
    y = d.activation(shape, scale if d.chance(0.2) else d.near(scale, 8))
    return d.finish(op, (x,), y)


def _limited(d: Draw, op: str) -> OneOp:
    """LOGISTIC and TANH: the output's quantization is given."""
    shape, low = d.shape(), int(np.iinfo(d.dtype).min)
    if d.dtype == "int16":
        x = d.activation(
            shape, d.near(2.0**-12, 16) if d.chance(0.7) else d.near(2.0 ** -d.pick((11, 12, 13)), 1.0004)
        )
        return d.finish(op, (x,), d.activation(shape, 2.0**-15))
    x = d.activation(shape, d.near(0.05, 16))
    quant = (1 / 256, low) if op == "LOGISTIC" else (1 / 128, low + 128)
    return d.finish(op, (x,), d.activation(shape, *quant))


def _leaky_relu(d: Draw, op: str) -> OneOp:
    shape = d.shape()
    x = d.activation(shape)
    scale = d.tensors[x].scales[0]
    y = d.activation(shape, d.pick((scale, d.near(scale, 4))))
    return d.finish(
        op, (x,), y, LeakyRelu(d.pick((0.0, 0.01, 0.1, 0.25, 0.3, 1.0, d.near(1.0, 4), -d.near(0.5, 4))))
    )


def _exp(d: Draw, op: str) -> OneOp:
    """Mostly up to the end of the output's range."""
    shape, scale = d.shape(), d.near(0.02, 4)
    x = d.activation(shape, scale)
    largest = scale * (127 - d.tensors[x].zero_points[0])
    y = d.activation(shape, d.near(float(np.exp(min(largest, 30))) / 200, 3))
    return d.finish(op, (x,), y)


def _gelu(d: Draw, op: str) -> OneOp:
    shape, scale = d.shape(), d.near(0.03, 6)
    y = d.near(scale, 3)
    return d.finish(op, (d.activation(shape, scale),), d.activation(shape, y), Gelu(d.chance(0.5)))


def _rsqrt(d: Draw, op: str) -> OneOp:
    """No value is below 0: TFLite fails."""
    shape, scale = d.shape(), d.scale()
    x = d.activation(shape, scale, -128)
    return d.finish(op, (x,), d.activation(shape, d.near(float(scale**-0.5) / 200, 30)))


def _cast(d: Draw, op: str) -> OneOp:
    """To any dtype, of values that it holds."""
    shape, to = d.shape(), d.pick([t for t in elements.CASTABLE if t != d.dtype])
    x = d.tensor(shape)
    model = d.model(op, (x,), d.tensor(shape, dtype=to))
    low, high = (0, 1) if "bool" in (d.dtype, to) else _held(d.dtype, to)
    values = d.rng.integers(low, high, shape, endpoint=True).astype(d.dtype)
    if d.dtype == "float32" and to != "bool":
        values = np.clip(values + d.rng.uniform(-0.9, 0.9, shape), low, high).astype(np.float32)
    return OneOp(op, model, [values])


def _held(*dtypes: str) -> tuple[int, int]:
    limits = [np.iinfo(t) for t in dtypes if t != "float32"]
    low, high = max(int(i.min) for i in limits), min(int(i.max) for i in limits)
    return (max(low, -(2**30)), min(high, 2**30)) if "float32" in dtypes else (low, high)


# Two operands and more.


def _shapes(d: Draw, op: str) -> tuple[Shape, Shape, Shape]:
    """Of two operands and their result; not all dimensions broadcast."""
    shape = d.shape()
    left, right = d.broadcast(shape) if len(shape) <= elements.most_broadcast(op) else (shape, shape)
    if d.chance(0.5):
        left, right = right, left
    return left, right, tuple(np.broadcast_shapes(left, right))


def pair(d: Draw, op: str) -> OneOp:
    """ADD, SUB, MUL and DIV with a fused activation."""
    left, right, shape = _shapes(d, op)
    if plain(d):
        a, b = d.value(left), d.value(right)
        return _finish(d, op, (a, b), d.value(shape), _fused(op, d.fused(0.1)))
    scale = d.scale()
    a = d.activation(left, scale)
    b_scale = scale if d.chance(0.2) else d.near(scale, 30)
    b = d.constant(right, b_scale) if d.chance(0.25) else d.activation(right, b_scale)
    product = scale * d.tensors[b].scales[0] * 60 if op == "MUL" else max(scale, d.tensors[b].scales[0])
    if d.dtype == "int16" and op != "MUL" and d.chance(0.3):
        return _shifted(d, op, left, right)
    if d.dtype == "int16":  # seldom three powers of two
        product *= 100 if op == "MUL" else 1
        y = d.activation(shape, d.near(3 * product, 1.9))
        options = _fused(op, d.fused(d.tensors[y].scales[0]), powers=False)
        return d.finish(op, (a, b), y, options)
    y_scale = 2 * product if d.chance(0.2) else d.near(1.5 * product, 1.4 if op == "SUB" else 8)
    y = d.activation(shape, y_scale)
    return d.finish(op, (a, b), y, _fused(op, d.fused(y_scale)))


def _shifted(d: Draw, op: str, left: Shape, right: Shape) -> OneOp:
    """int16 scales that are powers of two, or nearly so: one operand has the output's, no other is larger."""
    right = left if op == "ADD" else right
    scales = [2.0 ** -d.pick((0, 1, 4, 11, 15)), 1.0][:: d.pick((1, -1))]
    unit = 2.0 ** -d.pick((3, 10, 15))
    a, b, y = (
        d.activation(shape, d.near(unit * scale, 1.0005))
        for shape, scale in zip(
            (left, right, tuple(np.broadcast_shapes(left, right))), (*scales, 1.0), strict=True
        )
    )
    return d.finish(op, (a, b), y, _fused(op, d.fused(unit)))


def _squared(d: Draw, op: str) -> OneOp:
    """Outputs that hold most squares, or saturate; often equal scales."""
    left, right, shape = _shapes(d, op)
    if plain(d):
        return _finish(d, op, (d.value(left), d.value(right)), d.value(shape))
    scale = d.scale()
    other = scale if d.chance(0.3) else d.near(scale, 8)
    b = d.constant(right, other) if d.chance(0.25) else d.activation(right, other)
    y = d.activation(shape, d.near(max(scale, other) ** 2 * 60, 20))
    return d.finish(op, (d.activation(left, scale), b), y)


def _fused(op: str, activation: str, *, powers: bool = True) -> Options:
    return Add(activation, powers) if op in ("ADD", "SUB") else Binary(activation)


def _prelu(d: Draw, op: str) -> OneOp:
    """A slope per channel, or of any shape that broadcasts to the input's."""
    shape = d.shape(most=4)
    x = d.activation(shape)
    slope = d.constant(
        d.pick((shape[-1:], (1,) * (len(shape) - 1) + shape[-1:], shape, (1,))), d.near(0.02, 4)
    )
    y = d.activation(shape, d.near(d.tensors[x].scales[0], 3))
    return d.finish(op, (x, slope), y)


def _extreme(d: Draw, op: str) -> OneOp:
    left, right, shape = _shapes(d, op)
    a = d.value(left)
    return _finish(d, op, (a, d.value(right, like=a)), d.value(shape, like=a))


def _compare(d: Draw, op: str) -> OneOp:
    """Scales below one; often equal, so that values are equal too."""
    left, right, shape = _shapes(d, op)
    y = d.tensor(shape, dtype="bool")
    if plain(d):
        return _finish(d, op, (d.value(left), d.value(right)), y)
    scale = min(d.scale(), 0.99)
    zero_point = d.zero_point()
    same = d.chance(0.4)
    a = d.activation(left, scale, zero_point)
    b = d.activation(right, scale if same else min(d.near(scale, 3), 0.99), zero_point if same else None)
    return d.finish(op, (a, b), y)


def _select(d: Draw, op: str) -> OneOp:
    left, right, shape = _shapes(d, op)
    condition = shape
    if op == "SELECT":
        left = right = shape
        condition = d.pick((shape, (), shape[:1]))
    elif len(shape) <= elements.most_broadcast(op):
        condition = d.broadcast(shape)[0]
    c = d.tensor(condition, dtype="bool")
    a = d.value(left)
    b = d.value(right, like=a)
    return _finish(d, op, (c, a, b), d.value(shape, like=a))


def _logical(d: Draw, op: str) -> OneOp:
    left, right, shape = _shapes(d, op)
    return _finish(d, op, (d.tensor(left), d.tensor(right)), d.tensor(shape))


def _floor_div(d: Draw, op: str) -> OneOp:
    """No operand is 0: TFLite fails."""
    left, right, shape = _shapes(d, op)
    return _finish(d, op, (d.value(left), d.value(right)), d.value(shape))


def _finish(d: Draw, op: str, operands: tuple[int, ...], y: int, options: Options = NO_OPTIONS) -> OneOp:
    """The model with inputs that suit plain numbers: close enough to be equal at times, no divisor of 0."""
    model = d.model(op, operands, y, options)
    return OneOp(op, model, [_numbers(d, op, i) for i in d.free(operands)])


def _numbers(d: Draw, op: str, index: int) -> Array:
    spec = d.tensors[index]
    if spec.dtype == "bool":
        return d.rng.random(spec.shape) < 0.5
    if spec.dtype in QUANTIZED:
        return d.values(spec.shape, spec.dtype)
    if spec.dtype == "float32":
        wide = d.rng.standard_normal(spec.shape) * d.pick((1, 1e-30, 1e30))
        values = np.where(d.rng.random(spec.shape) < 0.3, np.round(wide), wide).astype(np.float32)
        return np.abs(values) if op == "SQRT" else np.where(values == 0, np.float32(2), values)
    largest = d.pick((3, 1000, 2**31 - 1)) if op != "MUL" else d.pick((3, 1000, 40_000))
    largest = largest // 2 if op in ("ADD", "SUB") else largest
    largest = min(largest, 20_000) if op == "SQUARED_DIFFERENCE" else largest
    values = d.rng.integers(-largest, largest, spec.shape, endpoint=True).astype(spec.dtype)
    return np.where(values == 0, 1, values).astype(spec.dtype) if "DIV" in op else values


# Images and axes.


def _resize(d: Draw, op: str) -> OneOp:
    """Larger, smaller, or as it was; more than half align or take half pixels."""
    image, size = d.pair(SIZES), d.pair(SIZES)
    mode = d.pick(((False, False), (True, False), (False, True)))
    n, c = d.pick((1, 1, 2)), d.pick(CHANNELS)
    x = d.value((n, *image, c))
    y = d.value((n, *size, c), like=x)
    return d.finish(op, (x, d.integers(size)), y, Resize(*mode))


def _arg(d: Draw, op: str) -> OneOp:
    """Few different values: many ties."""
    shape = d.shape()
    axis = int(d.rng.integers(len(shape)))
    shape = (*shape[:axis], d.pick((1, 2, 3, 10, 100)), *shape[axis + 1 :])
    x = d.value(shape)
    to = d.pick(("int32", "int64"))
    y = d.tensor((*shape[:axis], *shape[axis + 1 :]), dtype=to)
    given = axis - len(shape) if d.chance(0.3) else axis
    case = d.finish(op, (x, d.integers(given)), y, ArgMax(to))
    if d.dtype == "float32":
        case = OneOp(case.name, case.model, [np.round(case.inputs[0])])
    return OneOp(case.name, case.model, [v // 32 * 32 if d.chance(0.4) else v for v in case.inputs])


OPS: dict[str, Callable[[Draw, str], OneOp]] = {
    **dict.fromkeys(("ABS", "HARD_SWISH", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "SQRT"), _unary),
    **dict.fromkeys(("LOGISTIC", "TANH"), _limited),
    **dict.fromkeys(("DIV", "MUL", "SUB"), pair),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), _extreme),
    **dict.fromkeys(elements.COMPARISONS, _compare),
    **dict.fromkeys(elements.SELECTIONS, _select),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR"), _logical),
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), _arg),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "CAST": _cast,
    "EXP": _exp,
    "FLOOR_DIV": _floor_div,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "LOGICAL_NOT": _unary,
    "PRELU": _prelu,
    "RSQRT": _rsqrt,
    "SQUARED_DIFFERENCE": _squared,
}
# What tables of the door allow, and no more.
DTYPES: dict[str, tuple[str, ...]] = {
    **{
        op: (() if op in elements.NOT_QUANTIZED else EIGHT_BIT) + more
        for op, more in elements.NUMBERS.items()
        if op != "ADD"
    },
    **dict.fromkeys(("ARG_MAX", "ARG_MIN"), ("uint8", "int8", "int32", "float32")),
    **dict.fromkeys(("LEAKY_RELU", "LOGISTIC", "RELU", "RELU6", "RESIZE_BILINEAR", "TANH"), QUANTIZED),
    "ABS": ("int8", "int16"),
    "CAST": elements.CASTABLE,
    **dict.fromkeys(("EXP", "RSQRT"), ("int8",)),
    "SQUARED_DIFFERENCE": ("int8", *elements.NUMBERS["SQUARED_DIFFERENCE"]),
    "RESIZE_NEAREST_NEIGHBOR": (*QUANTIZED, "float32"),
}
