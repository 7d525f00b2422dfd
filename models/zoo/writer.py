"""Writes .tflite files: typed tensors and operators in, bytes out; the same input gives the same bytes.

    x = TensorSpec("x", (1, 4), "int8", (0.1,), (3,))
    y = TensorSpec("y", (1, 4), "int8", (1 / 256,), (-128,))
    data = write([x, y], [OpSpec("SOFTMAX", (0,), (1,), Softmax(beta=1.0))], inputs=[0], outputs=[1])

An operator carries an option record of pilite's graph. Operands that the graph turned into options (the axes
of a MEAN, the borders of a PAD, the new shape of a RESHAPE) become constant int32 tensors behind the given
ones, unless the operator already lists more operands than its data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

from pilite.compiler import detection, flatbuffer, schema
from pilite.compiler.graph import ArgMax, Detection, Mean, NoOptions, Options, Pad, Resize

NO_OPTIONS = NoOptions()
Field = tuple[int, str, Any]  # one entry of a table: slot, kind ("offset" or flatbuffers' name), value


@dataclass(frozen=True, eq=False)
class TensorSpec:
    """One tensor. No `scales`: not quantized; several: one per index of `axis`. With `data`: a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: Sequence[float] = ()
    zero_points: Sequence[int] = ()  # left out: zero for every scale
    axis: int = 0
    data: npt.NDArray[Any] | None = field(default=None, repr=False)
    signature: tuple[int, ...] = ()  # the shape with -1 for each dynamic dimension
    is_variable: bool = False


@dataclass(frozen=True)
class OpSpec:
    """One operator over tensor indices; an operand that is left out is -1. `op` may be "CUSTOM:<name>"."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options = NO_OPTIONS
    version: int | None = None  # None: what TFLite's converter writes for this operator and dtype
    intermediates: tuple[int, ...] = ()  # tensors whose quantization says how an LSTM rounds inside


def write(
    tensors: Sequence[TensorSpec],
    ops: Sequence[OpSpec],
    inputs: Sequence[int],
    outputs: Sequence[int],
    description: str = "",
) -> bytes:
    """The .tflite file with one subgraph. Raises ValueError when a constant does not fit its tensor."""
    tensors, ops = _with_operands(list(tensors), ops)
    versions = [op.version or _version(op, tensors) for op in ops]
    codes = sorted(set(zip((op.op for op in ops), versions, strict=True)))
    code_of = [codes.index((op.op, version)) for op, version in zip(ops, versions, strict=True)]
    b = flatbuffers.Builder(1024)
    buffers = [_table(b), *(_buffer(b, t) for t in tensors if t.data is not None)]
    numbers = iter(range(1, len(buffers)))
    tables = [_tensor(b, t, 0 if t.data is None else next(numbers)) for t in tensors]
    operators = [_operator(b, op, code, tensors) for op, code in zip(ops, code_of, strict=True)]
    g = schema.SubGraph
    subgraph = _table(
        b,
        (g.tensors, "offset", _tables(b, tables)),
        (g.inputs, "offset", _numbers(b, inputs, "int32")),
        (g.outputs, "offset", _numbers(b, outputs, "int32")),
        (g.operators, "offset", _tables(b, operators)),
        (g.name, "offset", b.CreateString("main")),
    )
    m = schema.Model
    model = _table(
        b,
        (m.version, "Uint32", schema.VERSION),
        (m.operator_codes, "offset", _tables(b, [_operator_code(b, *code) for code in codes])),
        (m.subgraphs, "offset", _tables(b, [subgraph])),
        (m.description, "offset", b.CreateString(description)),
        (m.buffers, "offset", _tables(b, buffers)),
    )
    b.Finish(model, schema.IDENTIFIER)
    return bytes(b.Output())


def with_outputs(model: bytes, outputs: Sequence[int]) -> bytes:
    """The same .tflite with these tensors as the outputs of its graph, in this order.

    This is how intermediate values are observed: TFLite's `experimental_preserve_all_tensors` shows the value
    of a later operator where that one computes in place. The new list goes to the end of the file, nothing
    else moves. Raises ValueError (flatbuffer.Damaged) when `model` is no .tflite with a graph.
    """
    subgraphs = flatbuffer.root(model).tables(schema.Model.subgraphs)
    pointer = subgraphs[0].locate(schema.SubGraph.outputs, 4) if subgraphs else None
    if pointer is None:
        raise ValueError("the model has no graph with a list of outputs")
    data = bytearray(model + bytes(-len(model) % 4))
    struct.pack_into("<I", data, pointer, len(data) - pointer)
    return bytes(data) + struct.pack(f"<I{len(outputs)}i", len(outputs), *outputs)


# Operands that follow from options and shapes.


def _with_operands(tensors: list[TensorSpec], ops: Sequence[OpSpec]) -> tuple[list[TensorSpec], list[OpSpec]]:
    complete = []
    for op in ops:
        constants = OPERANDS[op.op](op, tensors) if op.op in OPERANDS and len(op.inputs) == 1 else []
        added = range(len(tensors), len(tensors) + len(constants))
        tensors = tensors + constants
        complete.append(replace(op, inputs=(*op.inputs, *added)))
    return tensors, complete


def _axes(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    assert isinstance(op.options, Mean)
    return [_constant(tensors[op.outputs[0]].name + "/axes", op.options.axes)]


def _borders(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    assert isinstance(op.options, Pad)
    name = tensors[op.outputs[0]].name + "/borders"
    return [_constant(name, list(zip(op.options.before, op.options.after, strict=True)))]


def _borders_and_value(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    assert isinstance(op.options, Pad)
    y = tensors[op.outputs[0]]
    value = np.array([op.options.value], y.dtype)
    border = replace(y, name=y.name + "/value", shape=(1,), data=value, signature=())
    return [*_borders(op, tensors), border]


def _new_shape(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    y = tensors[op.outputs[0]]
    return [_constant(y.name + "/shape", y.shape)]


def _new_axis(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    x, y = tensors[op.inputs[0]], tensors[op.outputs[0]]
    return [_constant(y.name + "/axis", _ones_between(y.shape, x.shape)[0])]


def _class_axis(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    assert isinstance(op.options, ArgMax)
    return [_constant(tensors[op.outputs[0]].name + "/axis", op.options.axis)]


def _new_size(op: OpSpec, tensors: Sequence[TensorSpec]) -> list[TensorSpec]:
    assert isinstance(op.options, Resize)
    return [_constant(tensors[op.outputs[0]].name + "/size", op.options.size)]


OPERANDS: dict[str, Callable[[OpSpec, Sequence[TensorSpec]], list[TensorSpec]]] = {
    "ARG_MAX": _class_axis,
    "EXPAND_DIMS": _new_axis,
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"), _axes),
    "PAD": _borders,
    "PADV2": _borders_and_value,
    "RESHAPE": _new_shape,
    "RESIZE_BILINEAR": _new_size,
}


def _constant(name: str, values: object) -> TensorSpec:
    data = np.array(values, np.int32)
    return TensorSpec(name, data.shape, "int32", data=data)


def _ones_between(larger: tuple[int, ...], smaller: tuple[int, ...]) -> list[int]:
    """The dimensions of size 1 that make `larger` out of `smaller`, e.g. (1, 1, 5) and (1, 5): [1]."""
    ones, rest = [], list(smaller)
    for i, size in enumerate(larger):
        if rest[:1] == [size]:
            rest.pop(0)
        else:
            ones.append(i)
    if rest or any(larger[i] != 1 for i in ones):
        raise ValueError(f"{larger} is not {smaller} with more dimensions of size 1")
    return ones


# What the converter writes for int8, so that a runtime which is too old refuses the file; otherwise 1.
INT8_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "L2_NORMALIZATION": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "REDUCE_MAX": 2,
    "REDUCE_MIN": 2,
    "SUM": 2,
    "PAD": 2,
    "PADV2": 2,
    "SOFTMAX": 2,
}


def _version(op: OpSpec, tensors: Sequence[TensorSpec]) -> int:
    """A TRANSPOSE_CONV with bias is the third one; its first operand is a shape."""
    if op.op == "TRANSPOSE_CONV":
        return len(op.inputs) - 1
    return INT8_VERSIONS.get(op.op, 1) if tensors[op.inputs[0]].dtype == "int8" else 1


# Tables of the file. Children come before their parents, because a flatbuffer is written back to front.


def _operator(b: Any, op: OpSpec, code: int, tensors: Sequence[TensorSpec]) -> int:
    o = schema.Operator
    known = schema.OPERATORS.get(op.op)
    fields: list[Field] = [
        (o.opcode_index, "Uint32", code),
        (o.inputs, "offset", _numbers(b, op.inputs, "int32")),
        (o.outputs, "offset", _numbers(b, op.outputs, "int32")),
    ]
    if isinstance(op.options, Detection):
        options = b.CreateByteVector(detection.stored(op.options))
        fields.append((o.custom_options, "offset", options))
    elif known is not None:
        options = _table(b, *_option_fields(known, op.options), *_option_vectors(b, op, tensors))
        fields += [
            (o.builtin_options_type, "Uint8", known.options_type),
            (o.builtin_options, "offset", options),
        ]
    if op.intermediates:
        fields.append((o.intermediates, "offset", _numbers(b, op.intermediates, "int32")))
    return _table(b, *fields)


def _option_fields(known: schema.OperatorSchema, options: Options) -> list[Field]:
    if known.fields and not isinstance(options, known.record):
        raise ValueError(f"options are a {type(options).__name__}, not a {known.record.__name__}")
    return [entry for f in known.fields for entry in STORE[f.kind](f.slots, getattr(options, f.attribute))]


STORE: dict[str, Callable[[tuple[int, ...], Any], list[Field]]] = {
    "padding": lambda slots, value: [(slots[0], "Int8", schema.PADDINGS.index(value))],
    "activation": lambda slots, value: [(slots[0], "Int8", schema.ACTIVATIONS.index(value))],
    "number": lambda slots, value: [(slots[0], "Int32", value)],
    "pair": lambda slots, value: [(slot, "Int32", v) for slot, v in zip(slots, value, strict=True)],
    "dtype": lambda slots, value: [(slots[0], "Int8", code)] if (code := schema.DTYPES.index(value)) else [],
    "mode": lambda slots, value: [(slots[0], "Int8", value)],
    "flag": lambda slots, value: [(slots[0], "Bool", value)],
    "on": lambda slots, value: [] if value else [(slots[0], "Bool", value)],
    "real": lambda slots, value: [(slots[0], "Float32", value)],
}


def _option_vectors(b: Any, op: OpSpec, tensors: Sequence[TensorSpec]) -> list[Field]:
    x, y = tensors[op.inputs[0]], tensors[op.outputs[0]]
    if op.op == "RESHAPE":
        return [(schema.ReshapeOptions.new_shape, "offset", _numbers(b, y.shape, "int32"))]
    if op.op == "SQUEEZE":
        dims = _ones_between(x.shape, y.shape)
        return [(schema.SqueezeOptions.squeeze_dims, "offset", _numbers(b, dims, "int32"))]
    return []


def _operator_code(b: Any, op: str, version: int) -> int:
    c = schema.OperatorCode
    kind, _, custom = op.partition(":")
    code = schema.CUSTOM if custom else schema.OPERATORS[kind].code
    fields: list[Field] = [
        (c.deprecated_builtin_code, "Int8", min(code, schema.LAST_ONE_BYTE_CODE)),
        (c.version, "Int32", version),
        (c.builtin_code, "Int32", code),
    ]
    if custom:
        fields.append((c.custom_code, "offset", b.CreateString(custom)))
    return _table(b, *fields)


def _tensor(b: Any, t: TensorSpec, buffer: int) -> int:
    s = schema.Tensor
    fields: list[Field] = [
        (s.shape, "offset", _numbers(b, t.shape, "int32")),
        (s.type, "Int8", schema.DTYPES.index(t.dtype)),
        (s.buffer, "Uint32", buffer),
        (s.name, "offset", b.CreateString(t.name)),
        (s.is_variable, "Bool", t.is_variable),
    ]
    if t.scales:
        fields.append((s.quantization, "offset", _quantization(b, t)))
    if t.signature:
        fields.append((s.shape_signature, "offset", _numbers(b, t.signature, "int32")))
    return _table(b, *fields)


def _quantization(b: Any, t: TensorSpec) -> int:
    q = schema.Quantization
    zero_points = t.zero_points or [0] * len(t.scales)
    return _table(
        b,
        (q.scale, "offset", _numbers(b, t.scales, "float32")),
        (q.zero_point, "offset", _numbers(b, zero_points, "int64")),
        (q.quantized_dimension, "Int32", t.axis),
    )


def _buffer(b: Any, t: TensorSpec) -> int:
    assert t.data is not None
    if t.data.shape != t.shape or t.data.dtype != t.dtype:
        raise ValueError(f"{t.name} is {t.dtype}{t.shape}, its data {t.data.dtype}{t.data.shape}")
    b.Prep(16, t.data.nbytes)  # the schema's alignment, so that kernels may load constants as vectors
    return _table(b, (schema.Buffer.data, "offset", b.CreateByteVector(t.data.tobytes())))


def _table(b: Any, *fields: Field) -> int:
    b.StartObject(max((slot for slot, _, _ in fields), default=-1) + 1)
    for slot, kind, value in fields:
        if kind == "offset":
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            getattr(b, f"Prepend{kind}Slot")(slot, value, None)
    return int(b.EndObject())


def _tables(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _numbers(b: Any, values: Sequence[float], dtype: str) -> int:
    return int(b.CreateNumpyVector(np.array(values, dtype)))
