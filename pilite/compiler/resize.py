"""Other input shapes for a .tflite file, as TFLite's ResizeInputTensor gives them.

    data = resized(data, {"image": (1, 320, 320, 3)}, "m.tflite")

The shapes of all other values follow operator by operator. The result is an ordinary file of fixed shapes,
which every tool and every TFLite reads: new shapes stand behind the old bytes, and nothing else moves.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

from pilite.compiler import container, fold, schema, shapes, tflite
from pilite.compiler.container import Container, Foreign
from pilite.compiler.flatbuffer import Damaged
from pilite.compiler.graph import Graph
from pilite.compiler.operands import Mismatch, Refused
from pilite.compiler.tensors import quoted, read_tensors
from pilite.errors import ModelError

Shape = tuple[int, ...]
NEXT = "give another --input-shape, or convert the model with this shape"


def resized(data: bytes, wanted: Mapping[str, Shape], name: str) -> bytes:
    """The file with these shapes of its graph inputs, by their names. Raises ModelError.

    `name` stands for the file in messages. A dynamic dimension that no shape is given for stays as stored.
    """
    try:
        file = container.read(data)
        data = with_shapes(data, {**_fixed(file), **_inputs(file, wanted, name)})
        return with_shapes(data, _propagated(container.read(data), name))
    except Foreign as e:
        raise ModelError(f"{name} {e}") from None
    except Damaged as e:
        raise ModelError(f"{name}: the file is damaged: {e}; copy or convert the model again") from None


def with_shapes(data: bytes, changed: Mapping[int, Shape]) -> bytes:
    """The same file with these shapes of tensors, by index; what was dynamic about them is forgotten."""
    result = bytearray(data + bytes(-len(data) % 4))
    tensors = container.read(data).tensors
    for index, shape in changed.items():
        for slot in (schema.Tensor.shape, schema.Tensor.shape_signature):
            pointer = tensors[index].locate(slot, 4)
            if pointer is not None:
                struct.pack_into("<I", result, pointer, len(result) - pointer)
        result += struct.pack(f"<I{len(shape)}i", len(shape), *shape)
    return bytes(result)


def _fixed(file: Container) -> dict[int, Shape]:
    """Tensors that are stored with unknown sizes, as if these were 1, until their operator says more."""
    stored = {i: _stored(file, i) for i in range(len(file.tensors))}
    return {i: tuple(max(n, 1) for n in shape) for i, shape in stored.items() if min(shape, default=0) < 0}


def _stored(file: Container, index: int) -> Shape:
    numbers = file.tensors[index].numbers(schema.Tensor.shape, "int32")
    return () if numbers is None else tuple(int(n) for n in numbers.tolist())


def _inputs(file: Container, wanted: Mapping[str, Shape], name: str) -> dict[int, Shape]:
    """Raises ModelError for a name that is no input, or a shape of other dimensions."""
    known = {file.tensors[i].text(schema.Tensor.name): i for i in file.inputs}
    found = {}
    for text, shape in wanted.items():
        if text not in known:
            names = ", ".join(map(quoted, known))
            raise ModelError(f"{name}: --input-shape {text}=...: its inputs are {names}.")
        stored = _stored(file, known[text])
        if len(shape) != len(stored):
            raise ModelError(
                f"{name}: --input-shape {text}={_show(shape)} has {len(shape)} dimensions; "
                f"the input has {len(stored)}, as in {text}={_show([max(n, 1) for n in stored])}."
            )
        found[known[text]] = shape
    return found


def _show(shape: Shape | list[int]) -> str:
    return ",".join(map(str, shape))


def _propagated(file: Container, name: str) -> dict[int, Shape]:
    """The shapes of all values that operators compute. Raises ModelError."""
    tensors, faults = read_tensors(file)
    changed: dict[int, Shape] = {}
    for operator in file.operators:
        touched = {*operator.inputs, *operator.outputs}
        if operator.op not in schema.OPERATORS or touched & faults.keys():
            continue  # reading the result tells all of them
        try:
            node = tflite.read_node(file, operator, tensors, faults)
            graph = Graph(name, tensors, (node,), (), (), "")
            found = shapes.outputs(node, graph)
        except (Refused, Mismatch) as e:
            raise ModelError(f"{name}: with this input shape operator {operator}: {e}; {NEXT}.") from None
        new = dict(zip(operator.outputs, found, strict=False))
        changed |= new
        tensors = tuple(replace(t, shape=new[t.index]) if t.index in new else t for t in tensors)
        tensors = fold.folded(node, tensors) or tensors
    return changed
