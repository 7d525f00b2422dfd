"""The output shape that follows from an operator's operands, as TFLite computes it when it loads a model.

SHAPES[op](node, graph)  ->  shape; raises Mismatch when the operands do not fit together
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pilite.compiler import detection, elements, images, moves, recurrent
from pilite.compiler.graph import (
    Concatenation,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    Mean,
    Node,
    Pad,
    Pool2D,
    Tensor,
    TransposeConv,
    View,
)
from pilite.compiler.operands import Mismatch
from pilite.compiler.tensors import quoted

Shape = tuple[int, ...]
INT16_MAX = 2**15 - 1  # TFLite keeps strides, dilations and paddings in 16 bits


def outputs(node: Node, graph: Graph) -> tuple[Shape, ...]:
    """The shape of each output. Raises Mismatch."""
    if node.op in SEVERAL:
        return SEVERAL[node.op](node, graph)
    return (SHAPES[node.op](node, graph),)


def extent(size: int, window: int, stride: int, dilation: int, padding: str) -> int:
    """How many positions a window has along one dimension."""
    if padding == "SAME":
        return -(-size // stride)
    return (size - (window - 1) * dilation - 1) // stride + 1


def _operand(node: Node, graph: Graph, i: int, rank: int = 0) -> Tensor:
    tensor = graph.tensors[node.inputs[i]]
    if rank and len(tensor.shape) != rank:
        raise Mismatch(
            f"its operand {quoted(tensor.name)} has shape {list(tensor.shape)}, not {rank} dimensions"
        )
    return tensor


def _image(x: Tensor, window: tuple[int, int], channels: int, o: Conv2D | DepthwiseConv2D | Pool2D) -> Shape:
    dilation = (1, 1) if isinstance(o, Pool2D) else o.dilation
    n, h, w, _ = x.shape
    sizes = []
    for along in zip((h, w), window, o.stride, dilation, strict=True):
        _, size, stride, spread = along
        if min(size, stride, spread) < 1 or max(stride, (size - 1) * spread) > INT16_MAX:
            given = f"window {window}, stride {o.stride} and dilation {dilation}"
            raise Mismatch(f"its {given} are not positive or too large for TFLite's 16 bits")
        sizes.append(extent(*along, o.padding))
    if min(sizes) < 1:
        raise Mismatch(f"its window {window} is larger than the image {(h, w)}")
    return n, sizes[0], sizes[1], channels


def _conv_2d(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Conv2D)
    x, w = _operand(node, graph, 0, rank=4), _operand(node, graph, 1, rank=4)
    oc, kh, kw, ic = w.shape
    if ic < 1 or x.shape[3] % ic or oc % (x.shape[3] // ic):
        raise Mismatch(
            f"its weights take {ic} of {x.shape[3]} input channels, which makes no groups for {oc}"
        )
    return _image(x, (kh, kw), oc, node.options)


def _depthwise_conv_2d(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, DepthwiseConv2D)
    x, w = _operand(node, graph, 0, rank=4), _operand(node, graph, 1, rank=4)
    one, kh, kw, oc = w.shape
    if one != 1 or oc != x.shape[3] * node.options.multiplier:
        times = f"{x.shape[3]} channels times {node.options.multiplier}"
        raise Mismatch(f"its weights have shape {list(w.shape)}, which does not fit {times}")
    return _image(x, (kh, kw), oc, node.options)


def _transpose_conv(node: Node, graph: Graph) -> Shape:
    """Any size that the file asks for: TFLite drops what falls outside, and leaves the bias elsewhere."""
    assert isinstance(node.options, TransposeConv)
    x, w, o = _operand(node, graph, 0, rank=4), _operand(node, graph, 1, rank=4), node.options
    oc, kh, kw, ic = w.shape
    if len(o.shape) != 4 or (o.shape[0], o.shape[3], ic) != (x.shape[0], oc, x.shape[3]):
        given = f"input {list(x.shape)} and weights {list(w.shape)}"
        raise Mismatch(f"its output shape {list(o.shape)} does not fit {given}")
    if min(o.shape) < 1 or min(o.stride) < 1 or max(*o.stride, *o.shape[1:3], kh, kw) > INT16_MAX:
        raise Mismatch(f"its output shape {list(o.shape)} and stride {o.stride} leave 1 to {INT16_MAX}")
    return o.shape


def _pool_2d(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Pool2D)
    x = _operand(node, graph, 0, rank=4)
    return _image(x, node.options.window, x.shape[3], node.options)


def _fully_connected(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, FullyConnected)
    x, w = _operand(node, graph, 0), _operand(node, graph, 1, rank=2)
    units, depth = w.shape
    if node.options.keep_num_dims:
        if not x.shape or x.shape[-1] != depth:
            raise Mismatch(f"its input has shape {list(x.shape)}, its weights take {depth} values")
        return *x.shape[:-1], units
    if x.elements % depth:
        raise Mismatch(f"its input has {x.elements} values, no multiple of the {depth} that its weights take")
    return x.elements // depth, units


def _mean(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Mean)
    o, x = node.options, _operand(node, graph, 0)
    kept = [1 if i in o.axes else n for i, n in enumerate(x.shape)]
    return tuple(n for i, n in enumerate(kept) if o.keep_dims or i not in o.axes)


def _concatenation(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Concatenation)
    axis = node.options.axis
    shapes = [_operand(node, graph, i).shape for i in range(len(node.inputs))]
    for shape in shapes:
        if (
            len(shape) != len(shapes[0])
            or shape[:axis] + shape[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :]
        ):
            raise Mismatch(
                f"its operands have shapes {list(shapes[0])} and {list(shape)}, joined along {axis}"
            )
    return *shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :]


def _pad(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Pad)
    o, x = node.options, _operand(node, graph, 0)
    if min((*o.before, *o.after), default=0) < 0:
        raise Mismatch("its paddings are negative")
    return tuple(a + n + b for a, n, b in zip(o.before, x.shape, o.after, strict=True))


def _view(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, View)
    x, shape = _operand(node, graph, 0), node.options.shape
    if x.elements != math.prod(shape):
        raise Mismatch(f"it turns the shape {list(x.shape)} into {list(shape)}")
    return shape


def _same(node: Node, graph: Graph) -> Shape:
    return _operand(node, graph, 0).shape


SEVERAL = {**moves.SEVERAL, detection.OP: detection.shapes}  # outputs
SHAPES: dict[str, Callable[[Node, Graph], Shape]] = {
    **elements.SHAPES,
    **images.SHAPES,
    **moves.SHAPES,
    recurrent.OP: recurrent.shape,
    "AVERAGE_POOL_2D": _pool_2d,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "DEQUANTIZE": _same,
    "EXPAND_DIMS": _view,
    "FULLY_CONNECTED": _fully_connected,
    "L2_NORMALIZATION": _same,
    "MAX_POOL_2D": _pool_2d,
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), _mean),
    "PAD": _pad,
    "PADV2": _pad,
    "QUANTIZE": _same,
    "RESHAPE": _view,
    "SOFTMAX": _same,
    "SQUEEZE": _view,
    "TRANSPOSE_CONV": _transpose_conv,
}
