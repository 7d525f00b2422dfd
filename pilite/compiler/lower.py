"""Graph -> Program: every operator becomes stages;
the model's ends are copied in and out of the int8 domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from pilite.compiler.graph import Graph, Tensor
from pilite.compiler.numerics import Numerics
from pilite.compiler.ops import OPS
from pilite.compiler.program import IO, Builder, Program, storage, with_borders
from pilite.compiler.spec import Move

Exceptions: TypeAlias = Mapping[int, Numerics]


def lower(graph: Graph, numerics: Numerics, exceptions: Exceptions = MappingProxyType({})) -> Program:
    """The program of a model that the importer accepted; `exceptions` by index of the operator."""
    b = Builder(graph, numerics)
    inputs = tuple(_input(b, i) for i in graph.inputs)
    for node in graph.nodes:
        b.node = node.index
        b.numerics = exceptions.get(node.index, numerics)
        OPS[node.op].lower(node, b)
    b.node = -1
    outputs = tuple(_output(b, i) for i in graph.outputs)
    return with_borders(Program(tuple(b.values), tuple(b.stages), inputs, outputs))


def _input(b: Builder, tensor: int) -> int:
    """The caller's buffer, copied to the arena: kernels may read a little past a value,
    never past the caller's.
    """
    t = b.tensor(tensor)
    io, flip = _end(b, t)
    b.emit(Move((0,) * len(t.shape), flip), (io,), b.value(tensor))
    return io


def _output(b: Builder, tensor: int) -> int:
    t = b.tensor(tensor)
    io, flip = _end(b, t)
    b.emit(Move((0,) * len(t.shape), flip), (b.value(tensor),), io)
    return io


def _end(b: Builder, t: Tensor) -> tuple[int, bool]:
    """The caller's buffer, and whether its bytes are uint8, which the program moves to int8."""
    flip = t.dtype == "uint8"
    return b.new(t.shape, t.dtype if flip else storage(t.dtype), place=IO), flip
