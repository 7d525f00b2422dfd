"""One operator of every kind as the scheduler sees it: spec, layouts and constants, without a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pilite.compiler import fixedpoint16, spec16
from pilite.compiler import spec as s
from pilite.compiler.fixedpoint import Multiplier, Requant, Rounding
from pilite.compiler.layout import Halo, Layout


@dataclass(frozen=True, eq=False)
class Sample:
    """One operator as the scheduler sees it."""

    name: str
    spec: s.Spec
    xs: tuple[Layout, ...]
    y: Layout
    arrays: s.Arrays = field(default_factory=dict)

    @property
    def scales_in_float64(self) -> bool:
        rounding = getattr(getattr(self.spec, "requant", None), "rounding", None)
        return rounding is Rounding.FLOAT64 or getattr(self.spec, "scaling", "") == "float64"


REQUANT = Requant(Rounding.GEMMLOWP, 3, -128, 127, left=True)
HALF, SIXTEENTH, TINY = (Multiplier(1 << 30, exponent) for exponent in (0, -3, -19))
UNEVEN = Multiplier(1_234_567_891, 0)
SMALL, LARGE = 6, 64  # pixels along a side: one task, and work for several threads


def window(kernel: int) -> s.Window:
    around = (kernel // 2, kernel // 2)
    return s.Window((kernel, kernel), (1, 1), (1, 1), around, around)


def sums(channels: int, weight: Any, requant: Requant) -> s.Arrays:
    """Constants of a convolution, with multipliers that leave most results inside int8."""
    steps = np.arange(channels, dtype=np.int32)
    return {
        "weight": weight,
        "bias": 100 * steps,
        "mantissa": (1 << 30) + 12_345_678 * (steps % 60),
        "right": 8 + steps % 3,
        "left": steps % 2,
        "scale": (2.0**-9) * (1 + steps / 8),
    }


def conv(side: int, low: int, requant: Requant, to: int = 16) -> Sample:
    """3x3 over 16 channels; weights from `low` to 127 decide whether they have to be moved into int8."""
    weight = np.linspace(low, 127, to * 9 * 16).astype(np.int16).reshape(to, 3, 3, 16)
    x = Layout((1, side, side, 16), halo=Halo(1, 1, 1, 1))
    spec = s.QConv2D(window(3), requant)
    name = f"conv to {to}, weights from {low}, {requant.rounding.value}"
    return Sample(name, spec, (x,), Layout((1, side, side, to)), sums(to, weight, requant))


def depthwise(side: int, kernel: int, low: int, channels: int = 24) -> Sample:
    weight = np.linspace(low, 127, kernel**2 * channels).astype(np.int16).reshape(kernel, kernel, channels)
    r = kernel // 2
    x = Layout((1, side, side, channels), halo=Halo(r, r, r, r))
    spec = s.QDepthwiseConv2D(window(kernel), REQUANT)
    name = f"depthwise {kernel}x{kernel} of {channels}, weights from {low}"
    return Sample(name, spec, (x,), Layout((1, side, side, channels)), sums(channels, weight, REQUANT))


def element_samples(image: Layout) -> list[Sample]:
    """Operands that broadcast; every dtype and kind of number."""
    channel = replace(image, shape=(1, 1, 1, 24))
    both, around = (image, channel), replace(image, halo=Halo(1, 1, 1, 1))
    whole, real, long = (replace(image, dtype=dtype) for dtype in ("int32", "float32", "int64"))
    kinds = ("add", "sub", "mul", "div", "floor_div", "maximum", "minimum", "squared_difference")
    return [
        Sample("sub", s.QAdd(20, (1, 2), (HALF, HALF), TINY, REQUANT, subtract=True), (image, image), image),
        Sample("square", s.QAdd(7, (1, 2), (HALF, HALF), TINY, REQUANT, True, True), (image, image), image),
        Sample("mul", s.QMul((1, 2), HALF, REQUANT), both, around),
        Sample("prelu", s.QPrelu((1, 2), HALF, HALF, REQUANT), both, image),
        Sample("compare", s.QCompare("less", (1, 2), (HALF, HALF)), both, image),
        *(Sample(f"{kind}, int32", s.Elementwise(kind), (whole, whole), whole) for kind in kinds),
        *(Sample(f"{kind}, float32", s.Elementwise(kind, -1.0, 6.0), (real, real), real) for kind in kinds),
        Sample("equal, int64", s.Elementwise("equal"), (long, long), image),
        Sample("select", s.Elementwise("select"), (channel, image, image), image),
        Sample("logical not", s.Elementwise("logical_not"), (image,), image),
        Sample("negative", s.Elementwise("neg"), (whole,), whole),
        Sample("square root", s.Elementwise("sqrt"), (real,), real),
        Sample("cast to float", s.Cast("uint8", "float32"), (image,), real),
        Sample("cast to integer", s.Cast("int64", "uint8"), (long,), image),
    ]


def line_samples(image: Layout) -> list[Sample]:
    """Two lines between lines 0 and 1; the last position of an extreme."""
    _, height, width, _ = image.shape
    names = (("rows", height), ("columns", width))
    lines: dict[str, Any] = {name: np.tile(np.array([0, 1], np.int32), (size, 1)) for name, size in names}
    weights = {f"{name[:-1]}_weights": np.full((size, 2), 512, np.int32) for name, size in names}
    halves = {name: (values / 1024).astype(np.float32) for name, values in weights.items()}
    gates, tables = 4 * 24, ("sigmoid", "gate_tanh", "cell_tanh")
    weights_of = ("input_weight", "recurrent_weight")
    network: dict[str, Any] = {
        name: (np.arange(4 * 24 * 24) % 7 - 3).astype(np.int8).reshape(4, 24, 24) for name in weights_of
    }
    network |= {name: np.ones(gates, np.int32) for name in ("input_bias", "recurrent_bias")}
    network |= {name: np.arange(-(1 << 15), 1 << 15).astype(np.int16) for name in tables}
    steps, hidden = Layout((1, width, 24)), Layout((1, 24))
    lstm = s.QLstm(False, (s.Gate(HALF, HALF),) * 4, 9, 0, Multiplier(1 << 30, -15), 3, 3)
    paired, states = replace(lstm, paired=8), (hidden, replace(hidden, dtype="int16"))
    return [
        Sample("lstm", lstm, (steps, *states), steps, network),
        Sample("lstm, paired", paired, (steps, *states), steps, network),
        Sample("bilinear", s.Bilinear(False, 0), (image,), image, lines | weights),
        Sample("bilinear, float32", s.Bilinear(True, 128), (image,), image, lines | halves),
        Sample("arg max", s.ArgExtreme(3, True), (image,), Layout(image.shape[:3], "int64")),
        Sample("arg min", s.ArgExtreme(1, False), (image,), Layout((1, width, 24), "int32")),
    ]


def wide(side: int) -> list[Sample]:
    """16-bit values: 3x3 over all channels and over each, four outputs or two a channel; ADD, MUL."""
    x, y = Layout((1, side, side, 4), "int16", Halo(1, 1, 1, 1)), Layout((1, side, side, 8), "int16")
    arrays: dict[str, Any] = {"bias": np.arange(8, dtype=np.int64), "mantissa": np.full(8, 20_000, np.int32)}
    arrays |= {"right": np.full(8, 22, np.int32), "weight": np.ones((8, 3, 3, 4), np.int8)}
    high = arrays | {"mantissa": np.full(8, 1 << 30, np.int32), "right": np.full(8, 5, np.int32)}
    real = arrays | {"scale": np.full(8, 0.001)}
    deep = arrays | {"weight": np.ones((8, 3, 3), np.int8)}
    limits = (-32768, 32767)
    tables: s.Arrays = {"exp": fixedpoint16.exponentials(), "reciprocal": fixedpoint16.reciprocals()}
    return [
        Sample("conv, int16", s.QConv16(window(3), 0, *limits, "reduced"), (x,), y, arrays),
        Sample("conv, int16 in 32 bits", s.QConv16(window(3), 0, *limits, "gemmlowp"), (x,), y, high),
        Sample("conv, int16 in float64", s.QConv16(window(3), 0, *limits, "float64"), (x,), y, real),
        Sample("depthwise, int16", s.QConv16(window(3), 2, *limits, "reduced"), (x,), y, deep),
        Sample(
            "mean, int16",
            spec16.QMean16((1, 2), Multiplier(1 << 30, -3), *limits),
            (y,),
            Layout((1, 1, 1, 8), "int16"),
        ),
        Sample("softmax, int16", spec16.Softmax16(UNEVEN), (y,), y, tables),
        Sample("add, int16", spec16.QAdd16(15, (HALF, HALF), Multiplier(1 << 30, -14), *limits), (y, y), y),
        Sample("average, int16", s.Pool("average", window(3), *limits, round_half_up=False), (y,), y),
        Sample("mul, int16", spec16.QMul16(TINY, *limits), (y, y), y),
    ]


def detection(boxes: int) -> Sample:
    """At most ten boxes of two classes, and a background."""
    arrays: s.Arrays = {
        "anchors": np.ones((boxes, 4), np.float32),
        "sizes": np.array((boxes, 4, 3, 2, 10, 1, 100, 0, 1), np.int32),
        "factors": np.array((10, 10, 5, 5, 0.5, 0.5), np.float32),
    }
    xs = (Layout((1, boxes, 4), "float32"), Layout((1, boxes, 3), "float32"))
    return Sample("detect", s.Detect(boxes, boxes + 10), xs, Layout((6 * 10 + 1,), "float32"), arrays)


def xnnpack_samples(image: Layout) -> list[Sample]:
    """What only numerics xnnpack computes."""
    requant = replace(REQUANT, left=False)
    falling = {"exp": (65535 * 0.97 ** np.arange(256)).astype(np.int32)}
    average = s.QMeanFloat((1, 2), 5, 0.02, 3.5, 1)
    return [
        Sample(
            "weighted add", s.QWeightedAdd((1, 2), (700_000, 900_000), 20, requant), (image, image), image
        ),
        Sample("mean in float32", average, (image,), Layout((1, 1, 1, 24))),
        Sample("softmax by table", s.SoftmaxTable(1 / 256, -128), (image,), image, falling),
        Sample("quantize to even", s.QuantizeFloatEven(10.0, 3), (replace(image, dtype="float32"),), image),
    ]


def samples(side: int) -> list[Sample]:
    """At least one for every spec and every path through its kernels."""
    image = Layout((1, side, side, 24))
    real = replace(image, dtype="float32")
    pool = s.Pool("average", window(3), -128, 127, round_half_up=True)
    every = np.arange(256)
    reverse = {"table": (127 - every).astype(np.int8)}
    falling = {"exp": (2.0**31 * 0.97**every - 1).astype(np.int32)}
    transposed = s.Copy(
        image.shape, s.Walk((0,) * 4, (0, 2, 1, 3), (1,) * 4), s.Walk((0,) * 4, (0, 1, 2, 3), (1,) * 4)
    )
    flat, places = Layout((side * side * 24,)), Layout((5 * 2,), "int32")
    return [
        *element_samples(image),
        *line_samples(image),
        conv(side, -127, REQUANT),
        conv(side, -128, replace(REQUANT, left=False), to=5),
        conv(side, -255 + 127, REQUANT, to=8),
        conv(side, 0, replace(REQUANT, clamp_min=3), to=17),
        conv(side, -90, REQUANT, to=32),
        conv(side, -128, REQUANT, to=64),
        conv(side, -120, replace(REQUANT, rounding=Rounding.FLOAT64, left=False)),
        depthwise(side, 3, -127),
        depthwise(side, 3, -128),
        depthwise(side, 7, -127),
        depthwise(side, 3, -200, channels=32),
        depthwise(side, 5, -128, channels=64),
        Sample("add", s.QAdd(20, (1, 2), (HALF, HALF), TINY, REQUANT), (image, image), image),
        Sample(
            "add, linear",
            s.QAdd(20, (1, 2), (UNEVEN, replace(UNEVEN, mantissa=1_987_654_321)), TINY, REQUANT),
            (image, image),
            image,
        ),
        Sample("average", pool, (image,), image),
        Sample("max", replace(pool, kind="max"), (image,), image),
        Sample("mean", s.QMean((1, 2), 3, HALF, REQUANT), (image,), Layout((1, 1, 1, 24))),
        Sample("mean of all", s.QMean((1, 2, 3), 3, HALF, REQUANT), (image,), Layout((1, 1, 1, 1))),
        Sample("sum", s.Reduce("add", (1, 2), 0), (image,), Layout((1, 1, 1, 24))),
        Sample("largest", s.Reduce("maximum", (3,), -128), (image,), Layout((1, side, side, 1))),
        Sample("l2 norm", s.L2Norm(3, 7), (image,), image),
        Sample("softmax", s.Softmax(-128), (image,), image, falling),
        Sample("table", s.Table(), (image,), image, reverse),
        *xnnpack_samples(image),
        Sample("quantize", s.QuantizeFloat(0.1, 3), (real,), image),
        Sample("dequantize", s.DequantizeFloat(0.1, 3), (image,), real),
        Sample("move", s.Move((0, 0, 0, 0), flip=True), (replace(image, dtype="uint8"),), image),
        Sample("move, bordered", s.Move((0, 0, 0, 0)), (image,), replace(image, halo=Halo(1, 1, 2, 2))),
        Sample("broadcast", s.Broadcast((1, 1, 1, 24), image.shape), (Layout((1, 1, 1, 24)),), image),
        Sample("copy", transposed, (image,), image),
        Sample("pick", s.Pick((1, 2)), (image,), image, {"index": np.zeros(2 * side, np.int32)}),
        Sample("gather", s.Gather(1, 1, (side, side), 24, 5), (flat, places), Layout((5 * 24,))),
        detection(side),
        *wide(side),
        Sample("fill", s.Fill(3, whole=False), (), replace(image, halo=Halo(1, 2, 3, 4))),
        Sample("fill all", s.Fill(3, whole=True), (), image),
    ]
