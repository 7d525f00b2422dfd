"""RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR, ARG_MAX, ARG_MIN."""

from __future__ import annotations

from pilite.compiler import graph, interpolation
from pilite.compiler.graph import Node
from pilite.compiler.ops.common import is_unsigned
from pilite.compiler.ops.pick import pick
from pilite.compiler.program import Builder
from pilite.compiler.spec import ArgExtreme, Bilinear


def resize_bilinear(node: Node, b: Builder) -> None:
    """int8: weights of 10 bits, in integers. uint8: float32, as on a machine that fuses no operations.

    XNNPACK: weights of 11 bits for both.
    """
    options = node.options
    assert isinstance(options, graph.Resize)
    x = b.tensor(node.inputs[0])
    fine = b.delegated(node)
    real = is_unsigned(x) and not fine
    sizes = list(zip(x.shape[1:3], options.size, strict=True))
    rows, columns = (
        interpolation.fine(*pair, options)
        if fine
        else interpolation.bilinear(*pair, options, rounded=not real)
        for pair in sizes
    )
    arrays = {
        "rows": rows.index,
        "row_weights": rows.weight,
        "columns": columns.index,
        "column_weights": columns.weight,
    }
    spec = Bilinear(real, 128 if real else 0, fine)
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]), arrays)


def resize_nearest_neighbor(node: Node, b: Builder) -> None:
    options = node.options
    assert isinstance(options, graph.Resize)
    sizes = zip(b.tensor(node.inputs[0]).shape[1:3], options.size, strict=True)
    pick(node, b, (1, 2), [interpolation.nearest(size, count, options) for size, count in sizes])


def arg_extreme(node: Node, b: Builder) -> None:
    """uint8 values are in the same order as int8 ones."""
    options = node.options
    assert isinstance(options, graph.ArgMax)
    spec = ArgExtreme(options.axis, largest=node.op == "ARG_MAX")
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]))
