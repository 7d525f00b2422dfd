"""Mutated models: files that stay readable flatbuffers and say something else, by number.

    data = mutated(seeded("CONV_2D", "int8", 17).model, 5)

`damage.py` breaks bytes; here the object form of a file changes in one to three places, as wrong converters
and hostile hands change it: indices, shapes, buffers, quantization, dtypes, versions, options, order.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from types import ModuleType
from typing import Any, TypeVar

import flatbuffers
import numpy as np
import pytest

from pilite.compiler import schema

T = TypeVar("T")
Rng = np.random.Generator

SIZES = (-(2**31), -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 255, 65_536, 2**31 - 1)
REALS = (0.0, -1.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-9, 2.0**-8, 2.0**-7, 0.5, 1.0, 1e4, 1e30, np.inf, np.nan)
TRIES = 1_000
# What cannot be packed again is no file: a number that its field cannot hold, options that are gone.
NOT_A_FILE = (struct.error, TypeError, AttributeError, ValueError, IndexError, OverflowError)


def mutated(model: bytes, seed: int) -> bytes:
    """The file with one to three of the mutations below, none of which may keep it as it was."""
    rng = np.random.default_rng(seed)
    plain = packed(opened(model))
    for _ in range(TRIES):
        file = opened(model)
        try:
            for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
                pick(rng, MUTATIONS)(file, rng)
            result = packed(file)
        except NOT_A_FILE:
            continue
        if result != plain:
            return result
    raise ValueError(f"{TRIES} mutations of this file are no files")


@functools.cache
def generated() -> ModuleType:
    module: ModuleType = pytest.importorskip("ai_edge_litert.schema_py_generated")
    return module


def opened(model: bytes) -> Any:
    """The object form of a file."""
    return generated().ModelT.InitFromObj(generated().Model.GetRootAs(model, 0))


def packed(file: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), schema.IDENTIFIER)
    return bytes(builder.Output())


def pick(rng: Rng, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def _graph(file: Any) -> Any:
    return file.subgraphs[0]


def _tensor(file: Any, rng: Rng) -> Any:
    return pick(rng, _graph(file).tensors)


def _operator(file: Any, rng: Rng) -> Any:
    return pick(rng, _graph(file).operators)


def _changed(values: Any, rng: Rng, new: Callable[[Any], Any]) -> list[Any]:
    """One value of a list is replaced, left out, or put there twice."""
    items = list(values)
    place = int(rng.integers(len(items)))
    if chance(rng, 0.7):
        items[place] = new(items[place])
    elif chance(rng, 0.5):
        del items[place]
    else:
        items.insert(place, items[place])
    return items


# Indices and order.


def _operand(file: Any, rng: Rng) -> None:
    count, owner = len(_graph(file).tensors), pick(rng, (_operator(file, rng), _graph(file)))
    name = pick(rng, ("inputs", "outputs"))
    setattr(owner, name, _changed(getattr(owner, name), rng, lambda old: int(rng.integers(-2, count + 1))))


def _order(file: Any, rng: Rng) -> None:
    operators = _graph(file).operators
    first, second = (int(rng.integers(len(operators))) for _ in range(2))
    operators[first], operators[second] = operators[second], operators[first]
    if chance(rng, 0.5):
        operators.append(deepcopy(operators[first]))


def _gone(file: Any, rng: Rng) -> None:
    """An operator, a tensor, a buffer or a code is left out, so that what is behind it moves."""
    owner, name = pick(rng, ((_graph(file), "operators"), (_graph(file), "tensors"), (file, "buffers")))
    items = getattr(owner, name)
    del items[int(rng.integers(len(items)))]


def _more(file: Any, rng: Rng) -> None:
    """Something is there twice: harmless where nothing refers to it."""
    owners = (_graph(file), "tensors"), (_graph(file), "operators"), (file, "buffers"), (file, "subgraphs")
    owner, name = pick(rng, (*owners, (file, "operatorCodes")))
    items = getattr(owner, name)
    items.insert(int(rng.integers(len(items) + 1)), deepcopy(pick(rng, items)))


# Shapes, dtypes, data.


def _shape(file: Any, rng: Rng) -> None:
    tensor = _tensor(file, rng)
    tensor.shape = _changed(tensor.shape, rng, lambda old: _size(rng, old))
    if chance(rng, 0.2):
        tensor.shapeSignature = _changed(tensor.shape, rng, lambda old: -1)


def _size(rng: Rng, old: int) -> int:
    return pick(rng, (*SIZES, int(old) + 1, int(old) - 1, 2 * int(old)))


def _same_everywhere(file: Any, rng: Rng) -> None:
    """A size changes wherever it occurs, which is often another model that is right."""
    old = int(pick(rng, _tensor(file, rng).shape))
    new = pick(rng, (0, 1, 2, 3, 4, 6, 9, 31, -1))
    for tensor in _graph(file).tensors:
        tensor.shape = [new if size == old else size for size in tensor.shape]


def _dtype(file: Any, rng: Rng) -> None:
    _tensor(file, rng).type = int(rng.integers(-1, 20))


def _buffer(file: Any, rng: Rng) -> None:
    _tensor(file, rng).buffer = int(rng.integers(0, len(file.buffers) + 2))


def _data(file: Any, rng: Rng) -> None:
    """Other bytes; other numbers of 32 bits; too few, too many or none."""
    buffer = pick(rng, [b for b in file.buffers if b.data is not None and len(b.data)])
    data = np.array(buffer.data, np.uint8)
    words = data[: len(data) // 4 * 4].copy().view(np.int32)
    changes: tuple[Callable[[], Any], ...] = (
        lambda: rng.integers(0, 256, data.shape).astype(np.uint8),
        lambda: np.full_like(data, pick(rng, (0, 127, 128, 255))),
        lambda: np.array(_changed(words, rng, lambda old: _size(rng, old)), np.int32).view(np.uint8),
        lambda: data[: int(rng.integers(len(data)))],
        lambda: np.concatenate([data, data[: int(rng.integers(1, 9))]]),
    )
    buffer.data = pick(rng, changes)()


def _state(file: Any, rng: Rng) -> None:
    tensor = _tensor(file, rng)
    tensor.isVariable = not tensor.isVariable


# Quantization.


def _quantization(file: Any, rng: Rng) -> Any:
    return pick(rng, [t.quantization for t in _graph(file).tensors if t.quantization is not None])


def _scale(file: Any, rng: Rng) -> None:
    quant = _quantization(file, rng)
    factor = 2.0 ** float(pick(rng, (-30, -20, -8, -1, 1, 3, 8, 20, 30)))
    if chance(rng, 0.5):
        quant.scale = np.asarray(quant.scale, np.float32) * np.float32(factor)
    else:
        quant.scale = _changed(quant.scale, rng, lambda old: pick(rng, REALS))


def _zero_point(file: Any, rng: Rng) -> None:
    quant = _quantization(file, rng)
    ends = (-(2**40), -32_768, -129, -128, -1, 0, 1, 127, 128, 255, 256)
    quant.zeroPoint = _changed(quant.zeroPoint, rng, lambda old: pick(rng, ends))


def _quantized(file: Any, rng: Rng) -> None:
    """As another tensor; along another axis; not at all; one scale for each of some channels."""
    tensor, other = _tensor(file, rng), _quantization(file, rng)
    count = int(rng.integers(1, 9))
    changes: tuple[Callable[[], Any], ...] = (
        lambda: vars(tensor).update(quantization=deepcopy(other)),
        lambda: vars(tensor).update(quantization=None),
        lambda: vars(other).update(quantizedDimension=int(rng.integers(-1, 5))),
        lambda: vars(other).update(scale=list(other.scale[:1]) * count, zeroPoint=[0] * count),
        lambda: vars(other).update({pick(rng, ("zeroPoint", "scale")): None}),
    )
    pick(rng, changes)()


# Versions, operators, options.


def _version(file: Any, rng: Rng) -> None:
    pick(rng, (*file.operatorCodes, file)).version = int(rng.integers(-1, 20))


def _code(file: Any, rng: Rng) -> None:
    """Another operator with these operands and options: mostly one that is known."""
    known = [row.code for row in schema.OPERATORS.values()]
    code = pick(rng, file.operatorCodes)
    number = pick(rng, known) if chance(rng, 0.8) else int(rng.integers(-1, 220))
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, schema.LAST_ONE_BYTE_CODE)
    if chance(rng, 0.3):
        _operator(file, rng).opcodeIndex = int(rng.integers(0, len(file.operatorCodes) + 1))


def _option(file: Any, rng: Rng) -> None:
    options = _operator(file, rng).builtinOptions
    name = pick(rng, sorted(vars(options)))
    old = getattr(options, name)
    new: Any = _size(rng, old) if isinstance(old, int) else pick(rng, REALS)
    setattr(options, name, bool(new) if isinstance(old, bool) else new)


def _small_option(file: Any, rng: Rng) -> None:
    """Modes, strides and windows that exist."""
    options = _operator(file, rng).builtinOptions
    setattr(options, pick(rng, sorted(vars(options))), int(rng.integers(0, 4)))


def _options(file: Any, rng: Rng) -> None:
    operator = _operator(file, rng)
    if operator.customOptions is not None and len(operator.customOptions):
        operator.customOptions = _changed(operator.customOptions, rng, lambda old: int(rng.integers(256)))
    elif chance(rng, 0.5):
        operator.builtinOptions, operator.builtinOptionsType = (
            None,
            pick(rng, (0, operator.builtinOptionsType)),
        )
    else:
        operator.builtinOptionsType = int(rng.integers(0, 130))


MUTATIONS: tuple[Callable[[Any, Rng], None], ...] = (
    _operand,
    _order,
    _gone,
    _more,
    _shape,
    _same_everywhere,
    _dtype,
    _buffer,
    _data,
    _data,
    _state,
    _scale,
    _scale,
    _zero_point,
    _quantized,
    _version,
    _code,
    _option,
    _small_option,
    _options,
)
