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
    Mean,
    Node,
    Slice,
    Split,
    Stack,
    StridedSlice,
    Tensor,
    Transpose,
)
from pilite.compiler.operands import INTEGERS

Array: TypeAlias = npt.NDArray[Any]
# The output, or all if there may be several; None: not folded.
Fold: TypeAlias = Callable[[Node, Sequence[Array]], Array | list[Array] | None]
MOST = 4096  # elements of a result; what is larger is no shape


def folded(node: Node, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """`tensors` where the output of `node` is a constant; None if its value is open until a run."""
    if node.op not in FOLDS or ABSENT in node.inputs:
        return None
    ys = [tensors[i] for i in node.outputs]
    operands = [_operand(node, tensors[i]) for i in node.inputs]
    known = [operand for operand in operands if operand is not None]
    if len(known) < len(operands) or not all(map(_foldable, ys)):
        return None
    if checks.refusal(node, Graph("", tensors, (node,), (), (), ""), may_be_constant=True):
        return None
    found = FOLDS[node.op](node, known)
    if found is None:
        return None
    values = found if isinstance(found, list) else [found]
    made = list(tensors)
    for y, value in zip(ys, values, strict=True):
        made[y.index] = replace(y, data=value.astype(y.dtype).reshape(y.shape))
    return tuple(made)


def _foldable(y: Tensor) -> bool:
    return y.dtype in INTEGERS and y.elements <= MOST and not y.is_variable


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


def _unpack(node: Node, operands: Sequence[Array]) -> list[Array]:
    assert isinstance(node.options, Stack)
    return list(np.moveaxis(operands[0], node.options.axis, 0))


def _split(node: Node, operands: Sequence[Array]) -> list[Array]:
    assert isinstance(node.options, Split)
    ends = np.cumsum(node.options.sizes)[:-1]
    return np.split(operands[0], ends, node.options.axis)


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


def _reduced(function: Callable[..., Any]) -> Fold:
    def fold(node: Node, operands: Sequence[Array]) -> Array:
        assert isinstance(node.options, Mean)
        return np.asarray(function(operands[0], node.options.axes, keepdims=node.options.keep_dims))

    return fold


def _arithmetic(function: Callable[[Array, Array], Array]) -> Fold:
    def fold(node: Node, operands: Sequence[Array]) -> Array | None:
        assert isinstance(node.options, Add | Binary)
        return function(*operands) if node.options.activation == "NONE" else None

    return fold


def _floor_div(node: Node, operands: Sequence[Array]) -> Array | None:
    if not operands[1].all():
        return None
    with np.errstate(over="ignore"):  # of the smallest number by -1, which wraps
        return np.floor_divide(*operands)


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
    "REDUCE_MAX": _reduced(np.max),
    "REDUCE_MIN": _reduced(np.min),
    "RESHAPE": _view,
    "SHAPE": _view,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _view,
    "STRIDED_SLICE": _slice,
    "SUB": _arithmetic(np.subtract),
    "SUM": _reduced(np.sum),
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
