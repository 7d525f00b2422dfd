"""The tables of a .tflite file: is it one, and do all indices between its tables exist?

What a table says is read later, and only where the graph uses it; here nothing is judged but the structure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pilite.compiler import flatbuffer, schema
from pilite.compiler.flatbuffer import Damaged, Table
from pilite.compiler.graph import ABSENT


class Foreign(ValueError):
    """The file is something else than a .tflite; the text says what, and what to do."""


@dataclass(frozen=True)
class Operator:
    """One operator as the file has it; all tensor indices exist."""

    index: int
    op: str  # TFLite's name, or "CUSTOM:<name>"
    version: int
    inputs: tuple[int, ...]  # or ABSENT
    outputs: tuple[int, ...]
    options_type: int
    options: Table | None
    intermediates: tuple[int, ...] = ()
    custom: bytes = b""  # options of a custom operator

    def __str__(self) -> str:
        return f"#{self.index} {self.op}"


@dataclass(frozen=True)
class Container:
    """The first graph of a file."""

    data: bytes
    buffers: list[Table]
    tensors: list[Table]
    operators: list[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    graphs: int  # how many the file has

    def constant(self, tensor: Table) -> npt.NDArray[np.uint8] | None:
        """The stored bytes of a tensor; None when it has none."""
        number = tensor.number(schema.Tensor.buffer, "uint32")
        if number >= len(self.buffers):
            raise Damaged(f"a tensor refers to buffer {number} of {len(self.buffers)}")
        buffer = self.buffers[number]
        stored = buffer.numbers(schema.Buffer.data, "uint8")
        if stored is None:
            stored = self._behind_the_tables(buffer)
        return None if stored is None or stored.size == 0 else stored

    def _behind_the_tables(self, buffer: Table) -> npt.NDArray[np.uint8] | None:
        """Files above 2 GB keep constants behind the flatbuffer; offsets 0 and 1 mean that there are none."""
        start = buffer.number(schema.Buffer.offset, "uint64")
        size = buffer.number(schema.Buffer.size, "uint64")
        if start <= 1:
            return None
        if start + size > len(self.data):
            raise Damaged(f"a buffer of {size} bytes at byte {start} does not fit the file")
        return np.frombuffer(self.data, np.uint8, size, start)


# First bytes of what people take for a .tflite, and what they have.
FOREIGN = (
    (b"PK\x03\x04", "a zip archive; unpack it and give the .tflite inside"),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the .tflite inside"),
    (b"\x89HDF", "an HDF5 file of Keras; convert it to .tflite first"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the model with `git lfs pull`"),
    (b"<", "a web page; download the model itself"),
    (b"\x08", "a protocol buffer, perhaps ONNX; convert the model to .tflite first"),
    (b"", "something else; give a model that TensorFlow Lite's converter wrote"),
)


def read(data: bytes) -> Container:
    """Open a file. Raises Foreign and flatbuffer.Damaged."""
    if data[4:8] != schema.IDENTIFIER:
        kind = next(text for start, text in FOREIGN if data.startswith(start)) if data else "empty"
        raise Foreign(f"is no .tflite file (no TFL3 at byte 4) but {kind}")
    model = flatbuffer.root(data)
    version = model.number(schema.Model.version, "uint32")
    graphs = model.tables(schema.Model.subgraphs)
    if version != schema.VERSION or not graphs:
        raise Damaged(f"schema version {version} (must be {schema.VERSION}), {len(graphs)} graphs")
    codes = [_operator_code(table) for table in model.tables(schema.Model.operator_codes)]
    tensors = graphs[0].tables(schema.SubGraph.tensors)
    operators = graphs[0].tables(schema.SubGraph.operators)
    return Container(
        data,
        model.tables(schema.Model.buffers),
        tensors,
        [_operator(i, table, codes, len(tensors)) for i, table in enumerate(operators)],
        _indices(graphs[0], schema.SubGraph.inputs, range(len(tensors)), "the graph's inputs"),
        _indices(graphs[0], schema.SubGraph.outputs, range(len(tensors)), "the graph's outputs"),
        len(graphs),
    )


def _operator(index: int, table: Table, codes: list[tuple[str, int]], tensors: int) -> Operator:
    code = table.number(schema.Operator.opcode_index, "uint32")
    if code >= len(codes):
        raise Damaged(f"operator #{index} refers to operator code {code} of {len(codes)}")
    name, version = codes[code]
    where = f"operator #{index} {name}"
    return Operator(
        index,
        name,
        version,
        _indices(table, schema.Operator.inputs, range(ABSENT, tensors), f"{where}: operands"),
        _indices(table, schema.Operator.outputs, range(tensors), f"{where}: outputs"),
        table.number(schema.Operator.builtin_options_type, "uint8"),
        table.table(schema.Operator.builtin_options),
        _indices(table, schema.Operator.intermediates, range(tensors), f"{where}: intermediate values"),
        _bytes(table, schema.Operator.custom_options),
    )


def _bytes(table: Table, slot: int) -> bytes:
    stored = table.numbers(slot, "uint8")
    return b"" if stored is None else stored.tobytes()


def _operator_code(table: Table) -> tuple[str, int]:
    return _operator_name(table), table.number(schema.OperatorCode.version, "int32", 1)


def _operator_name(table: Table) -> str:
    """Old files have one byte for the code, new ones four; the larger one holds (TFLite's own rule)."""
    old = table.number(schema.OperatorCode.deprecated_builtin_code, "int8")
    code = max(old, table.number(schema.OperatorCode.builtin_code, "int32"))
    if code == schema.CUSTOM:
        name = table.text(schema.OperatorCode.custom_code)
        return "CUSTOM:" + "".join(c if c.isprintable() else "?" for c in name[:64])
    return NAMES.get(code) or schema.operator_name(code)


NAMES = {known.code: name for name, known in schema.OPERATORS.items() if known.code != schema.CUSTOM}


def _indices(table: Table, slot: int, allowed: range, what: str) -> tuple[int, ...]:
    stored = table.numbers(slot, "int32")
    numbers = () if stored is None else tuple(int(i) for i in stored.tolist())
    wrong = next((i for i in numbers if i not in allowed), None)
    if wrong is not None:
        raise Damaged(f"{what} name tensor {wrong}, but the graph has {allowed.stop} tensors")
    return numbers
