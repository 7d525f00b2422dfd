"""Small models that are right, in pieces that a test can make wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
import pytest

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

CONV = Conv2D("SAME", (1, 1), (1, 1), "NONE")
DEPTHWISE = DepthwiseConv2D("SAME", (1, 1), (1, 1), 1, "NONE")
DENSE = FullyConnected("NONE", keep_num_dims=False)
POOL = Pool2D("VALID", (2, 2), (2, 2), "NONE")


def value(
    *shape: int, dtype: str = "int8", scale: float = 0.1, zero_point: int = 3, **more: Any
) -> TensorSpec:
    """A tensor that the model computes or takes."""
    return TensorSpec(more.pop("name", "x"), shape, dtype, (scale,), (zero_point,), **more)


def weights(*shape: int, dtype: str = "int8", scale: float = 0.02, zero_point: int = 0) -> TensorSpec:
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return TensorSpec("w", shape, dtype, (scale,), (zero_point,), data=data)


def per_axis(spec: TensorSpec, axis: int, zero_point: int = 0) -> TensorSpec:
    count = spec.shape[axis]
    scales = [0.01 * (i + 1) for i in range(count)]
    return TensorSpec(spec.name, spec.shape, spec.dtype, scales, [zero_point] * count, axis, spec.data)


def bias(count: int, scale: float = 0.002, zero_point: int = 0, dtype: str = "int32") -> TensorSpec:
    return TensorSpec("b", (count,), dtype, (scale,), (zero_point,), data=np.arange(count).astype(dtype))


def integers(*values: Any, name: str = "k", dtype: str = "int32") -> TensorSpec:
    data = np.array(values, dtype)
    return TensorSpec(name, data.shape, dtype, data=data)


def one(op: str, operands: Sequence[TensorSpec], y: TensorSpec, options: Options = NO_OPTIONS) -> bytes:
    """A model of one operator; its inputs are the operands without data."""
    tensors = [*operands, y]
    free = [i for i, spec in enumerate(operands) if spec.data is None]
    last = len(operands)
    return write(tensors, [OpSpec(op, tuple(range(last)), (last,), options)], free, [last])


def micro_speech() -> bytes:
    """The operators of the micro_speech model at a tenth of its size."""
    tensors = [
        value(1, 120, name="features"),
        value(1, 12, 10, 1, name="image"),
        per_axis(weights(1, 5, 4, 8), 3),
        bias(8),
        value(1, 6, 5, 8, name="sums", scale=0.5),
        weights(4, 240),
        bias(4, scale=0.01),
        value(1, 4, name="logits", scale=0.4),
        value(1, 4, name="scores", scale=1 / 256, zero_point=-128),
    ]
    depthwise = DepthwiseConv2D("SAME", (2, 2), (1, 1), 8, "RELU")
    ops = [
        OpSpec("RESHAPE", (0,), (1,)),
        OpSpec("DEPTHWISE_CONV_2D", (1, 2, 3), (4,), depthwise),
        OpSpec("FULLY_CONNECTED", (4, 5, 6), (7,), DENSE),
        OpSpec("SOFTMAX", (7,), (8,), Softmax(1.0)),
    ]
    return write(tensors, ops, [0], [8], "small micro_speech")


def residual() -> bytes:
    """uint8, two inputs, most operators that move or mix values."""

    def u8(name: str, *shape: int, scale: float = 0.1) -> TensorSpec:
        return value(*shape, dtype="uint8", scale=scale, zero_point=128, name=name)

    tensors = [
        TensorSpec("camera", (1, 6, 6, 3), "float32"),
        u8("x", 1, 6, 6, 3),
        u8("padded", 1, 7, 7, 3),
        weights(3, 2, 2, 3, dtype="uint8", zero_point=7),
        bias(3),
        u8("conv", 1, 6, 6, 3, scale=0.5),
        u8("skip", 1, 1, 1, 3),
        u8("sum", 1, 6, 6, 3, scale=0.6),
        u8("pool", 1, 3, 3, 3, scale=0.6),
        u8("both", 1, 3, 3, 6, scale=0.6),
        u8("mean", 1, 6, scale=0.3),
        TensorSpec("y", (1, 6), "float32"),
    ]
    ops = [
        OpSpec("QUANTIZE", (0,), (1,)),
        OpSpec("PAD", (1,), (2,), Pad((0, 0, 1, 0), (0, 1, 0, 0))),
        OpSpec("CONV_2D", (2, 3, 4), (5,), replace(CONV, padding="VALID", activation="RELU6")),
        OpSpec("ADD", (5, 6), (7,), Add("NONE")),
        OpSpec("MAX_POOL_2D", (7,), (8,), POOL),
        OpSpec("CONCATENATION", (8, 8), (9,), Concatenation(-1, "NONE")),
        OpSpec("MEAN", (9,), (10,), Mean((1, 2), keep_dims=False)),
        OpSpec("DEQUANTIZE", (10,), (11,)),
    ]
    return write(tensors, ops, [0, 6], [11, 9])


def edited(model: bytes, change: Callable[[Any], None]) -> bytes:
    """The model after a change of the object form of its file, for what the writer cannot write."""
    generated = pytest.importorskip("ai_edge_litert.schema_py_generated")
    file = generated.ModelT.InitFromObj(generated.Model.GetRootAs(model, 0))
    change(file)
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    return bytes(builder.Output())
