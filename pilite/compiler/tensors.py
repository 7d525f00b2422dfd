"""Tensors out of the file: shape, dtype, quantization and constant data, or why a tensor cannot be used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler import schema
from pilite.compiler.container import Container
from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import Quant, Tensor
from pilite.compiler.operands import Refused, Unfit

MAX_RANK = 8  # of the artifact's tensor descriptor
MAX_BYTES = 2**31 - 1  # of one tensor: TFLite's kernels index with int32

DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")
FULL_INTEGER = "convert the model again with full-integer quantization (8-bit weights and activations)"
# Why another dtype cannot be used, and what to do.
REFUSED_DTYPES = {
    "float16": f"half precision is float arithmetic, {FULL_INTEGER}",
    "int4": "4-bit weights are not supported, convert the model again with 8-bit weights",
}


def quoted(name: str) -> str:
    """A tensor's name for a message: on one line, and not longer than one."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


class WrongDtype(Refused):
    """The same for many tensors of a model, so the text does not name one."""


def read_tensors(file: Container) -> tuple[tuple[Tensor, ...], dict[int, str]]:
    """All tensors, and what is wrong with those that no operator may use. Raises Damaged."""
    tensors, faults = [], {}
    for i, table in enumerate(file.tensors):
        name = table.text(schema.Tensor.name)
        try:
            tensors.append(_tensor(file, table, i, name))
        except Refused as e:
            tensors.append(Tensor(i, name, (), "int8"))  # only holds the place
            faults[i] = str(e) if isinstance(e, WrongDtype) else f"tensor {i} {quoted(name)} {e}"
    return tuple(tensors), faults


def _tensor(file: Container, table: Table, index: int, name: str) -> Tensor:
    is_variable = bool(table.number(schema.Tensor.is_variable, "bool"))
    if table.table(schema.Tensor.sparsity) is not None:
        raise Refused("is stored sparse; convert the model again with dense weights")
    dtype = _dtype(table, DTYPES)
    shape = _shape(table, dtype)
    quant = _quant(table, shape, dtype)
    if is_variable and file.constant(table) is not None:
        raise Refused("keeps a state and has data, which TFLite refuses; convert the model again")
    data = None if is_variable else _data(file, table, shape, dtype)
    return Tensor(index, name, shape, dtype, quant, data, is_variable)


def intermediate(file: Container, index: int) -> Quant | None:
    """The quantization of a value inside an operator, which has no shape. Raises Refused and Damaged."""
    table = file.tensors[index]
    return _quant(table, (), _dtype(table, DTYPES))


def _dtype(table: Table, allowed: Sequence[str]) -> str:
    number = table.number(schema.Tensor.type, "int8")
    dtype = schema.DTYPES[number] if 0 <= number < len(schema.DTYPES) else f"type number {number}"
    if dtype in allowed:
        return dtype
    raise WrongDtype(f"works on {dtype} tensors; {REFUSED_DTYPES.get(dtype, FULL_INTEGER)}")


def _shape(table: Table, dtype: str) -> tuple[int, ...]:
    """A list of integers may be empty: no axes, the shape of a scalar."""
    stored = table.numbers(schema.Tensor.shape, "int32")
    if stored is not None and stored.size > MAX_RANK:
        raise Unfit(f"has {stored.size} dimensions, more than {MAX_RANK}")
    shape = () if stored is None else tuple(int(n) for n in stored.tolist())
    if any(n < 0 for n in shape):
        raise Refused(f"has the dynamic shape {list(shape)}; give the model's sizes with `--input-shape`")
    is_empty = math.prod(shape) == 0 and not (shape == (0,) and dtype in ("int32", "int64"))
    if is_empty or math.prod(shape) * np.dtype(dtype).itemsize > MAX_BYTES:
        raise Unfit(f"has the shape {list(shape)}: empty or above 2 GB")
    return shape


def _quant(table: Table, shape: tuple[int, ...], dtype: str) -> Quant | None:
    stored = table.table(schema.Tensor.quantization)
    scales = None if stored is None else stored.numbers(schema.Quantization.scale, "float32")
    if stored is None or scales is None or scales.size == 0 or dtype in ("float32", "bool"):
        return None
    if stored.number(schema.Quantization.details_type, "uint8"):
        raise Refused("has a custom quantization; only scale and zero point can be compiled")
    axis = stored.number(schema.Quantization.quantized_dimension, "int32")
    exists = 0 <= axis < max(len(shape), 1)
    if not exists or (scales.size > 1 and (not shape or shape[axis] != scales.size)):
        raise Unfit(f"has {scales.size} scales for axis {axis} of shape {list(shape)}; they do not match")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise Refused("has a scale that is no positive number; convert the model again")
    zero_points = _zero_points(stored, scales.size, dtype)
    return Quant(tuple(scales.tolist()), zero_points, axis if scales.size > 1 else 0, axis)


def _zero_points(stored: Table, count: int, dtype: str) -> tuple[int, ...]:
    values = stored.numbers(schema.Quantization.zero_point, "int64")
    if values is None or values.size != count:
        found = 0 if values is None else values.size
        raise Refused(f"has {count} scales but {found} zero points; convert the model again")
    limits = np.iinfo(dtype)
    if values.min() < limits.min or values.max() > limits.max:
        raise Refused(f"has a zero point outside {dtype}; convert the model again")
    return tuple(values.tolist())


def _data(file: Container, table: Table, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any] | None:
    """The constant as a read-only view of the file."""
    stored = file.constant(table)
    if stored is None:
        return None if math.prod(shape) else np.empty(shape, dtype)
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if stored.size != expected:
        raise Unfit(f"has {stored.size} bytes of data where {expected} follow from {dtype}{list(shape)}")
    return stored.view(dtype).reshape(shape)
