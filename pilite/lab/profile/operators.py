"""What each operator of a .tflite file has to do: multiplications and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tflite

BYTES = {0: 4, 2: 4, 4: 8, 7: 2}  # by TensorType: FLOAT32, INT32, INT64, INT16; others one
NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Work:
    """One operator: its name, multiply-accumulates, and bytes of its inputs and outputs, once each."""

    index: int
    op: str
    macs: int
    bytes: int


def work(model: Path) -> list[Work]:
    """Every operator of the first subgraph, in order."""
    root = tflite.Model.GetRootAs(model.read_bytes(), 0)
    graph = root.Subgraphs(0)
    return [_of(root, graph, graph.Operators(i), i) for i in range(graph.OperatorsLength())]


def _of(root: Any, graph: Any, operator: Any, index: int) -> Work:
    code = root.OperatorCodes(operator.OpcodeIndex())
    op = NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "CUSTOM")
    inputs = [graph.Tensors(t) for t in _numbers(operator, "Inputs") if t >= 0]
    outputs = [graph.Tensors(t) for t in _numbers(operator, "Outputs")]
    moved = sum(math.prod(_shape(t)) * BYTES.get(t.Type(), 1) for t in (*inputs, *outputs))
    return Work(
        index, op, MACS.get(op, _none)([_shape(t) for t in inputs], [_shape(t) for t in outputs]), moved
    )


def _numbers(operator: Any, name: str) -> list[int]:
    get, length = getattr(operator, name), getattr(operator, f"{name}Length")
    return [get(i) for i in range(length())]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))


Shapes = list[tuple[int, ...]]


def _none(inputs: Shapes, outputs: Shapes) -> int:
    return 0


def _convolution(inputs: Shapes, outputs: Shapes) -> int:
    """Filter (oc, kh, kw, ic); padding counts, as is usual."""
    return math.prod(outputs[0]) * math.prod(inputs[1][1:])


def _depthwise(inputs: Shapes, outputs: Shapes) -> int:
    """Filter (1, kh, kw, c)."""
    return math.prod(outputs[0]) * math.prod(inputs[1][1:3])


def _fully_connected(inputs: Shapes, outputs: Shapes) -> int:
    """Filter (out, in)."""
    return math.prod(outputs[0]) * inputs[1][1]


def _transposed(inputs: Shapes, outputs: Shapes) -> int:
    """Inputs: shape, filter (oc, kh, kw, ic), x: every input element meets its channel's whole filter."""
    return math.prod(inputs[2]) * math.prod(inputs[1][:3])


MACS = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transposed,
}
