"""Numerics xnnpack: what XNNPACK takes, and what is refused because LiteRT's default cannot be promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import delegation, tflite
from pilite.compiler.graph import Add, Graph, Mean, Pad, Pool2D, TransposeConv
from pilite.compiler.ops import OPS
from pilite.errors import ModelError
from tests import oracle
from tests.batch import check_bits
from tests.draw import OneOp
from tests.native import HERE
from tests.small import CONV, DENSE, DEPTHWISE, POOL, bias, integers, one, per_axis, value, weights

X, Y = value(1, 5, 5, 3), value(1, 5, 5, 4, name="y", scale=0.5)
W, B = weights(4, 3, 3, 3), bias(4)
X3 = value(1, 5, 5, 3, name="y", scale=0.5)
UW = weights(4, 3, 3, 3, dtype="uint8", zero_point=120)
TINY = 1e-39
REF = "compile with `--numerics ref`"


def conv(
    x: TensorSpec = X,
    w: TensorSpec = W,
    b: TensorSpec = B,
    y: TensorSpec = Y,
    **more: str,
) -> bytes:
    return one("CONV_2D", [x, w, b], y, replace(CONV, **more))  # type: ignore[arg-type]


def without_bias() -> bytes:
    tensors = [X, per_axis(weights(1, 3, 3, 3), 3), X3]
    return write(tensors, [OpSpec("DEPTHWISE_CONV_2D", (0, 1, -1), (2,), DEPTHWISE)], [0], [2])


def plain(count: int) -> TensorSpec:
    return replace(bias(count), scales=(), zero_points=())


REFUSED = {
    "scale below float32's normal numbers": (
        conv(x=replace(X, scales=(TINY,))),
        "its tensor 'x' has a scale below 1.17549e-38",
    ),
    "transposed to another size": (
        one(
            "TRANSPOSE_CONV",
            [integers(1, 7, 7, 4), UW, replace(X, dtype="uint8"), B],
            value(1, 7, 7, 4, name="y", scale=0.5, dtype="uint8"),
            TransposeConv("SAME", (1, 1), "NONE"),
        ),
        "its output (7, 7) convolved back is (7, 7), not its input (5, 5); LiteRT refuses it",
    ),
    "transposed with gaps": (
        one(
            "TRANSPOSE_CONV",
            [integers(1, 20, 20, 4), UW, replace(X, dtype="uint8"), B],
            value(1, 20, 20, 4, name="y", scale=0.5, dtype="uint8"),
            TransposeConv("VALID", (4, 4), "NONE"),
        ),
        "its window (3, 3) is smaller than its stride (4, 4), where cores round otherwise",
    ),
    "transposed with gaps, padded": (
        one(
            "TRANSPOSE_CONV",
            [integers(1, 20, 20, 4), W, X, B],
            value(1, 20, 20, 4, name="y", scale=0.5),
            TransposeConv("SAME", (4, 4), "NONE"),
        ),
        "its window (3, 3) is smaller than its stride (4, 4), so LiteRT leaves it to a builtin kernel",
    ),
    "16 bits with a 32-bit bias": (
        conv(replace(X, dtype="int16", zero_points=(0,)), y=replace(Y, dtype="int16", zero_points=(0,))),
        "has 16-bit values and 32-bit sums, which LiteRT rounds otherwise",
    ),
    "16 bits that are quantized": (
        one("QUANTIZE", [TensorSpec("x", (4,), "float32")], value(4, name="y", dtype="int16", zero_point=0)),
        "turns floats into int16, of which LiteRT rounds the last 4 of 4 floats otherwise",
    ),
    "16 bits of no small scale": (
        one(
            "EQUAL",
            [value(4, dtype="int16", scale=1.5, zero_point=0), value(4, dtype="int16", zero_point=0)],
            TensorSpec("y", (4,), "bool"),
        ),
        "compares int16 values of scales 1.5 and 0.1; LiteRT takes those below 1",
    ),
    "16 bits compared by several scales": (
        one(
            "EQUAL",
            [
                replace(value(2, dtype="int16", zero_point=0), scales=(0.1, 0.2), zero_points=(0, 0), axis=0),
                value(2, dtype="int16", zero_point=0),
            ],
            TensorSpec("y", (2,), "bool"),
        ),
        "its int16 tensor 'x' has 2 scales, of which LiteRT needs one here",
    ),
    "16 bits summed without a scale": (
        one("SUM", [TensorSpec("x", (2, 4), "int16")], TensorSpec("y", (2,), "int16"), Mean((1,), False)),
        "its int16 tensor 'x' has 0 scales, of which LiteRT needs one here",
    ),
    "more 16 bits than a sum holds": (
        one(
            "SUM",
            [value(2, 65537, dtype="int16", zero_point=0)],
            value(2, name="y", dtype="int16", zero_point=0),
            Mean((1,), False),
        ),
        "sums 65537 values, more than the 32 bits of LiteRT's sum hold",
    ),
    "16 bits of a power of two": (
        one(
            "TANH",
            [value(4, dtype="int16", scale=2.0**-11, zero_point=0)],
            value(4, name="y", dtype="int16", scale=2.0**-15, zero_point=0),
        ),
        "its int16 input scale 0.000488281 is a power of two, which LiteRT computes otherwise",
    ),
    "no bias": (without_bias(), "has no bias, without which LiteRT fails"),
    "bias without scale": (conv(b=plain(4)), "its bias 'b' has no scale, so LiteRT leaves it"),
    "one scale along another dimension": (
        one("DEPTHWISE_CONV_2D", [X, replace(weights(1, 3, 3, 3), axis=3), bias(3)], X3, DEPTHWISE),
        "its weights have one scale along dimension 3 instead of 0, so LiteRT leaves it",
    ),
    "zero point of int8 weights": (
        one("FULLY_CONNECTED", [value(1, 4), weights(2, 4, zero_point=1), bias(2)], value(1, 2), DENSE),
        "its int8 weights have a zero point, which XNNPACK refuses",
    ),
    "the smallest int8 weight": (
        conv(w=replace(W, data=np.full(W.shape, -128, np.int8))),
        "its int8 weights hold -128, which overflows in XNNPACK's kernels for some cores",
    ),
    "multiplier of 256": (
        conv(replace(X, scales=(64.0,)), weights(4, 3, 3, 3, scale=2.0), bias(4, scale=128.0)),
        "its multipliers (256 to 256) leave XNNPACK's 0 to 256",
    ),
    "empty range": (
        conv(y=replace(Y, zero_points=(127,)), activation="RELU"),
        "its activation RELU leaves one output value, which XNNPACK refuses",
    ),
    "uint8 of another scale": (
        one("QUANTIZE", [value(4)], value(4, name="y", dtype="uint8", scale=0.2, zero_point=131)),
        "turns int8 into uint8 of another scale or range, so LiteRT leaves it",
    ),
    "border of another scale": (
        one("PAD", [value(1, 2)], value(1, 3, name="y", scale=0.2), Pad((0, 1), (0, 0))),
        "its operand and output differ in scale or zero point, which XNNPACK refuses",
    ),
    "pool with another scale": (
        one("MAX_POOL_2D", [value(1, 4, 4, 2)], value(1, 2, 2, 2, name="y", zero_point=4), POOL),
        "its operand and output differ in scale or zero point, which XNNPACK refuses",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_promised_is_refused_with_file_operator_and_reason(name: str) -> None:
    data, reason = REFUSED[name]
    tflite.parse(data, "m.tflite")  # `ref` has no objection

    with pytest.raises(ModelError) as refused:
        tflite.parse(data, "m.tflite", "xnnpack")
    op = tflite.parse(data, "m").nodes[0].op
    assert str(refused.value).startswith(f"m.tflite: operator #0 {op}: {reason}")
    assert str(refused.value).endswith(REF)


def graph(data: bytes) -> Graph:
    return tflite.parse(data, "m", "xnnpack")


EDGES = {
    "multiplier below 256": conv(
        replace(X, scales=(63.9,)), weights(4, 3, 3, 3, scale=2.0), bias(4, scale=127.8)
    ),
    "two values": conv(y=replace(Y, zero_points=(126,)), activation="RELU"),
    "scale per channel": conv(w=per_axis(W, 0)),
}


@pytest.mark.parametrize("name", EDGES)
def test_models_at_the_edge_are_accepted(name: str) -> None:
    assert graph(EDGES[name]).nodes[0].op == "CONV_2D"


@pytest.mark.parametrize(
    ("scale", "taken"), [(0.5 / 1024, True), (0.4999 / 1024, False), (127.9, True), (128.0, False)]
)
def test_an_addition_is_taken_within_the_scales_of_xnnpack(scale: float, taken: bool) -> None:
    operands = [value(4, scale=scale), value(4, name="b", scale=0.5)]
    data = one("ADD", operands, value(4, name="y", scale=0.5), Add("NONE"))
    found = tflite.parse(data, "m")
    assert delegation.taken(found.nodes[0], found) is taken


@pytest.mark.parametrize(
    ("window", "stride", "taken"), [((2, 2), (2, 2), True), ((2, 1), (2, 2), False), ((1, 1), (2, 2), False)]
)
def test_a_pool_is_taken_where_its_stride_is_within_the_window(
    window: tuple[int, int], stride: tuple[int, int], taken: bool
) -> None:
    options = Pool2D("VALID", stride, window, "NONE")
    found = tflite.parse(one("MAX_POOL_2D", [value(1, 4, 4, 2)], value(1, 2, 2, 2, name="y"), options), "m")
    assert delegation.taken(found.nodes[0], found) is taken


def test_every_policy_is_one_of_an_operator() -> None:
    assert set(delegation.POLICIES) <= set(OPS)


def test_an_operator_without_a_policy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(delegation.POLICIES, "CONV_2D")
    with pytest.raises(ModelError, match=r"#0 CONV_2D: numerics `xnnpack` promises nothing about it"):
        graph(conv())


@pytest.mark.slow
def test_scales_per_channel_and_any_number_of_dimensions_give_the_bits_of_litert() -> None:
    """Of a FULLY_CONNECTED, where the reference kernel of 2.14 leaves most of the output open."""
    cases = [
        dense_per_channel(dtype, *shape)
        for shape in ((40,), (2, 3, 40), (2, 1, 3, 40))
        for dtype in ("int8", "int16")
    ]

    check_bits(cases, HERE, truth=oracle.litert_default, numerics="xnnpack")


def dense_per_channel(dtype: str, *shape: int) -> OneOp:
    wide = dtype == "int16"
    x = value(*shape, dtype=dtype, zero_point=0 if wide else 3)
    y = value(*shape[:-1], 33, name="y", dtype=dtype, scale=70 if wide else 3.7, zero_point=0 if wide else 3)
    w = per_axis(weights(33, 40), 0)
    scales = [x.scales[0] * scale for scale in w.scales]
    b = bias(33, dtype="int64" if wide else "int32")
    b = replace(b, scales=scales, zero_points=[0] * 33)
    edges = np.iinfo(dtype)
    data = np.random.default_rng(1).integers(edges.min, edges.max + 1, shape).astype(dtype)
    w = replace(w, data=np.random.default_rng(2).integers(-127, 128, w.shape).astype(np.int8))
    model = one("FULLY_CONNECTED", [x, w, b], y, replace(DENSE, keep_num_dims=True))
    return OneOp(f"{dtype} dense of {shape}", model, [data])
