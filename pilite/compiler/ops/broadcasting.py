"""MUL, MAXIMUM, comparisons, selections, CAST and others: element by element over operands that broadcast."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pilite.compiler import graph
from pilite.compiler.fixedpoint import Int64, Multiplier, Rndnu, nearest_tflite, nearest_xnnpack
from pilite.compiler.graph import Node, Tensor
from pilite.compiler.ops.common import by_table, centred, clamp, plain_requant, quant
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import Cast, Elementwise, QCompare, QMul, QPrelu
from pilite.compiler.spec16 import QMul16

F32 = np.float32
WIDEST = {"int32": (None, None), "float32": (float(np.finfo(F32).min), float(np.finfo(F32).max))}
LIMITS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def widened(node: Node, b: Builder) -> list[int]:
    """The operands with as many dimensions as the output."""
    rank = len(b.tensor(node.outputs[0]).shape)
    shapes = [b.tensor(i).shape for i in node.inputs]
    widened = [(*(1,) * (rank - len(shape)), *shape) for shape in shapes]
    return [b.reshaped(b.value(i), shape) for i, shape in zip(node.inputs, widened, strict=True)]


def plain(kind: str) -> Callable[[Node, Builder], None]:
    """Numbers as they are stored, within the limits of the operator."""

    def lower(node: Node, b: Builder) -> None:
        low, high = _limits(node, b.tensor(node.outputs[0]).dtype, finite=not b.delegated(node))
        b.emit(Elementwise(kind, low, high), widened(node, b), b.value(node.outputs[0]))

    return lower


def _limits(node: Node, dtype: str, *, finite: bool) -> tuple[float | None, float | None]:
    """Builtin kernels that can have a fused activation limit a float32 to finite values even without one."""
    if not isinstance(node.options, graph.Add | graph.Binary):
        return None, None
    pairs = zip(LIMITS[node.options.activation], WIDEST[dtype] if finite else (None, None), strict=True)
    low, high = (widest if limit is None else limit for limit, widest in pairs)
    return low, high


def mul(node: Node, b: Builder) -> None:
    """mul.cc: the multiplier s1 * s2 / so is computed in float32."""
    y = b.tensor(node.outputs[0])
    if y.quant is None or y.dtype not in ("int8", "uint8", "int16"):
        plain("mul")(node, b)
        return
    assert isinstance(node.options, graph.Binary)
    left, right = (b.tensor(i) for i in node.inputs)
    real = float(F32(quant(left).scale) * F32(quant(right).scale) / F32(quant(y).scale))
    if y.dtype == "int16":
        wide = QMul16(Multiplier.of(real), *clamp(y, node.options.activation))
        b.emit(wide, widened(node, b), b.value(node.outputs[0]))
        return
    taken = b.delegated(node)
    if taken and node.inputs[0] == node.inputs[1]:
        by_table(b, b.value(node.inputs[0]), node.outputs[0], _squares(left, y, node.options.activation))
        return
    spec = QMul(
        (signed_zero_point(left), signed_zero_point(right)),
        Rndnu.of(real) if taken else Multiplier.of(real),
        plain_requant(y, node.options.activation, nearest_xnnpack if taken else nearest_tflite),
    )
    b.emit(spec, widened(node, b), b.value(node.outputs[0]))


def _squares(x: Tensor, y: Tensor, activation: str) -> Int64:
    """XNNPACK makes a square of a product of one tensor with itself, by a table of
    round_half_even(x * x * (1 / so) + zo), all in float32.
    """
    real = centred(x).astype(F32) * F32(quant(x).scale)
    stored = real * real * (F32(1) / F32(quant(y).scale)) + F32(quant(y).zero_point)
    moved = np.rint(stored.astype(np.float64)).astype(np.int64) + signed_zero_point(y) - quant(y).zero_point
    return np.clip(moved, *clamp(y, activation, nearest_xnnpack))


def prelu(node: Node, b: Builder) -> None:
    """activations.cc PreluPrepare: both multipliers in float32."""
    x, alpha = (b.tensor(i) for i in node.inputs)
    y = b.tensor(node.outputs[0])
    sx, sa, sy = (F32(quant(t).scale) for t in (x, alpha, y))
    spec = QPrelu(
        (signed_zero_point(x), signed_zero_point(alpha)),
        Multiplier.of(float(sx / sy)),
        Multiplier.of(float(sx * sa / sy)),
        plain_requant(y),
    )
    b.emit(spec, widened(node, b), b.value(node.outputs[0]))


def compare(kind: str) -> Callable[[Node, Builder], None]:
    """comparisons.cc: quantized values are compared as real ones, in 32-bit fixed point."""

    def lower(node: Node, b: Builder) -> None:
        left, right = (b.tensor(i) for i in node.inputs)
        scaled = (
            ("int8", "uint8", "int16") if kind == "equal" and b.numerics.is_xnnpack else ("int8", "uint8")
        )
        if left.dtype not in scaled:
            plain(kind)(node, b)
            return
        spec = QCompare(
            kind,
            (signed_zero_point(left), signed_zero_point(right)),
            (Multiplier.of(quant(left).scale), Multiplier.of(quant(right).scale)),
        )
        b.emit(spec, widened(node, b), b.value(node.outputs[0]))

    return lower


def select(node: Node, b: Builder) -> None:
    """SELECT: a condition with one dimension goes with the rows of the operands."""
    condition, *operands = widened(node, b)
    tensor, rank = b.tensor(node.inputs[0]), len(b.tensor(node.outputs[0]).shape)
    if node.op == "SELECT" and len(tensor.shape) == 1 < rank:
        condition = b.reshaped(b.value(node.inputs[0]), (*tensor.shape, *(1,) * (rank - 1)))
    b.emit(Elementwise("select"), (condition, *operands), b.value(node.outputs[0]))


def cast(node: Node, b: Builder) -> None:
    x, y = b.tensor(node.inputs[0]), b.tensor(node.outputs[0])
    if x.dtype == y.dtype:
        b.view(node.outputs[0], b.value(node.inputs[0]))
        return
    b.emit(Cast(x.dtype, y.dtype), (b.value(node.inputs[0]),), b.value(node.outputs[0]))
