"""RESHAPE, SQUEEZE, EXPAND_DIMS, PAD, PADV2, CONCATENATION: bytes move, values do not change (but for a
uint8 concatenation).
"""

from __future__ import annotations

import numpy as np

from pilite.compiler import graph
from pilite.compiler.graph import Node
from pilite.compiler.ops.common import is_unsigned, quant
from pilite.compiler.ops.elementwise import EVERY_INT8, rescaled_for_concatenation
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import Fill, Move, Table


def reshape(node: Node, b: Builder) -> None:
    b.view(node.outputs[0], b.value(node.inputs[0]))


def pad(node: Node, b: Builder) -> None:
    """The output filled with its zero point (PAD) or the given value (PADV2), then the input inside."""
    options = node.options
    assert isinstance(options, graph.Pad)
    y = b.tensor(node.outputs[0])
    target = b.value(node.outputs[0])
    value: float = 0 if y.quant is None else signed_zero_point(y)
    if options.value is not None:
        value = options.value - (128 if is_unsigned(y) else 0)
    b.emit(Fill(value, whole=True), (), target)
    b.emit(Move(options.before), (b.value(node.inputs[0]),), target)


def concatenation(node: Node, b: Builder) -> None:
    """Each input copied to its place; uint8 inputs of another scale pass a table first."""
    options = node.options
    assert isinstance(options, graph.Concatenation)
    y = b.tensor(node.outputs[0])
    target = b.value(node.outputs[0])
    at = [0] * len(y.shape)
    for tensor in node.inputs:
        x = b.tensor(tensor)
        b.emit(Move(tuple(at)), (_rescaled(b, tensor, node.outputs[0]),), target)
        at[options.axis] += x.shape[options.axis]


def _rescaled(b: Builder, tensor: int, output: int) -> int:
    x, y, value = b.tensor(tensor), b.tensor(output), b.value(tensor)
    if x.quant is None or y.quant is None or not is_unsigned(y):
        return value
    if (quant(x).scale, quant(x).zero_point) == (quant(y).scale, quant(y).zero_point):
        return value
    values = rescaled_for_concatenation(x, y)
    if np.array_equal(values, EVERY_INT8):
        return value
    scaled = b.new(x.shape, border=signed_zero_point(y))
    b.emit(Table(), (value,), scaled, {"table": values.astype(np.int8)})
    return scaled
