"""The door of the operators that move data: their options, output shapes and rules.

Values move unchanged, so every dtype is allowed that has whole bytes. TFLite copies stored values even where
the quantization of input and output differs, except where a rule below says that it refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pilite.compiler import graph as records
from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import (
    Batches,
    Depth,
    Gather,
    Graph,
    MirrorPad,
    Node,
    Slice,
    Split,
    Stack,
    StridedSlice,
    Tensor,
    Tile,
    Transpose,
)
from pilite.compiler.operands import (
    INTEGERS,
    Completion,
    Mismatch,
    Operands,
    Unfit,
    constant,
    number,
    operand,
    positive,
)
from pilite.compiler.rules import AGAIN, Rule, activations, equal_quant, output
from pilite.compiler.schema import MOVES
from pilite.compiler.strided import strided_slice
from pilite.compiler.tensors import quoted

Shape = tuple[int, ...]
DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float32")
MOST_DIMENSIONS = {"SLICE": 5, "STRIDED_SLICE": 5, "TRANSPOSE": 6}


# Options.


def _slot(op: str, attribute: str) -> int:
    return next(f.slots[0] for f in MOVES[op].fields if f.attribute == attribute)


def _one(operands: Operands, i: int, what: str) -> int:
    values = constant(operands, i, what)
    if len(values) != 1:
        raise Unfit(f"its {what} has {len(values)} entries instead of one")
    return values[0]


def _of_rank(operands: Operands, i: int, what: str, rank: int) -> Shape:
    values = constant(operands, i, what)
    if len(values) != rank:
        raise Unfit(f"its {what} has {len(values)} entries, there are {rank} dimensions")
    return tuple(values)


def _split(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    x, count = operand(operands, 1), number(stored, 0, "int32")
    axis = positive(_one(operands, 0, "axis"), len(x.shape))
    if count < 1 or x.shape[axis] % count:
        raise Unfit(f"it splits {x.shape[axis]} values along axis {axis} into {count} equal parts")
    return {"axis": axis, "sizes": (x.shape[axis] // count,) * count}


def _split_v(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    """One size may be -1: what the others leave."""
    x, sizes = operand(operands, 0), constant(operands, 1, "sizes")
    axis = positive(_one(operands, 2, "axis"), len(x.shape))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(sizes) - 1
    if min(sizes, default=0) < 1 or sum(sizes) != x.shape[axis]:
        raise Unfit(f"its sizes {sizes} do not make up the {x.shape[axis]} values along axis {axis}")
    return {"axis": axis, "sizes": tuple(sizes)}


def _pack(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    rank = len(operand(operands, 0).shape) + 1
    return {"axis": positive(number(stored, _slot("PACK", "axis"), "int32"), rank)}


def _unpack(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    rank = len(operand(operands, 0).shape)
    return {"axis": positive(number(stored, _slot("UNPACK", "axis"), "int32"), rank)}


def _slice(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    """A size of -1 is the rest."""
    x = operand(operands, 0)
    begin, size = (_of_rank(operands, i, what, len(x.shape)) for i, what in ((1, "begin"), (2, "size")))
    count = tuple(n - b if s == -1 else s for n, b, s in zip(x.shape, begin, size, strict=True))
    return {"begin": begin, "count": count}


def _transpose(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    rank = len(operand(operands, 0).shape)
    if operand(operands, 1).dtype != "int32":
        raise Unfit(f"its permutation is {operand(operands, 1).dtype}, TFLite takes int32")
    permutation = [positive(axis, rank) for axis in constant(operands, 1, "permutation")]
    if sorted(permutation) != list(range(rank)):
        raise Unfit(f"its permutation {permutation} does not name each of {rank} dimensions once")
    return {"permutation": tuple(permutation)}


def _tile(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    return {"times": _of_rank(operands, 1, "multiples", len(operand(operands, 0).shape))}


def _gather(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    axis, batch = (number(stored, f.slots[0], "int32") for f in MOVES["GATHER"].fields)
    x, indices = operand(operands, 0), operand(operands, 1)
    axis, rank = positive(axis, len(x.shape)), len(indices.shape)
    batch = batch + rank if batch < 0 else batch
    if not 0 <= batch <= min(axis, rank) or x.shape[:batch] != indices.shape[:batch]:
        raise Unfit(f"its {batch} batch dimensions do not fit {list(x.shape)} and {list(indices.shape)}")
    return {"axis": axis, "batch_dims": batch}


def _batches(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    spatial = len(operand(operands, 0).shape) - 2
    block = _of_rank(operands, 1, "block shape", spatial)
    edges = _of_rank(operands, 2, "paddings or crops", 2 * spatial)
    if spatial not in (1, 2) or min(block) < 1 or min(edges) < 0:
        raise Unfit(f"its block {list(block)} and borders {list(edges)} do not fit 3 or 4 dimensions")
    return {"block": block, "before": edges[0::2], "after": edges[1::2]}


def _mirror_pad(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    x, edge = operand(operands, 0), number(stored, 0, "int8")
    borders = _of_rank(operands, 1, "paddings", 2 * len(x.shape))
    pairs = zip(x.shape, borders[0::2], borders[1::2], strict=True)
    if edge not in (0, 1) or any(min(pair) < 0 or max(pair[1:]) > pair[0] - 1 + edge for pair in pairs):
        raise Unfit(f"its paddings {list(borders)} reach further than {list(x.shape)} mirrored")
    return {"edge": edge, "before": borders[0::2], "after": borders[1::2]}


COMPLETE: dict[str, Completion] = {
    "BATCH_TO_SPACE_ND": _batches,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "SLICE": _slice,
    "SPACE_TO_BATCH_ND": _batches,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "STRIDED_SLICE": strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
WITH_CONSTANTS = ("BATCH_TO_SPACE_ND", "MIRROR_PAD", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT_V", "STRIDED_SLICE")
DATA_OPERANDS = {
    **dict.fromkeys((*WITH_CONSTANTS, "TILE", "TRANSPOSE"), slice(1)),
    "SPLIT": slice(1, 2),
}


# Shapes.


def _x(node: Node, graph: Graph) -> Shape:
    return graph.tensors[node.inputs[0]].shape


def _parts(node: Node, graph: Graph) -> tuple[Shape, ...]:
    assert isinstance(node.options, Split)
    o, x = node.options, _x(node, graph)
    if o.count != len(o.sizes):
        raise Mismatch(f"it has {len(o.sizes)} sizes for {o.count} parts")
    return tuple((*x[: o.axis], size, *x[o.axis + 1 :]) for size in o.sizes)


def _packed(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Stack)
    shapes = [graph.tensors[i].shape for i in node.inputs]
    if len(set(shapes)) > 1 or node.options.count != len(shapes):
        raise Mismatch(f"it packs {node.options.count} operands of the shapes {sorted(set(shapes))}")
    axis = node.options.axis
    return *shapes[0][:axis], len(shapes), *shapes[0][axis:]


def _unpacked(node: Node, graph: Graph) -> tuple[Shape, ...]:
    assert isinstance(node.options, Stack)
    o, x = node.options, _x(node, graph)
    if o.count != x[o.axis]:
        raise Mismatch(f"it unpacks {o.count} parts of {list(x)} along axis {o.axis}")
    return ((*x[: o.axis], *x[o.axis + 1 :]),) * o.count


def _sliced(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Slice)
    o, x = node.options, _x(node, graph)
    if any(b < 0 or n < 1 or b + n > size for b, n, size in zip(o.begin, o.count, x, strict=True)):
        raise Mismatch(f"it takes {list(o.count)} values from {list(o.begin)} on of {list(x)}")
    return o.count


def _sizes(node: Node, graph: Graph) -> Shape:
    return (len(_x(node, graph)),)


def _strided(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, StridedSlice)
    if min(node.options.count, default=1) < 1:
        raise Mismatch("it takes no values")
    return node.options.shape


def _transposed(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Transpose)
    return tuple(_x(node, graph)[axis] for axis in node.options.permutation)


def _tiled(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Tile)
    return tuple(n * times for n, times in zip(_x(node, graph), node.options.times, strict=True))


def _gathered(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Gather)
    o, x, indices = node.options, _x(node, graph), graph.tensors[node.inputs[1]].shape
    return *x[: o.axis], *indices[o.batch_dims :], *x[o.axis + 1 :]


def _gathered_nd(node: Node, graph: Graph) -> Shape:
    x, indices = _x(node, graph), graph.tensors[node.inputs[1]].shape
    if not indices or indices[-1] > len(x):
        raise Mismatch(f"its indices of shape {list(indices)} do not fit {list(x)}")
    return *indices[:-1], *x[indices[-1] :]


def _to_batches(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Batches)
    o, (n, *spatial, channels) = node.options, _x(node, graph)
    padded = [b + size + a for b, size, a in zip(o.before, spatial, o.after, strict=True)]
    if any(size % block for size, block in zip(padded, o.block, strict=True)):
        raise Mismatch(f"its padded image {padded} is no multiple of the block {list(o.block)}")
    return n * math.prod(o.block), *(p // k for p, k in zip(padded, o.block, strict=True)), channels


def _to_space(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Batches)
    o, (n, *spatial, channels) = node.options, _x(node, graph)
    ends = zip(spatial, o.block, o.before, o.after, strict=True)
    image = [size * k - before - after for size, k, before, after in ends]
    if n % math.prod(o.block) or min(image) < 1:
        raise Mismatch(f"its block {list(o.block)} does not fit {n} batches, or the crops leave nothing")
    return n // math.prod(o.block), *image, channels


def _depth(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, Depth)
    x, k = _x(node, graph), node.options.block
    if len(x) != 4 or k < 1:
        raise Mismatch(f"its block {k} does not fit {list(x)}")
    n, h, w, c = x
    if node.op == "SPACE_TO_DEPTH":
        if h % k or w % k:
            raise Mismatch(f"its image {h}x{w} is no multiple of the block {k}")
        return n, h // k, w // k, c * k * k
    if c % (k * k):
        raise Mismatch(f"its {c} channels are no multiple of the block {k} squared")
    return n, h * k, w * k, c // (k * k)


def _mirrored(node: Node, graph: Graph) -> Shape:
    assert isinstance(node.options, MirrorPad)
    o = node.options
    return tuple(b + n + a for b, n, a in zip(o.before, _x(node, graph), o.after, strict=True))


SHAPES: dict[str, Callable[[Node, Graph], Shape]] = {
    "BATCH_TO_SPACE_ND": _to_space,
    "DEPTH_TO_SPACE": _depth,
    "GATHER": _gathered,
    "GATHER_ND": _gathered_nd,
    "MIRROR_PAD": _mirrored,
    "PACK": _packed,
    "SHAPE": _sizes,
    "SLICE": _sliced,
    "SPACE_TO_BATCH_ND": _to_batches,
    "SPACE_TO_DEPTH": _depth,
    "STRIDED_SLICE": _strided,
    "TILE": _tiled,
    "TRANSPOSE": _transposed,
}
SEVERAL: dict[str, Callable[[Node, Graph], tuple[Shape, ...]]] = {
    "SPLIT": _parts,
    "SPLIT_V": _parts,
    "UNPACK": _unpacked,
}


# Rules.


def movable(node: Node, graph: Graph) -> str | None:
    """Operands and outputs have one dtype."""
    tensors = [*activations(node, graph), *(graph.tensors[i] for i in node.outputs)]
    return _one_dtype(tensors)


def _no(dtype: str, instead: str) -> Rule:
    def rule(node: Node, graph: Graph) -> str | None:
        refused = output(node, graph).dtype == dtype
        return f"moves {dtype}, which TFLite's kernel refuses; {AGAIN} with {instead}" if refused else None

    return rule


_no_int64, _no_int16 = _no("int64", "int32"), _no("int16", "int8")


def _one_dtype(tensors: Sequence[Tensor]) -> str | None:
    dtypes = sorted({tensor.dtype for tensor in tensors})
    if len(dtypes) > 1 or dtypes[0] not in DTYPES:
        wanted = f"operands and output must have one dtype of {', '.join(DTYPES)}"
        return f"moves {' and '.join(dtypes)}; {wanted}; {AGAIN}"
    return None


def _few_dimensions(node: Node, graph: Graph) -> str | None:
    rank, most = len(_x(node, graph)), MOST_DIMENSIONS[node.op]
    return f"has {rank} dimensions, TFLite takes 1 to {most}; {AGAIN}" if not 0 < rank <= most else None


def _indexed(node: Node, graph: Graph) -> str | None:
    """Constant indices are checked here, computed ones in each run."""
    x, indices, y = (graph.tensors[i] for i in (*node.inputs, node.outputs[0]))
    if indices.dtype not in INTEGERS:
        return f"has {indices.dtype} indices; only int32 and int64 can be compiled"
    limits = _indexed_sizes(node, x, indices)
    if indices.data is not None and limits:  # a scalar has nothing to index, as its shape says
        rows = indices.data.astype(np.int64).reshape(-1, len(limits))
        if (rows < 0).any() or (rows >= np.array(limits)).any():
            return f"its indices {quoted(indices.name)} lie outside {list(limits)}; {AGAIN}"
    return _one_dtype([x, y])


def _integers(node: Node, graph: Graph) -> str | None:
    """The output has the dtype that the option names."""
    assert isinstance(node.options, records.Shape)
    dtype, named = graph.tensors[node.outputs[0]].dtype, node.options.output_type
    if dtype not in INTEGERS or dtype != named:
        return f"gives sizes as {dtype}, its option says {named}; TFLite has int32 and int64; {AGAIN}"
    return None


def _indexed_sizes(node: Node, x: Tensor, indices: Tensor) -> Shape:
    if isinstance(node.options, Gather):
        return (x.shape[node.options.axis],)
    return x.shape[: indices.shape[-1]] if indices.shape else (1,)


CHECKS: dict[str, tuple[Rule, ...]] = {
    "BATCH_TO_SPACE_ND": (movable, equal_quant),
    "DEPTH_TO_SPACE": (movable, _no_int16),
    "GATHER": (_indexed,),
    "GATHER_ND": (_indexed,),
    "MIRROR_PAD": (movable, equal_quant),
    "PACK": (movable, equal_quant),
    "SHAPE": (_integers,),
    "SLICE": (movable, _few_dimensions),
    "SPACE_TO_BATCH_ND": (movable, equal_quant),
    "SPACE_TO_DEPTH": (movable, _no_int16),
    "SPLIT": (movable, _no_int64),
    "SPLIT_V": (movable,),
    "STRIDED_SLICE": (movable, _few_dimensions),
    "TILE": (movable, _no_int16),
    "TRANSPOSE": (movable, _few_dimensions),
    "UNPACK": (movable, equal_quant, _no_int64),
}
