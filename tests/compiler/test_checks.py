"""What an operator must be like to be compiled: each rule refuses with its text; models at the edge pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import checks, schema, shapes
from pilite.compiler.graph import Add, Concatenation, Mean, Normalization, Pad, Softmax, TransposeConv
from pilite.compiler.tflite import parse
from pilite.errors import ModelError
from tests import oracle
from tests.small import CONV, DENSE, DEPTHWISE, POOL, bias, integers, one, per_axis, value, weights

X, Y = value(1, 5, 5, 3), value(1, 5, 5, 4, name="y", scale=0.5)
W, B = weights(4, 3, 3, 3), bias(4)
X8, Y8 = replace(X, dtype="uint8"), replace(Y, dtype="uint8")
W8 = weights(4, 3, 3, 3, dtype="uint8", zero_point=120)
FX, FY = TensorSpec("x", X.shape, "float32"), TensorSpec("y", Y.shape, "float32")
FW = TensorSpec("w", W.shape, "float32", data=np.zeros(W.shape, np.float32))
X16, Y16 = (replace(t, dtype="int16", zero_points=(0,)) for t in (X, Y))
B64 = replace(B, dtype="int64", data=np.zeros(4, np.int64))
AGAIN = "convert the model again"
HYBRID = (
    "has 8-bit weights and float32 activations (dynamic-range quantization); give the converter a "
    "representative_dataset, so that activations become 8-bit, too (full-integer quantization)"
)
FULL = "convert the model again with full-integer quantization (8-bit weights and activations)"


def conv(
    x: TensorSpec = X, w: TensorSpec = W, b: TensorSpec = B, y: TensorSpec = Y, **options: object
) -> bytes:
    return one("CONV_2D", [x, w, b], y, replace(CONV, **options))  # type: ignore[arg-type]


def dense(x: TensorSpec, w: TensorSpec, b: TensorSpec, y: TensorSpec, keep: bool = False) -> bytes:
    return one("FULLY_CONNECTED", [x, w, b], y, replace(DENSE, keep_num_dims=keep))


def add(a: TensorSpec, b: TensorSpec, y: TensorSpec, activation: str = "NONE") -> bytes:
    return one("ADD", [a, b], y, Add(activation))


def softmax(y: TensorSpec, beta: float = 1.0, scale: float = 0.1) -> bytes:
    return one("SOFTMAX", [value(1, 10, scale=scale)], y, Softmax(beta))


NUMBERS = TensorSpec("x", (4,), "int32")
FAR = value(2, dtype="uint8", scale=1e6)
PROBABILITIES = value(1, 10, name="y", scale=1 / 256, zero_point=-128)
VECTOR, ROWS = value(2, 6), value(2, 4, name="y")
SUFFIX_SHAPE = f"follows from its operands; {AGAIN}"

REFUSED = {
    "float": (conv(FX, FW, B, FY), f"computes in float32; {FULL}"),
    "hybrid": (
        conv(FX, W, B, FY),
        HYBRID,
    ),
    "hybrid depthwise": (
        one("DEPTHWISE_CONV_2D", [FX, weights(1, 3, 3, 3), bias(3)], FX, DEPTHWISE),
        HYBRID,
    ),
    "hybrid, fully connected": (dense(replace(FX, shape=(1, 3)), weights(4, 3), B, FY), HYBRID),
    "hybrid, transposed": (
        one("TRANSPOSE_CONV", [integers(1, 5, 5, 4), W, FX, B], FY, TransposeConv("SAME", (1, 1), "NONE")),
        HYBRID,
    ),
    "mixed signs": (
        conv(y=Y8),
        f"works on int8 and uint8; operands and output must all be int8 or all uint8; {AGAIN}",
    ),
    "int32 values": (
        one(
            "MAX_POOL_2D", [replace(X, dtype="int32", scales=())], replace(Y, dtype="int32", scales=()), POOL
        ),
        f"works on int32; operands and output must all be int8 or all uint8; {AGAIN}",
    ),
    "input without scale": (conv(x=replace(X, scales=())), f"its int8 tensor 'x' has no scale; {FULL}"),
    "output with scales per channel": (
        conv(y=per_axis(Y, 3)),
        f"its tensor 'y' has 4 scales; only weights may; {AGAIN}",
    ),
    "weights computed": (
        conv(w=replace(W, data=None)),
        f"its weights 'w' must be a constant, quantized int8 tensor; {FULL}",
    ),
    "weights of the other sign": (
        conv(w=W8),
        f"its weights 'w' must be a constant, quantized int8 tensor; {FULL}",
    ),
    "weights without scale": (
        conv(w=replace(W, scales=())),
        f"its weights 'w' must be a constant, quantized int8 tensor; {FULL}",
    ),
    "uint8 per channel": (
        conv(X8, per_axis(W8, 0), B, Y8),
        f"its uint8 weights have 4 scales; only int8 weights may; {AGAIN} with int8",
    ),
    "wrong axis": (conv(w=per_axis(W, 3)), f"its weights have scales along axis 3, not 0; {AGAIN}"),
    "zero points per channel": (
        conv(w=per_axis(W, 0, zero_point=1)),
        f"its int8 weights have zero points other than 0, which TFLite ignores or refuses; {AGAIN}",
    ),
    "int8 zero point": (
        conv(w=weights(4, 3, 3, 3, zero_point=-3)),
        f"its int8 weights have zero points other than 0, which TFLite ignores or refuses; {AGAIN}",
    ),
    "bias dtype": (conv(b=bias(4, dtype="int8")), f"its bias 'b' (int8) must be an int32 constant; {AGAIN}"),
    "bias computed": (
        conv(b=replace(B, data=None)),
        f"its bias 'b' (int32) must be an int32 constant; {AGAIN}",
    ),
    "bias size": (conv(b=bias(5)), f"its bias has shape [5], but there are 4 output channels; {AGAIN}"),
    "bias zero point": (conv(b=bias(4, zero_point=9)), f"its bias has a zero point other than 0; {AGAIN}"),
    "bias scale": (
        conv(X8, W8, bias(4, scale=0.02), Y8),
        f"its bias has scale 0.02 where input and weights make 0.002; {AGAIN}",
    ),
    "ignored activation": (
        conv(activation="TANH"),
        f"has the fused activation TANH; TFLite ignores it in quantized models; {AGAIN}",
    ),
    "unreachable activation": (
        conv(y=replace(Y, scales=(1e-9,)), activation="RELU6"),
        f"its output scale 1e-09 is too small for RELU6; {AGAIN}",
    ),
    "overflow": (
        conv(y=replace(Y, scales=(1e-7,))),
        f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "grouped": (
        conv(w=weights(4, 3, 3, 1)),
        f"its weights take 1 of 3 input channels, which makes no groups for 4; {AGAIN}",
    ),
    "window too large": (
        conv(w=weights(4, 7, 3, 3), padding="VALID"),
        f"its window (7, 3) is larger than the image (5, 5); {AGAIN}",
    ),
    "stride 0": (
        conv(stride=(0, 1)),
        "its window (3, 3), stride (0, 1) and dilation (1, 1) are not positive or too large "
        f"for TFLite's 16 bits; {AGAIN}",
    ),
    "dilation beyond 16 bits": (
        conv(dilation=(1, 20_000)),
        "its window (3, 3), stride (1, 1) and dilation (1, 20000) are not positive or too large "
        f"for TFLite's 16 bits; {AGAIN}",
    ),
    "wrong rank": (
        conv(x=value(5, 5, 3)),
        f"its operand 'x' has shape [5, 5, 3], not 4 dimensions; {AGAIN}",
    ),
    "wrong output shape": (
        conv(y=replace(Y, shape=(1, 5, 4, 4))),
        f"its output has shape [1, 5, 4, 4] where [1, 5, 5, 4] {SUFFIX_SHAPE}",
    ),
    "depthwise channels": (
        one("DEPTHWISE_CONV_2D", [X, weights(1, 3, 3, 4), B], Y, DEPTHWISE),
        f"its weights have shape [1, 3, 3, 4], which does not fit 3 channels times 1; {AGAIN}",
    ),
    "depthwise axis": (
        one("DEPTHWISE_CONV_2D", [value(1, 5, 5, 4), per_axis(weights(1, 3, 3, 4), 1), B], Y, DEPTHWISE),
        f"its weights have scales along axis 1, not 3; {AGAIN}",
    ),
    "dense depth": (
        dense(value(1, 7), weights(4, 6), B, value(1, 4, name="y")),
        f"its input has 7 values, no multiple of the 6 that its weights take; {AGAIN}",
    ),
    "dense keeping dimensions": (
        dense(value(2, 3), weights(4, 6), B, value(2, 4, name="y"), keep=True),
        f"its input has shape [2, 3], its weights take 6 values; {AGAIN}",
    ),
    "dense bias scale": (
        dense(VECTOR, weights(4, 6), bias(4, scale=0.2), ROWS),
        f"its bias has scale 0.2 where input and weights make 0.002; {AGAIN}",
    ),
    "dense per channel, three dimensions": (
        dense(value(2, 1, 6), per_axis(weights(4, 6), 0), B, value(2, 1, 4, name="y"), keep=True),
        "has scales per channel and 3 output dimensions, TFLite 2.14 computes 2; use `--numerics xnnpack`",
    ),
    "add shapes": (
        add(value(2, 3), value(2, 4), value(2, 4)),
        f"its operands have shapes [2, 3] and [2, 4]; {AGAIN}",
    ),
    "add scale": (
        add(value(4), value(4), value(4, scale=1e-7)),
        f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "pool rank": (
        one("MAX_POOL_2D", [value(4, 4, 3)], value(2, 2, 3), POOL),
        f"its operand 'x' has shape [4, 4, 3], not 4 dimensions; {AGAIN}",
    ),
    "concatenation scales": (
        one("CONCATENATION", [value(2), value(3, scale=0.2)], value(5), Concatenation(0, "NONE")),
        f"its operands and output differ in scale or zero point; {AGAIN}",
    ),
    "concatenation of scales far apart": (
        one("CONCATENATION", [FAR], replace(FAR, name="y", scales=(1e-6,)), Concatenation(0, "NONE")),
        f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "concatenation shapes": (
        one("CONCATENATION", [value(2, 3), value(3, 4)], value(5, 3), Concatenation(0, "NONE")),
        f"its operands have shapes [2, 3] and [3, 4], joined along 0; {AGAIN}",
    ),
    "concatenation activation": (
        one("CONCATENATION", [value(2), value(3)], value(5), Concatenation(0, "RELU")),
        f"has the fused activation RELU, which TFLite refuses; {AGAIN}",
    ),
    "softmax zero point": (
        softmax(replace(PROBABILITIES, zero_points=(0,))),
        f"its output must have scale 1/256 and zero point -128, as TFLite's kernel demands; {AGAIN}",
    ),
    "softmax scale": (
        softmax(replace(PROBABILITIES, scales=(1 / 255,))),
        f"its output must have scale 1/256 and zero point -128, as TFLite's kernel demands; {AGAIN}",
    ),
    "softmax beta": (
        softmax(PROBABILITIES, beta=0.0),
        f"its input is a scalar or beta times input scale is too small (0); {AGAIN}",
    ),
    "softmax input scale": (
        softmax(PROBABILITIES, scale=1e-8),
        f"its input is a scalar or beta times input scale is too small (1e-08); {AGAIN}",
    ),
    "mean scale": (
        one("MEAN", [value(1, 2, scale=1.0)], value(1, 1, scale=1e-9), Mean((1,), keep_dims=True)),
        f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "mean size": (
        one("MEAN", [value(4, 2**21)], value(1, 1), Mean((0, 1), keep_dims=True)),
        "sums 8388608 values, more than TFLite's 32-bit sum holds; pool in two steps",
    ),
    "sum size": (
        one("SUM", [value(4, 2**21)], value(1, 1), Mean((0, 1), keep_dims=True)),
        "sums 8388608 values, more than TFLite's 32-bit sum holds; pool in two steps",
    ),
    "sum scale": (
        one("SUM", [value(1, 2, scale=1.0)], value(1, 1, scale=1e-9), Mean((1,), keep_dims=True)),
        f"its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "largest of another scale": (
        one("REDUCE_MAX", [value(4, 2)], value(4, scale=0.25), Mean((1,), keep_dims=False)),
        f"its operands and output differ in scale or zero point; {AGAIN}",
    ),
    "sum of bool": (
        one(
            "SUM",
            [TensorSpec("x", (4, 2), "bool")],
            TensorSpec("y", (4,), "bool"),
            Mean((1,), keep_dims=False),
        ),
        "moves bool; operands and output must have one dtype of int8, uint8, int16, int32, int64, float32; "
        "convert the model again",
    ),
    "normalized scale": (
        one("L2_NORMALIZATION", [value(1, 4)], value(1, 4), Normalization("RELU")),
        f"has the fused activation RELU, which TFLite refuses; {AGAIN}",
    ),
    "normalization scale": (
        one("L2_NORMALIZATION", [value(1, 4)], value(1, 4, scale=0.01), Normalization("NONE")),
        f"its output must have scale 1/128 and zero point 0, as TFLite's kernel demands; {AGAIN}",
    ),
    "normalized rank": (
        one("L2_NORMALIZATION", [value(1, 1, 1, 1, 4)], value(1, 1, 1, 1, 4), Normalization("NONE")),
        "has 5 dimensions; TFLite's kernel takes 1 to 4",
    ),
    "normalized size": (
        one("L2_NORMALIZATION", [value(2**17)], value(2**17, scale=1 / 128), Normalization("NONE")),
        "sums 131072 squares, more than TFLite's 32-bit sum holds; use a shorter last axis",
    ),
    "transposed shape": (
        one("TRANSPOSE_CONV", [integers(1, 5, 5, 7), W, X, B], Y, TransposeConv("SAME", (2, 2), "NONE")),
        f"its output shape [1, 5, 5, 7] does not fit input [1, 5, 5, 3] and weights [4, 3, 3, 3]; {AGAIN}",
    ),
    "transposed stride": (
        one("TRANSPOSE_CONV", [integers(1, 5, 5, 4), W, X, B], Y, TransposeConv("SAME", (0, 2), "NONE")),
        f"its output shape [1, 5, 5, 4] and stride (0, 2) leave 1 to 32767; {AGAIN}",
    ),
    "16 bits, zero point": (
        conv(x=replace(X16, zero_points=(1,)), b=B64, y=Y16),
        f"its int16 values have a zero point other than 0; {AGAIN}",
    ),
    "16 bits, bias": (
        conv(x=X16, b=replace(B, dtype="int16", data=np.zeros(4, np.int16)), y=Y16),
        f"its bias 'b' (int16) must be an int64 or int32 constant; {AGAIN}",
    ),
    "16 bits, weights": (
        conv(x=X16, w=W8, b=B64, y=Y16),
        f"its weights 'w' must be a constant, quantized int8 tensor; {FULL}",
    ),
    "16 bits to 8": (
        conv(x=X16, b=B64),
        "works on int16 and int8; operands and output must be of one dtype; convert the model again",
    ),
    "16 bits elsewhere": (
        one("HARD_SWISH", [X16], replace(X16, name="y")),
        f"works on int16; operands and output must all be int8 or all uint8; {AGAIN}",
    ),
    "16 bits, no bias": (
        write([X16, W, Y16], [OpSpec("CONV_2D", (0, 1, -1), (2,), CONV)], [0], [2]),
        f"has 16-bit values and no bias, which TFLite refuses; {AGAIN}",
    ),
    "pad rank": (
        one("PAD", [value(1, 1, 1, 1, 1, 1)], value(2, 1, 1, 1, 1, 1), Pad((1, *[0] * 5), (0,) * 6)),
        "pads 6 dimensions, more than TFLite's 5",
    ),
    "pad negative": (
        one("PAD", [value(4)], value(3), Pad((-1,), (0,))),
        f"its paddings are negative; {AGAIN}",
    ),
    "expand_dims scale": (
        one("EXPAND_DIMS", [value(4), integers(0)], value(1, 4, scale=0.2)),
        f"its operands and output differ in scale or zero point; {AGAIN}",
    ),
    "reshape size": (
        one("RESHAPE", [value(6)], value(2, 4)),
        f"it turns the shape [6] into [2, 4]; {AGAIN}",
    ),
    "view of another dtype": (
        one("RESHAPE", [TensorSpec("x", (4,), "int32")], TensorSpec("y", (2, 2), "float32")),
        "moves float32 and int32; operands and output must have one dtype of "
        "int8, uint8, int16, int32, int64, float32; convert the model again",
    ),
    "quantize int32": (
        one("QUANTIZE", [value(4, dtype="int32")], value(4)),
        f"turns int32 into int8; it takes float32, int8, uint8, int16; {AGAIN}",
    ),
    "quantize per channel": (
        one("QUANTIZE", [TensorSpec("x", (2, 4), "float32")], per_axis(value(2, 4, name="y"), 1)),
        f"its tensor 'y' has 4 scales; only weights may; {AGAIN}",
    ),
    "dequantize to int8": (
        one("DEQUANTIZE", [value(4)], value(4)),
        "turns int8 into int8; only int8, uint8 or int16 into float32 can be compiled; "
        "convert the model again",
    ),
    "constant operands": (
        write(
            [value(4), weights(4), value(2, 2), value(4)],
            [OpSpec("RESHAPE", (1,), (2,)), OpSpec("RESHAPE", (2,), (3,))],
            [0],
            [3],
        ),
        f"all its operands are constant; {AGAIN} with constant folding",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_operator_that_breaks_a_rule_is_refused_with_the_reason(case: str) -> None:
    model, reason = REFUSED[case]
    with pytest.raises(ModelError) as refused:
        parse(model, "m.tflite")
    assert str(refused.value).partition(": operator #0 ")[2].partition(": ")[2] == reason


RIGHT = {
    "int8 conv": conv(),
    "int8 conv per channel": conv(w=per_axis(W, 0)),
    "uint8 conv": conv(X8, W8, B, Y8),
    "conv, bias of any scale": conv(b=bias(4, scale=7.0)),
    "conv, bias without scale": conv(b=replace(B, scales=())),
    "conv without bias": one("CONV_2D", [X, W], Y, CONV),
    "depthwise": one("DEPTHWISE_CONV_2D", [X, weights(1, 3, 3, 6), bias(6)], value(1, 5, 5, 6), DEPTHWISE),
    "dense, shifted int8 weights": dense(VECTOR, weights(4, 6, zero_point=5), B, ROWS),
    "dense, four dimensions": dense(value(1, 2, 3, 2), weights(4, 6), B, ROWS),
    "add, one constant": add(value(2, 3), weights(3), value(2, 3)),
    "pool, other scale": one("AVERAGE_POOL_2D", [value(1, 4, 4, 3)], value(1, 2, 2, 3, scale=0.3), POOL),
    "reshape, other scale": one("RESHAPE", [value(6)], value(2, 3, scale=0.7)),
    "uint8 softmax of any scale": one(
        "SOFTMAX", [value(1, 10, dtype="uint8")], value(1, 10, dtype="uint8", scale=0.7), Softmax(1.0)
    ),
    "float view": one("RESHAPE", [TensorSpec("x", (4,), "float32")], TensorSpec("y", (2, 2), "float32")),
}


@pytest.mark.parametrize("case", RIGHT)
def test_an_operator_at_the_edge_of_the_rules_is_read(case: str) -> None:
    assert len(parse(RIGHT[case], "m.tflite").nodes) == 1


@pytest.mark.parametrize("case", RIGHT)
def test_an_operator_at_the_edge_of_the_rules_runs_in_tflite(case: str) -> None:
    if case == "conv without bias":
        with pytest.raises(RuntimeError, match="has_bias was not true"):  # no oracle, but no doubt: bias 0
            oracle.tflite_ref(RIGHT[case], [])
        return
    graph = parse(RIGHT[case], "m.tflite")
    inputs = [np.ones(graph.tensors[i].shape, graph.tensors[i].dtype) for i in graph.inputs]
    (result,) = oracle.tflite_ref(RIGHT[case], inputs)
    assert result.shape == graph.tensors[graph.outputs[0]].shape


def test_every_operator_has_rules_and_a_shape() -> None:
    assert set(checks.CHECKS) == {*shapes.SHAPES, *shapes.SEVERAL} == set(schema.OPERATORS)
