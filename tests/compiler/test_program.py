"""The lowered model: bytes are written before they are read, borders are where kernels look, views share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pilite.compiler import lower, tflite
from pilite.compiler.layout import Halo
from pilite.compiler.numerics import Numerics
from pilite.compiler.program import (
    ARENA,
    IO,
    WEIGHTS,
    Program,
    Stage,
    Value,
    signed,
    signed_zero_point,
    storage,
)
from pilite.compiler.schedule import layout
from pilite.compiler.spec import Fill, Move, QConv2D, QDepthwiseConv2D, Spec, Table
from tests.draw import OneOp
from tests.few_ops import GRAPHS, made, pad_with_a_value, random_case
from tests.nets import Net, Window
from tests.one_op import DTYPES

Mask = npt.NDArray[np.bool_]


def program(case: OneOp) -> Program:
    return lower.lower(tflite.parse(case.model, case.name), Numerics())


# --- who has written what -------------------------------------------------------------------------------


class Written:
    """Which elements of every buffer, borders included, hold something."""

    def __init__(self, p: Program) -> None:
        self._program = p
        own = [v for v in p.values if v.root == v.index]
        self._of_root = {v.index: np.full(layout(v).outer, self._is_full(v)) for v in own}

    def _is_full(self, v: Value) -> bool:
        return v.place == WEIGHTS or v.index in self._program.inputs

    def mask(self, index: int) -> Mask:
        """A view on the buffer, in the value's own shape."""
        v = self._program.values[index]
        return self._of_root[v.root] if v.root == index else self._of_root[v.root].reshape(v.shape)

    def around(self, index: int, halo: Halo) -> Mask:
        """The interior with `halo` around it."""
        v = self._program.values[index]
        if not v.halo:
            assert not halo, f"{v} has no border, and a kernel reads one"
            return self.mask(index)
        _, h, w, _ = v.shape
        top, left = v.halo.top - halo.top, v.halo.left - halo.left
        assert min(top, left, v.halo.bottom - halo.bottom, v.halo.right - halo.right) >= 0
        rows = slice(top, v.halo.top + h + halo.bottom)
        return self.mask(index)[:, rows, left : v.halo.left + w + halo.right]

    def write(self, stage: Stage) -> None:
        interior = self.around(stage.output, Halo())
        if isinstance(stage.spec, Move):
            shape = self._program.values[stage.inputs[0]].shape
            interior[tuple(slice(a, a + n) for a, n in zip(stage.spec.at, shape, strict=True))] = True
        elif isinstance(stage.spec, Fill) and not stage.spec.whole:
            inside = interior.copy()
            self.mask(stage.output)[...] = True
            interior[...] = inside
        else:
            interior[...] = True


def faults(p: Program) -> Iterator[str]:
    """Reads of elements that nobody has written."""
    written = Written(p)
    for position, stage in enumerate(p.stages):
        for index, halo in zip(stage.inputs, stage.halos, strict=True):
            if not written.around(index, halo).all():
                yield f"stage {position} {stage.spec} reads value {index} before it is whole"
        written.write(stage)
    for index in p.outputs:
        if not written.mask(index).all():
            yield f"output {index} is not whole"


CASES = [
    *(made(graph, dtype, 0) for graph in GRAPHS for dtype in DTYPES),
    *(random_case(dtype, seed) for dtype in DTYPES for seed in range(100, 120)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_element_is_written_before_it_is_read(case: OneOp) -> None:
    assert list(faults(program(case))) == []


def without(p: Program, kind: type) -> Program:
    """`p` with its first stage of this kind left out."""
    gone = next(stage for stage in p.stages if isinstance(stage.spec, kind))
    return Program(p.values, tuple(s for s in p.stages if s is not gone), p.inputs, p.outputs)


@pytest.mark.parametrize("kind", [Fill, Move, QConv2D])
def test_a_stage_that_is_missing_is_noticed(kind: type) -> None:
    """Negative control of the test above."""
    assert list(faults(without(program(made(GRAPHS[0], "int8", 0)), kind)))


# --- borders --------------------------------------------------------------------------------------------


def readers(p: Program) -> list[Stage]:
    return [stage for stage in p.stages if isinstance(stage.spec, QConv2D | QDepthwiseConv2D)]


def two_readers(net: Net) -> list[int]:
    x = net.pool(net.input(1, 6, 6, 2), "MAX")
    return [net.conv(x, 3), net.depthwise(x, (5, 5)), net.conv(x, 3, (3, 3), Window(padding="VALID"))]


def test_a_value_has_the_largest_border_that_a_reader_asks_for() -> None:
    p = program(made(two_readers, "int8", 0))
    value = p.values[readers(p)[0].inputs[0]]

    assert value.halo == Halo(2, 2, 2, 2)
    assert {stage.inputs for stage in readers(p)} == {(value.index,)}


def writers(p: Program) -> list[Spec]:
    """What writes the value that the first convolution reads."""
    value = readers(p)[0].inputs[0]
    return [stage.spec for stage in p.stages if stage.output == value]


def test_a_border_is_filled_once() -> None:
    p = program(made(two_readers, "uint8", 0))
    border = p.values[readers(p)[0].inputs[0]].border

    assert [spec for spec in writers(p) if isinstance(spec, Fill)] == [Fill(border, whole=False)]


def test_a_value_that_is_filled_as_a_whole_gets_its_border_afterwards() -> None:
    """PADV2 before a padded convolution: two different values around the image."""
    p = program(made(pad_with_a_value, "int8", 0))
    border = p.values[readers(p)[0].inputs[0]].border

    assert writers(p)[:2] == [Fill(100, whole=True), Fill(border, whole=False)]
    assert border != 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_border_holds_the_zero_point_in_the_int8_domain(dtype: str) -> None:
    case = made(two_readers, dtype, 0)
    graph = tflite.parse(case.model, case.name)
    p = program(case)
    pooled = graph.tensors[graph.nodes[0].outputs[0]]

    assert p.values[readers(p)[0].inputs[0]].border == signed_zero_point(pooled)


def test_a_view_with_a_padded_reader_gets_one_copy_for_all_of_them() -> None:
    def graph(net: Net) -> list[int]:
        x = net.reshape(net.dense(net.input(1, 12), 36), 1, 6, 6, 1)
        return [net.conv(x, 3), net.conv(x, 3, (5, 5))]

    p = program(made(graph, "int8", 0))
    copies = [stage for stage in p.stages if isinstance(stage.spec, Move) and stage.node >= 0]

    assert len(copies) == 1
    assert p.values[copies[0].output].halo == Halo(2, 2, 2, 2)
    assert {stage.inputs for stage in readers(p)[1:]} == {(copies[0].output,)}


def test_values_without_padded_readers_have_no_border_and_no_fill() -> None:
    p = program(
        made(lambda net: [net.conv(net.conv(net.input(1, 4, 4, 3), 5, (1, 1)), 5, (1, 1))], "int8", 0)
    )

    assert not any(v.halo for v in p.values)
    assert not any(isinstance(stage.spec, Fill) for stage in p.stages)


@pytest.mark.parametrize("case", CASES[::7], ids=lambda case: case.name)
def test_only_buffers_of_the_arena_have_borders(case: OneOp) -> None:
    p = program(case)
    viewed = {v.root for v in p.values if v.root != v.index}

    assert all(v.place == ARENA and v.index not in viewed and v.root == v.index for v in p.values if v.halo)


# --- values ---------------------------------------------------------------------------------------------


def test_reshapes_move_no_bytes() -> None:
    def graph(net: Net) -> list[int]:
        return [net.dense(net.reshape(net.reshape(net.input(1, 4, 6), 24), 2, 12), 5)]

    p = program(made(graph, "int8", 0))
    (dense,) = readers(p)
    kinds = [type(stage.spec) for stage in p.stages]

    assert kinds == [Move, QConv2D, Move]  # in, compute, out
    assert p.values[dense.inputs[0]].root == p.stages[0].output


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "kinds"),
    [
        pytest.param("int8", 1 / 16, 3, [Move, Move], id="equal: a view"),
        pytest.param("int8", 1 / 16, 4, [Move, Table, Move], id="another zero point: a table"),
        pytest.param("uint8", 1 / 8, 3, [Move, Table, Move], id="another scale: a table"),
    ],
)
def test_requantization_is_a_view_or_a_table(
    dtype: str, scale: float, zero_point: int, kinds: list[type]
) -> None:
    def graph(net: Net) -> list[int]:
        return [net.requantize(net.input(1, 5, zero_point=3), scale, zero_point)]

    assert [type(stage.spec) for stage in program(made(graph, dtype, 0)).stages] == kinds


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_are_in_the_models_dtype_and_everything_between_in_int8(dtype: str) -> None:
    p = program(made(GRAPHS[0], dtype, 0))
    flips = [stage.spec.flip for stage in p.stages if isinstance(stage.spec, Move) and stage.node < 0]

    assert {p.values[i].dtype for i in (*p.inputs, *p.outputs)} == {dtype}
    assert {v.dtype for v in p.values if v.place == ARENA} == {"int8"}
    assert flips == [dtype == "uint8"] * 2
    assert {v.index for v in p.values if v.place == IO} == {*p.inputs, *p.outputs}


@pytest.mark.parametrize(("dtype", "stored"), [("uint8", "int8"), ("int8", "int8"), ("float32", "float32")])
def test_eight_bit_values_are_stored_signed(dtype: str, stored: str) -> None:
    assert storage(dtype) == stored


def test_constants_move_with_their_type() -> None:
    every: npt.NDArray[Any] = np.arange(256, dtype=np.uint8)

    np.testing.assert_array_equal(signed(every), np.arange(-128, 128))
    assert signed(every).dtype == np.int8
    np.testing.assert_array_equal(signed(np.arange(-5, 5, dtype=np.int8)), np.arange(-5, 5))
