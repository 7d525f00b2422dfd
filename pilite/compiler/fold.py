"""Values that no input decides: shapes, and the integers that a model computes from them.

Converters write a layer whose batch is open as SHAPE, STRIDED_SLICE, PACK, then RESHAPE, RESIZE_BILINEAR or
TRANSPOSE_CONV, which take the result as their new size. Every shape is fixed when a model is compiled, so
these operators have their results then, and no code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.compiler import checks
from pilite.compiler.graph import (
    ABSENT,
    Add,
    Binary,
    Concatenation,
    Gather,
    Graph,
    Node,
    Slice,
    Stack,
    StridedSlice,
    Tensor,
    Transpose,
)

Array: TypeAlias = npt.NDArray[Any]
Fold: TypeAlias = Callable[[Node, Sequence[Array]], Array | None]  # None: not folded
INTEGERS = ("int32", "int64")
MOST = 4096  # elements of a result; what is larger is no shape


def folded(node: Node, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """`tensors` where the output of `node` is a constant; None if its value is open until a run."""
    if node.op not in FOLDS or len(node.outputs) != 1 or ABSENT in node.inputs:
        return None
    y = tensors[node.outputs[0]]
    operands = [_operand(node, tensors[i]) for i in node.inputs]
    known = [operand for operand in operands if operand is not None]
    if len(known) < len(operands) or y.dtype not in INTEGERS or y.elements > MOST or y.is_variable:
        return None
    if checks.refusal(node, Graph("", tensors, (node,), (), (), ""), may_be_constant=True):
        return None
    value = FOLDS[node.op](node, known)
    if value is None:
        return None
    made = replace(y, data=value.astype(y.dtype).reshape(y.shape))
    return (*tensors[: y.index], made, *tensors[y.index + 1 :])


def _operand(node: Node, tensor: Tensor) -> Array | None:
    if node.op == "SHAPE":
        return np.array(tensor.shape)
    return tensor.data if tensor.dtype in INTEGERS else None


def _view(node: Node, operands: Sequence[Array]) -> Array:
    return operands[0]  # takes the output's dtype and shape


def _concatenation(node: Node, operands: Sequence[Array]) -> Array:
    assert isinstance(node.options, Concatenation)
    return np.concatenate(operands, node.options.axis)


def _pack(node: Node, operands: Sequence[Array]) -> Array:
    assert isinstance(node.options, Stack)
    return np.stack(operands, node.options.axis)


def _slice(node: Node, operands: Sequence[Array]) -> Array:
    o = node.options
    assert isinstance(o, Slice | StridedSlice)
    steps = o.step if isinstance(o, StridedSlice) else (1,) * len(o.begin)
    value = operands[0]
    for axis, (begin, step, count) in enumerate(zip(o.begin, steps, o.count, strict=True)):
        value = value.take(begin + step * np.arange(count), axis)
    return value


def _gather(node: Node, operands: Sequence[Array]) -> Array | None:
    assert isinstance(node.options, Gather)
    return None if node.options.batch_dims else operands[0].take(operands[1], node.options.axis)


def _transpose(node: Node, operands: Sequence[Array]) -> Array:
    assert isinstance(node.options, Transpose)
    return operands[0].transpose(node.options.permutation)


def _arithmetic(function: Callable[[Array, Array], Array]) -> Fold:
    def fold(node: Node, operands: Sequence[Array]) -> Array | None:
        assert isinstance(node.options, Add | Binary)
        return function(*operands) if node.options.activation == "NONE" else None

    return fold


def _floor_div(node: Node, operands: Sequence[Array]) -> Array | None:
    return np.floor_divide(*operands) if operands[1].all() else None


FOLDS: dict[str, Fold] = {
    "ADD": _arithmetic(np.add),
    "CAST": _view,
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": _view,
    "FLOOR_DIV": _floor_div,
    "GATHER": _gather,
    "MAXIMUM": lambda node, operands: np.maximum(*operands),
    "MINIMUM": lambda node, operands: np.minimum(*operands),
    "MUL": _arithmetic(np.multiply),
    "NEG": lambda node, operands: np.negative(operands[0]),
    "PACK": _pack,
    "RESHAPE": _view,
    "SHAPE": _view,
    "SLICE": _slice,
    "SQUEEZE": _view,
    "STRIDED_SLICE": _slice,
    "SUB": _arithmetic(np.subtract),
    "TRANSPOSE": _transpose,
}
