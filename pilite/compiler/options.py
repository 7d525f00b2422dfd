"""Option records out of the file: an operator's stored fields plus its constant shape and axis operands.

TFLite keeps some options in operands: the axes of MEAN, the borders of PAD, the shape of RESHAPE. They have
to be constants, because every shape is fixed when a model is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pilite.compiler import detection, images, moves, schema
from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import Options, Tensor
from pilite.compiler.operands import (
    Completion,
    Operands,
    Refused,
    Unfit,
    constant,
    number,
    operand,
    positive,
    vector,
)


def read(
    op: str, stored: Table | None, custom: bytes, operands: Operands, y: Tensor
) -> tuple[Options, tuple[int, ...]]:
    """The option record, and which of the operands are data, in their order. Raises Refused and Damaged.

    A field that the file leaves out has the schema's default; without `stored` options all fields have it,
    except those that TFLite then takes for unknown.
    """
    known = schema.OPERATORS[op]
    unknown = next((f.attribute for f in known.fields if stored is None and f.kind in NO_DEFAULT), None)
    if unknown:
        raise Refused(f"its options are missing, which leaves its {unknown} open; convert the model again")
    values: dict[str, Any] = {f.attribute: LOAD[f.kind](stored, f) for f in known.fields}
    if op in COMPLETE:
        values |= COMPLETE[op](stored, operands, y)
    if op == detection.OP:
        values |= detection.options(custom)
    positions = range(len(operands))
    chosen = REORDERED.get(op, positions[DATA_OPERANDS.get(op, slice(None))])
    return known.record(**values), tuple(i for i in chosen if i in positions)


def _choice(stored: Table | None, f: schema.OptionField, choices: Sequence[str]) -> str:
    chosen = number(stored, f.slots[0], "int8")
    if not 0 <= chosen < len(choices):
        raise Refused(f"{f.attribute} number {chosen} is unknown to TFLite's schema; convert the model again")
    return choices[chosen]


def _pair(stored: Table | None, f: schema.OptionField) -> tuple[int, int]:
    h, w = (number(stored, slot, "int32", f.default) for slot in f.slots)
    return h, w


NO_DEFAULT = ("padding", "mode")
LOAD: dict[str, Callable[[Table | None, schema.OptionField], object]] = {
    "padding": lambda stored, f: _choice(stored, f, schema.PADDINGS),
    "activation": lambda stored, f: _choice(stored, f, schema.ACTIVATIONS),
    "number": lambda stored, f: number(stored, f.slots[0], "int32", f.default),
    "pair": _pair,
    "dtype": lambda stored, f: _choice(stored, f, schema.DTYPES),
    "mode": lambda stored, f: number(stored, f.slots[0], "int8"),
    "flag": lambda stored, f: bool(number(stored, f.slots[0], "bool")),
    # On where the file leaves it out; TFLite takes options that are missing for zeros.
    "on": lambda stored, f: stored is not None and bool(number(stored, f.slots[0], "bool", f.default)),
    "real": lambda stored, f: 0.0 if stored is None else stored.real(f.slots[0]),
}


def _depthwise(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    """The multiplier follows from the shapes: TFLite's kernels ignore the stored one, so it may be wrong."""
    x, w = operand(operands, 0), operand(operands, 1)
    channels, outputs = (x.shape or (1,))[-1], (w.shape or (1,))[-1]
    return {"multiplier": outputs // channels}


def _fully_connected(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    if number(stored, schema.FullyConnectedOptions.weights_format, "int8"):
        raise Refused(
            "its weights are shuffled (SHUFFLED4x16INT8); convert the model with the default layout"
        )
    return {}


def _concatenation(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    axis = number(stored, schema.CONCATENATION[0].slots[0], "int32")
    return {"axis": positive(axis, len(operand(operands, 0).shape))}


def _transpose_conv(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    return {"shape": tuple(constant(operands, 0, "output shape"))}


def _mean(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    rank = len(operand(operands, 0).shape)
    return {"axes": tuple(sorted({positive(axis, rank) for axis in constant(operands, 1, "axes")}))}


def _pad(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    x, borders = operand(operands, 0), constant(operands, 1, "paddings")
    if operand(operands, 1).shape != (len(x.shape), 2):
        raise Unfit(f"its paddings do not have two entries for each dimension of {list(x.shape)}")
    return {"before": tuple(borders[0::2]), "after": tuple(borders[1::2])}


def _pad_v2(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    value = operand(operands, 2)
    if value.data is None or value.elements != 1 or (value.dtype, value.quant) != (y.dtype, y.quant):
        raise Unfit("the value it pads with is no constant of the output's dtype, scale and zero point")
    return _pad(stored, operands, y) | {"value": value.data.item()}


def _reshape(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    if len(operands) > 1 and operands[1] is not None and len(operand(operands, 1).shape) == 1:
        shape = constant(operands, 1, "new shape")
    else:
        shape = vector(stored, schema.ReshapeOptions.new_shape)
        shape = [] if shape == [0] else shape  # how old converters write a scalar
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        shape[shape.index(-1)] = operand(operands, 0).elements // known if known > 0 else -1
    return {"shape": tuple(shape)}


def _squeeze(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    sizes = operand(operands, 0).shape
    stored_axes = vector(stored, schema.SqueezeOptions.squeeze_dims)
    axes = {positive(axis, len(sizes)) for axis in stored_axes} or {i for i, n in enumerate(sizes) if n == 1}
    if any(sizes[axis] != 1 for axis in axes):
        raise Unfit(f"it squeezes dimensions {sorted(axes)} of {list(sizes)}, and not all of them are 1")
    return {"shape": tuple(n for i, n in enumerate(sizes) if i not in axes)}


def _expand_dims(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    sizes, axes = operand(operands, 0).shape, constant(operands, 1, "axis")
    if len(axes) != 1:
        raise Unfit(f"its axis has {len(axes)} entries instead of one")
    axis = positive(axes[0], len(sizes) + 1)
    return {"shape": (*sizes[:axis], 1, *sizes[axis:])}


COMPLETE: dict[str, Completion] = {
    **images.COMPLETE,
    **moves.COMPLETE,
    "CONCATENATION": _concatenation,
    "DEPTHWISE_CONV_2D": _depthwise,
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _fully_connected,
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), _mean),
    "PAD": _pad,
    "PADV2": _pad_v2,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "TRANSPOSE_CONV": _transpose_conv,
}
FIRST = slice(1)
# Where the data is; the other operands are shapes and axes. Operators that are not named have nothing else.
DATA_OPERANDS = {
    **images.DATA_OPERANDS,
    **moves.DATA_OPERANDS,
    "EXPAND_DIMS": FIRST,
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), FIRST),
    "PAD": FIRST,
    "PADV2": FIRST,
    "RESHAPE": FIRST,
    "SQUEEZE": FIRST,
}
# x, weights, bias; TFLite has the output's shape and the weights first.
REORDERED = {"TRANSPOSE_CONV": (2, 1, 3)}
