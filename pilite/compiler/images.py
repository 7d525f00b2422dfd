"""The door of the operators on images and along axes: resizing, positions of extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pilite.compiler import interpolation
from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import ArgMax, Graph, Node, Resize, Tensor
from pilite.compiler.operands import (
    INTEGERS,
    Completion,
    Mismatch,
    Operands,
    Refused,
    Unfit,
    constant,
    operand,
    positive,
)
from pilite.compiler.rules import AGAIN, Rule, activations, output

Shape = tuple[int, ...]
NUMBERS = ("int8", "uint8", "int32", "float32")
RESIZABLE = {
    "RESIZE_BILINEAR": ("int8", "uint8", "int16"),
    "RESIZE_NEAREST_NEIGHBOR": ("int8", "uint8", "int16", "float32"),
}
MAX_LINES = 2**15  # of a resized image: each has its place and weights in the artifact


# Options.


def _arg(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    axes = constant(operands, 1, "axis")
    if len(axes) != 1:
        raise Unfit(f"its axis has {len(axes)} entries instead of one")
    return {"axis": positive(axes[0], len(operand(operands, 0).shape))}


def _resize(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    size = constant(operands, 1, "new size")
    if len(size) != 2 or min(size) < 1:
        raise Unfit(f"its new size {size} is no positive height and width")
    if max(size) > MAX_LINES:
        raise Refused(f"its new size {size} has more than {MAX_LINES} lines; resize to a smaller image")
    return {"size": tuple(size)}


COMPLETE: dict[str, Completion] = {
    "ARG_MAX": _arg,
    "ARG_MIN": _arg,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
}
DATA_OPERANDS = dict.fromkeys(COMPLETE, slice(1))


# Shapes.


def _positions(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, ArgMax)
    x, axis = graph.tensors[node.inputs[0]].shape, node.options.axis
    return *x[:axis], *x[axis + 1 :]


def _resized(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Resize)
    x = graph.tensors[node.inputs[0]].shape
    if len(x) != 4:
        raise Mismatch(f"its input has shape {list(x)}, not 4 dimensions")
    return x[0], *node.options.size, x[3]


SHAPES: dict[str, Callable[[Node, Graph], Shape]] = {
    "ARG_MAX": _positions,
    "ARG_MIN": _positions,
    "RESIZE_BILINEAR": _resized,
    "RESIZE_NEAREST_NEIGHBOR": _resized,
}


# Rules.


def _comparable(node: Node, graph: Graph) -> str | None:
    x, y = activations(node, graph)[0], output(node, graph)
    if x.dtype not in NUMBERS:
        return f"compares {x.dtype}; it takes {', '.join(NUMBERS)}"
    assert isinstance(node.options, ArgMax)
    stored = node.options.output_type
    if y.dtype not in INTEGERS or stored != y.dtype:
        return f"gives {y.dtype} where its options say {stored}; int32 and int64 can be compiled; {AGAIN}"
    return None


def _resizable(node: Node, graph: Graph) -> str | None:
    assert isinstance(node.options, Resize)
    x, y, o = activations(node, graph)[0], output(node, graph), node.options
    allowed = RESIZABLE[node.op]
    if x.dtype != y.dtype or x.dtype not in allowed:
        return f"turns {x.dtype} into {y.dtype}; both must have one dtype of {', '.join(allowed)}"
    if o.align_corners and o.half_pixel_centers:
        return f"has both align_corners and half_pixel_centers, which TFLite refuses; {AGAIN}"
    return None


def _inside(node: Node, graph: Graph) -> str | None:
    """TFLite's 10-bit positions drift, so that those far to the right can lie outside of the image."""
    assert isinstance(node.options, Resize)
    x, o = activations(node, graph)[0], node.options
    rounded = x.dtype != "uint8"
    for size, count in zip(x.shape[1:3], o.size, strict=True):
        if interpolation.bilinear(size, count, o, rounded=rounded).index.max() >= size:
            what = f"enlarges {size} to {count} pixels"
            return f"{what}, where TFLite reads outside of the image; resize in two steps"
    return None


CHECKS: dict[str, tuple[Rule, ...]] = {
    "ARG_MAX": (_comparable,),
    "ARG_MIN": (_comparable,),
    "RESIZE_BILINEAR": (_resizable, _inside),
    "RESIZE_NEAREST_NEIGHBOR": (_resizable,),
}
