"""Option records out of the file: an operator's stored fields plus its constant shape and axis operands.

TFLite keeps some options in operands: the axes of MEAN, the borders of PAD, the shape of RESHAPE. They have
to be constants, because every shape is fixed when a model is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pilite.compiler import schema
from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import Options, Tensor


class Refused(Exception):
    """The operator cannot be compiled; the text is the reason and the next step."""


Operands: TypeAlias = Sequence[Tensor | None]  # None: left out
Completion: TypeAlias = Callable[[Table | None, Operands, Tensor], dict[str, Any]]


def read(op: str, stored: Table | None, operands: Operands, y: Tensor) -> tuple[Options, int]:
    """The option record, and how many of the leading operands are data. Raises Refused and Damaged.

    A field that the file leaves out has the schema's default; without `stored` options all fields have it.
    """
    known = schema.OPERATORS[op]
    values: dict[str, Any] = {f.attribute: LOAD[f.kind](stored, f) for f in known.fields}
    if op in COMPLETE:
        values |= COMPLETE[op](stored, operands, y)
    return known.record(**values), DATA_OPERANDS.get(op, len(operands))


def _number(stored: Table | None, slot: int, dtype: str, default: int = 0) -> int:
    return default if stored is None else stored.number(slot, dtype, default)


def _choice(stored: Table | None, f: schema.OptionField, choices: Sequence[str]) -> str:
    number = _number(stored, f.slots[0], "int8")
    if not 0 <= number < len(choices):
        raise Refused(f"{f.attribute} number {number} is unknown to TFLite's schema; convert the model again")
    return choices[number]


def _pair(stored: Table | None, f: schema.OptionField) -> tuple[int, int]:
    h, w = (_number(stored, slot, "int32", f.default) for slot in f.slots)
    return h, w


LOAD: dict[str, Callable[[Table | None, schema.OptionField], object]] = {
    "padding": lambda stored, f: _choice(stored, f, schema.PADDINGS),
    "activation": lambda stored, f: _choice(stored, f, schema.ACTIVATIONS),
    "number": lambda stored, f: _number(stored, f.slots[0], "int32", f.default),
    "pair": _pair,
    "flag": lambda stored, f: bool(_number(stored, f.slots[0], "bool")),
    "real": lambda stored, f: 0.0 if stored is None else stored.real(f.slots[0]),
}


def _depthwise(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    """The multiplier follows from the shapes: TFLite's kernels ignore the stored one, so it may be wrong."""
    x, w = _operand(operands, 0), _operand(operands, 1)
    channels, outputs = (x.shape or (1,))[-1], (w.shape or (1,))[-1]
    return {"multiplier": outputs // channels}


def _fully_connected(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    if _number(stored, schema.FullyConnectedOptions.weights_format, "int8"):
        raise Refused(
            "its weights are shuffled (SHUFFLED4x16INT8); convert the model with the default layout"
        )
    return {}


def _concatenation(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    axis = _number(stored, schema.CONCATENATION[0].slots[0], "int32")
    return {"axis": _positive(axis, len(_operand(operands, 0).shape))}


def _mean(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    rank = len(_operand(operands, 0).shape)
    return {"axes": tuple(sorted({_positive(axis, rank) for axis in _constant(operands, 1, "axes")}))}


def _pad(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    x, borders = _operand(operands, 0), _constant(operands, 1, "paddings")
    if _operand(operands, 1).shape != (len(x.shape), 2):
        raise Refused(f"its paddings do not have two entries for each dimension of {list(x.shape)}")
    return {"before": tuple(borders[0::2]), "after": tuple(borders[1::2])}


def _pad_v2(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    value = _operand(operands, 2)
    if value.data is None or value.elements != 1 or (value.dtype, value.quant) != (y.dtype, y.quant):
        raise Refused("the value it pads with is no constant of the output's dtype, scale and zero point")
    return _pad(stored, operands, y) | {"value": int(value.data.reshape(())[()])}


def _reshape(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    if len(operands) > 1 and operands[1] is not None and len(_operand(operands, 1).shape) == 1:
        shape = _constant(operands, 1, "new shape")
    else:
        shape = _vector(stored, schema.ReshapeOptions.new_shape)
        shape = [] if shape == [0] else shape  # how old converters write a scalar
    if shape.count(-1) == 1:
        known = -math.prod(shape)
        shape[shape.index(-1)] = y.elements // known if known > 0 else -1
    _expect(shape, y)
    return {}


def _squeeze(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    sizes = _operand(operands, 0).shape
    stored_axes = _vector(stored, schema.SqueezeOptions.squeeze_dims)
    axes = {_positive(axis, len(sizes)) for axis in stored_axes} or {i for i, n in enumerate(sizes) if n == 1}
    if any(sizes[axis] != 1 for axis in axes):
        raise Refused(f"it squeezes dimensions {sorted(axes)} of {list(sizes)}, and not all of them are 1")
    _expect([n for i, n in enumerate(sizes) if i not in axes], y)
    return {}


def _expand_dims(stored: Table | None, operands: Operands, y: Tensor) -> dict[str, Any]:
    sizes, axes = _operand(operands, 0).shape, _constant(operands, 1, "axis")
    if len(axes) != 1:
        raise Refused(f"its axis has {len(axes)} entries instead of one")
    axis = _positive(axes[0], len(sizes) + 1)
    _expect([*sizes[:axis], 1, *sizes[axis:]], y)
    return {}


COMPLETE: dict[str, Completion] = {
    "CONCATENATION": _concatenation,
    "DEPTHWISE_CONV_2D": _depthwise,
    "EXPAND_DIMS": _expand_dims,
    "FULLY_CONNECTED": _fully_connected,
    "MEAN": _mean,
    "PAD": _pad,
    "PADV2": _pad_v2,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
}
DATA_OPERANDS = {"EXPAND_DIMS": 1, "MEAN": 1, "PAD": 1, "PADV2": 1, "RESHAPE": 1, "SQUEEZE": 1}  # others: all


def _operand(operands: Operands, i: int) -> Tensor:
    tensor = operands[i] if i < len(operands) else None
    if tensor is None:
        raise Refused(f"its operand {i} is missing; convert the model again")
    return tensor


def _constant(operands: Operands, i: int, what: str) -> list[int]:
    tensor = _operand(operands, i)
    if tensor.data is None:
        raise Refused(f"its {what} is computed at run time; only constant shapes and axes can be compiled")
    if tensor.dtype not in ("int32", "int64"):
        raise Refused(f"its {what} is {tensor.dtype} instead of int32; convert the model again")
    return [int(v) for v in tensor.data.reshape(-1).tolist()]


def _vector(stored: Table | None, slot: int) -> list[int]:
    values = None if stored is None else stored.numbers(slot, "int32")
    return [] if values is None else [int(v) for v in values.tolist()]


def _positive(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} is outside a tensor of {rank} dimensions")
    return axis % rank


def _expect(shape: Sequence[int], y: Tensor) -> None:
    if tuple(shape) != y.shape:
        raise Refused(f"its output has shape {list(y.shape)} where {list(shape)} follows from its operands")
