"""The lowered model: values (buffers), stages (one kernel call each) and
the builder that operators write into.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pilite.compiler import delegation
from pilite.compiler.graph import Graph, Node, Tensor
from pilite.compiler.layout import NO_HALO, Halo
from pilite.compiler.numerics import Numerics
from pilite.compiler.spec import Arrays, Fill, Move, Spec

ARENA, WEIGHTS, IO = "arena", "weights", "io"
STATE = "state"  # in the arena, kept between runs, zero at first


@dataclass(frozen=True, eq=False)
class Value:
    """A buffer. `root` is another value whose bytes it shares (a view), or itself."""

    index: int
    shape: tuple[int, ...]
    dtype: str  # of the stored elements: int8 for both 8-bit types, except in io buffers
    place: str  # ARENA | STATE | WEIGHTS | IO
    root: int
    border: int = 0  # what a halo holds: the zero point
    halo: Halo = NO_HALO
    offset: int = 0  # of a view: elements of `root` before its first
    data: npt.NDArray[np.generic] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Stage:
    """One kernel call. `halos[i]` is the border that the kernel reads around `inputs[i]`."""

    node: int  # operator of the source model; -1 for the model's own ends
    spec: Spec
    inputs: tuple[int, ...]
    output: int
    arrays: Arrays
    halos: tuple[Halo, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Stages in order. `inputs` and `outputs` are the io values in the model's order."""

    values: tuple[Value, ...]
    stages: tuple[Stage, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Builder:
    """Collects values and stages while the graph is lowered, one operator at a time."""

    def __init__(self, graph: Graph, numerics: Numerics) -> None:
        self.graph = graph
        self.numerics = numerics
        self.node = -1
        self.values: list[Value] = []
        self.stages: list[Stage] = []
        self._of_tensor: dict[int, int] = {}

    def tensor(self, index: int) -> Tensor:
        return self.graph.tensors[index]

    def delegated(self, node: Node) -> bool:
        """Whether XNNPACK's formula is the promised one."""
        return self.numerics.is_xnnpack and delegation.taken(node, self.graph)

    def value(self, tensor: int) -> int:
        """The value of a tensor, made on first use."""
        if tensor not in self._of_tensor:
            t = self.tensor(tensor)
            self._of_tensor[tensor] = self.constant(t) if t.is_constant else self.new_for(t)
        return self._of_tensor[tensor]

    def new(self, shape: Sequence[int], dtype: str = "int8", *, place: str = ARENA, border: int = 0) -> int:
        index = len(self.values)
        self.values.append(Value(index, tuple(shape), dtype, place, index, border))
        return index

    def new_for(self, tensor: Tensor) -> int:
        border = 0 if tensor.quant is None else signed_zero_point(tensor)
        place = STATE if tensor.is_variable else ARENA
        return self.new(tensor.shape, storage(tensor.dtype), place=place, border=border)

    def constant(self, tensor: Tensor) -> int:
        assert tensor.data is not None
        data = signed(tensor.data)
        index = self.new(tensor.shape, str(data.dtype), place=WEIGHTS)
        self.values[index] = replace(self.values[index], data=data)
        return index

    def view(self, tensor: int, value: int, offset: int = 0) -> None:
        """`tensor` is `value`, from its element `offset` on, seen with another shape: no bytes move."""
        t, source = self.tensor(tensor), self.values[value]
        index = len(self.values)
        border = source.border if t.quant is None else signed_zero_point(t)
        seen = replace(source, index=index, shape=t.shape, border=border, halo=NO_HALO)
        self.values.append(replace(seen, offset=source.offset + offset))
        self._of_tensor[tensor] = index

    def reshaped(self, value: int, shape: Sequence[int]) -> int:
        """`value` seen as `shape`; the value itself where that is its shape."""
        source = self.values[value]
        if source.shape == tuple(shape):
            return value
        index = len(self.values)
        self.values.append(replace(source, index=index, shape=tuple(shape), halo=NO_HALO))
        return index

    def emit(
        self,
        spec: Spec,
        inputs: Sequence[int],
        output: int,
        arrays: Arrays | None = None,
        halo: Halo = NO_HALO,
    ) -> None:
        """One more stage; `halo` is what the kernel reads around its first input."""
        halos = tuple(halo if i == 0 else NO_HALO for i in range(len(inputs)))
        self.stages.append(Stage(self.node, spec, tuple(inputs), output, arrays or {}, halos))


def storage(dtype: str) -> str:
    """How a tensor's elements are kept between operators; a bool is 0 or 1."""
    return "int8" if dtype in ("uint8", "bool") else dtype


def signed(data: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """uint8 moved by -128 to int8, bool as 0 or 1; other types unchanged."""
    if data.dtype == np.bool_:
        return data.astype(np.int8)
    if data.dtype != np.uint8:
        return data
    return (data.astype(np.int16) - 128).astype(np.int8)


def signed_zero_point(tensor: Tensor) -> int:
    """The zero point in the int8 domain. ModelError was raised at the door if there is none."""
    assert tensor.quant is not None
    return tensor.quant.zero_point - (128 if tensor.dtype == "uint8" else 0)


# --- borders -------------------------------------------------------------------------------------------


def with_borders(program: Program) -> Program:
    """Give every value the halo its consumers read, and add the stages that fill it.

    A value that is a view, has views, or is not in the arena keeps no halo: its readers get a copy that does.
    """
    values = list(program.values)
    fixed = {v.root for v in values if v.root != v.index} | {v.index for v in values if v.place != ARENA}
    stages: list[Stage] = []
    copies: dict[int, int] = {}
    for stage in program.stages:
        inputs = list(stage.inputs)
        for position, halo in enumerate(stage.halos):
            source = values[inputs[position]]
            if halo and source.root in fixed:
                if source.index not in copies:
                    copies[source.index] = len(values)
                    place = len(values)
                    fresh = replace(source, index=place, root=place, place=ARENA, offset=0, data=None)
                    values.append(fresh)
                    stages.append(_copy(source, fresh, stage.node))
                inputs[position] = copies[source.index]
            if halo:
                target = values[inputs[position]]
                values[target.index] = replace(target, halo=target.halo | halo)
        stages.append(replace(stage, inputs=tuple(inputs)))
    return replace(program, values=tuple(values), stages=tuple(_with_fills(values, stages)))


def _copy(source: Value, target: Value, node: int) -> Stage:
    return Stage(node, Move((0,) * len(source.shape)), (source.index,), target.index, {}, (NO_HALO,))


def _with_fills(values: Sequence[Value], stages: Sequence[Stage]) -> list[Stage]:
    """A border is written right after the first elements of its value: a Fill of the whole covers it too."""
    result: list[Stage] = []
    filled: set[int] = set()
    for stage in stages:
        result.append(stage)
        target = values[stage.output]
        if target.halo and target.index not in filled:
            filled.add(target.index)
            result.append(Stage(stage.node, Fill(target.border, whole=False), (), target.index, {}, ()))
    return result
