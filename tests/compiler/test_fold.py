"""Sizes that a model computes from shapes: folded when it is compiled, with the bits of TFLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.zoo.writer import NO_OPTIONS, OpSpec, TensorSpec, write
from pilite.compiler import fold, graph, resize, tflite
from pilite.errors import ModelError
from tests.batch import check_bits
from tests.compiler.test_resize import resized_by_tflite
from tests.compiler.test_xnnpack import litert
from tests.draw import Array, OneOp
from tests.native import HERE
from tests.nets import SUMS, Net
from tests.small import CONV, bias, integers, one, value, weights

Shape = tuple[int, ...]
FIRST_ONLY = graph.StridedSlice(shrink_axis_mask=1)


class Sizes(Net):
    """A net whose layers take sizes that operators compute."""

    def integers(self, shape: Shape) -> Array:
        """No weight of -128: numerics xnnpack refuses it."""
        return np.maximum(super().integers(shape), np.asarray(-127).astype(int)).astype(self.dtype)

    def number(self, *values: int, dtype: str = "int32") -> int:
        return self._tensor(
            TensorSpec(f"k{len(self.tensors)}", (len(values),), dtype, data=np.array(values, dtype))
        )

    def scalar(self, number: int) -> int:
        return self._tensor(TensorSpec(f"k{len(self.tensors)}", (), "int32", data=np.array(number, "int32")))

    def integer(
        self, op: str, operands: Sequence[int], shape: Shape, options: graph.Options = NO_OPTIONS
    ) -> int:
        return self._op(
            op, operands, self._tensor(TensorSpec(f"t{len(self.tensors)}", shape, "int32")), options
        )

    def sizes(self, x: int) -> int:
        return self.integer("SHAPE", (x,), (len(self.shape(x)),), graph.Shape("int32"))

    def size(self, x: int, axis: int) -> int:
        """One size of `x`, as converters write it."""
        ends = (self.number(axis), self.number(axis + 1), self.number(1))
        return self.integer("STRIDED_SLICE", (self.sizes(x), *ends), (), FIRST_ONLY)

    def packed(self, *parts: int) -> int:
        return self.integer("PACK", parts, (len(parts),), graph.Stack(0, len(parts)))

    def times(self, a: int, factor: int) -> int:
        return self.integer("MUL", (a, self.scalar(factor)), (), graph.Binary("NONE"))

    def shaped(self, x: int, sizes: int, *shape: int) -> int:
        return self._op("RESHAPE", (x, sizes), self._like(x, shape), graph.View())


def flattened(net: Sizes) -> int:
    """Keras's Reshape layer with an open batch."""
    x = net.conv(net.input(2, 4, 5, 3), 4)
    return net.dense(net.shaped(x, net.packed(net.size(x, 0), net.scalar(80)), 2, 80), 7)


def reshaped_with_a_rest(net: Sizes) -> int:
    x = net.conv(net.input(2, 4, 5, 3), 4)
    sizes = net.packed(net.size(x, 0), net.size(x, 2), net.scalar(-1))
    return net.dense(net.shaped(x, sizes, 2, 5, 16), 7)


def joined(net: Sizes) -> int:
    """SLICE, CONCATENATION, GATHER, TRANSPOSE and arithmetic on the way."""
    x = net.conv(net.input(2, 4, 6, 3), 4)
    sizes = net.sizes(x)
    first = net.integer("SLICE", (sizes, net.number(0), net.number(1)), (1,), graph.Slice((), ()))
    picked = net.integer("GATHER", (sizes, net.number(2, 1)), (2,), graph.Gather(0, 0))
    turned = net.integer("TRANSPOSE", (picked, net.number(0)), (2,), graph.Transpose(()))
    large = net.integer("MAXIMUM", (turned, net.number(1, 4)), (2,))
    less = net.integer("SUB", (large, net.number(0, 0)), (2,), graph.Add("NONE"))
    halves = net.integer("FLOOR_DIV", (less, net.number(1, 2)), (2,))
    rest = net.integer("NEG", (net.number(1),), (1,))
    new = net.integer("CONCATENATION", (first, halves, rest), (4,), graph.Concatenation(0, "NONE"))
    return net.conv(net.shaped(x, new, 2, 6, 2, 8), 5)


def enlarged(net: Sizes) -> int:
    """RESIZE_BILINEAR to twice the size of its input."""
    x = net.conv(net.input(1, 3, 4, 3), 4)
    sizes = net.packed(*(net.times(net.size(x, axis), 2) for axis in (1, 2)))
    return net._op("RESIZE_BILINEAR", (x, sizes), net._like(x, (1, 6, 8, 4)), graph.Resize(False, True))


def transposed(net: Sizes) -> int:
    """Keras's Conv2DTranspose: the output's shape is computed from the input's."""
    x = net.conv(net.input(2, 3, 4, 3), 4)
    high, wide = (net.times(net.size(x, axis), 2) for axis in (1, 2))
    sizes = net.packed(net.size(x, 0), high, wide, net.scalar(5))
    w = net._weights((5, 2, 2, 4), 0, 0.01, SUMS)
    y = net.value((2, 6, 8, 5), 0.1)
    operands = (sizes, w, x, net._bias(x, w, 5, 100))
    return net._op("TRANSPOSE_CONV", operands, y, graph.TransposeConv("VALID", (2, 2), "NONE"))


NETS: dict[str, Callable[[Sizes], int]] = {
    f.__name__: f for f in (flattened, reshaped_with_a_rest, joined, enlarged, transposed)
}


def made(name: str, dtype: str) -> OneOp:
    net = Sizes(dtype)
    return net.case(f"{name} {dtype}", NETS[name](net))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", NETS)
def test_computed_sizes_give_the_bits_of_tflite_and_no_operators(name: str, dtype: str) -> None:
    case = made(name, dtype)

    check_bits([case], HERE)
    left = {node.op for node in tflite.parse(case.model, name).nodes}
    assert not left & {"SHAPE", "STRIDED_SLICE", "PACK", "MUL", "SLICE", "GATHER", "NEG", "CONCATENATION"}


@pytest.mark.qemu
@pytest.mark.parametrize("runtime", ["litert@cortex-a72", "litert-1.4@cortex-a72"])
def test_xnnpack_still_takes_what_stands_around_them(runtime: str) -> None:
    names = ("flattened", "reshaped_with_a_rest", "joined")
    cases = [made(name, dtype) for name in names for dtype in ("int8", "uint8")]

    for case in cases:
        tflite.parse(case.model, case.name, "xnnpack")
    check_bits(cases, HERE, truth=litert(cases, runtime), numerics="xnnpack")


@pytest.mark.parametrize("name", ["enlarged", "transposed"])
def test_xnnpack_refuses_what_litert_leaves_to_a_builtin_kernel_because_of_them(name: str) -> None:
    with pytest.raises(ModelError, match="is computed by operators, so LiteRT leaves it to a builtin kernel"):
        tflite.parse(made(name, "int8").model, name, "xnnpack")


@pytest.mark.parametrize("name", ["flattened", "reshaped_with_a_rest", "joined", "transposed"])
def test_computed_sizes_follow_another_batch(name: str) -> None:
    case = made(name, "int8")
    parsed = tflite.parse(case.model, name)
    first = parsed.tensors[parsed.inputs[0]]
    shape = (5, *first.shape[1:])
    x = np.concatenate([case.inputs[0]] * 3)[:5]
    data = resize.resized(case.model, {first.name: shape}, name)

    def truth(model: bytes, inputs: Sequence[Array]) -> list[Array]:
        return resized_by_tflite(case.model, [shape], inputs)

    check_bits([OneOp(name, data, [x])], HERE, truth=truth)


A, B = np.array([[5, -3, 7], [-2, 4, 100]]), np.array([[2, 3, -4], [-5, 6, 7]])
TWO_STEPS = graph.StridedSlice(begin_mask=3, end_mask=3)
# What computes on constants: operator, operands, options, shape of an output, how many there are.
FOLDED: dict[str, tuple[str, Sequence[Any], graph.Options, Shape, int]] = {
    "ADD": ("ADD", (A, B), graph.Add("NONE"), (2, 3), 1),
    "CONCATENATION": ("CONCATENATION", (A, B), graph.Concatenation(1, "NONE"), (2, 6), 1),
    "EXPAND_DIMS": ("EXPAND_DIMS", (A, 1), graph.View(), (2, 1, 3), 1),
    "FLOOR_DIV": ("FLOOR_DIV", (A, B), NO_OPTIONS, (2, 3), 1),
    "GATHER": ("GATHER", (A, [2, 0]), graph.Gather(1, 0), (2, 2), 1),
    "MAXIMUM": ("MAXIMUM", (A, B), NO_OPTIONS, (2, 3), 1),
    "MINIMUM": ("MINIMUM", (A, B[:1]), NO_OPTIONS, (2, 3), 1),
    "MUL": ("MUL", (A * 2**29, B), graph.Binary("NONE"), (2, 3), 1),
    "NEG": ("NEG", (A,), NO_OPTIONS, (2, 3), 1),
    "PACK": ("PACK", (A, B), graph.Stack(1, 2), (2, 2, 3), 1),
    "REDUCE_MAX": ("REDUCE_MAX", (A, [1]), graph.Mean((), keep_dims=True), (2, 1), 1),
    "REDUCE_MIN": ("REDUCE_MIN", (A, [0]), graph.Mean((), keep_dims=False), (3,), 1),
    "RESHAPE": ("RESHAPE", (A, [3, 2]), graph.View(), (3, 2), 1),
    "SLICE": ("SLICE", (A, [0, 1], [2, -1]), graph.Slice((), ()), (2, 2), 1),
    "SPLIT": ("SPLIT", (1, A), graph.Split(3), (2, 1), 3),
    "SPLIT_V": ("SPLIT_V", (A, [1, 1], 0), graph.Split(2), (1, 3), 2),
    "SQUEEZE": ("SQUEEZE", (A[:, None],), graph.View(), (2, 3), 1),
    "STRIDED_SLICE": ("STRIDED_SLICE", (A, [0, 0], [0, 0], [-1, 2]), TWO_STEPS, (2, 2), 1),
    "SUB": ("SUB", (A, B), graph.Add("NONE"), (2, 3), 1),
    "SUM": ("SUM", (A, [0, 1]), graph.Mean((), keep_dims=False), (), 1),
    "TRANSPOSE": ("TRANSPOSE", (A, [1, 0]), graph.Transpose(()), (3, 2), 1),
    "UNPACK": ("UNPACK", (A,), graph.Stack(1, 3), (2,), 3),
}


@pytest.mark.parametrize("case", FOLDED)
def test_folded_values_are_what_tflite_computes(case: str) -> None:
    """They are multiplied by an input, so that there is something to compile."""
    op, operands, options, shape, count = FOLDED[case]
    tensors = [TensorSpec("x", shape, "int32"), *(integers(values) for values in operands)]
    tensors = [
        t if i == 0 else replace(t, data=np.array(operands[i - 1], "int32")) for i, t in enumerate(tensors)
    ]
    tensors = [t if t.data is None else replace(t, shape=t.data.shape) for t in tensors]
    given, made = tuple(range(1, len(tensors))), len(tensors)
    tensors += [TensorSpec(f"f{i}", shape, "int32") for i in range(count)]
    tensors += [TensorSpec(f"y{i}", shape, "int32") for i in range(count)]
    results = range(made + count, made + 2 * count)
    ops = [OpSpec(op, given, tuple(range(made, made + count)), options)]
    ops += [OpSpec("MUL", (0, y - count), (y,), graph.Binary("NONE")) for y in results]
    model = write(tensors, ops, [0], list(results))

    assert [node.op for node in tflite.parse(model, case).nodes] == ["MUL"] * count
    check_bits([OneOp(case, model, [np.full(shape, 3, np.int32)])], HERE)


def test_every_operator_that_is_folded_is_tried() -> None:
    assert {*FOLDED, "CAST", "SHAPE"} == set(fold.FOLDS)


def test_sizes_that_are_unpacked_are_folded() -> None:
    net = Sizes("int8")
    x = net.conv(net.input(2, 4, 5, 3), 4)
    parts = [net._tensor(TensorSpec(f"p{i}", (), "int32")) for i in range(4)]
    net.ops.append(OpSpec("UNPACK", (net.sizes(x),), tuple(parts), graph.Stack(0, 4)))
    y = net.shaped(x, net.packed(parts[0], parts[2], parts[1], parts[3]), 2, 5, 4, 4)

    check_bits([net.case("unpacked", net.dense(y, 3))], HERE)


def test_xnnpack_refuses_a_bias_that_operators_compute() -> None:
    """LiteRT leaves the convolution to a builtin kernel."""
    data = bias(4)
    stored, shape = replace(data, shape=(1, 4), data=np.arange(4, dtype=np.int32).reshape(1, 4)), integers(4)
    made = TensorSpec("b", (4,), "int32", data.scales, data.zero_points)
    tensors = [
        value(1, 5, 5, 3),
        weights(4, 3, 3, 3),
        stored,
        shape,
        made,
        value(1, 5, 5, 4, name="y", scale=0.5),
    ]
    ops = [OpSpec("RESHAPE", (2, 3), (4,), graph.View()), OpSpec("CONV_2D", (0, 1, 4), (5,), CONV)]
    model = write(tensors, ops, [0], [5])

    assert [node.op for node in tflite.parse(model, "m").nodes] == ["CONV_2D"]
    with pytest.raises(ModelError, match="its operand 'b' is computed by operators"):
        tflite.parse(model, "m", "xnnpack")


def test_parts_of_other_ranks_are_refused() -> None:
    tensors = [value(2, 6), integers(3, 4), TensorSpec("k", (), "int32", data=np.array(1, "int32"))]
    tensors += [TensorSpec("s", (3,), "int32"), value(12, name="y")]
    ops = [OpSpec("CONCATENATION", (1, 2), (3,), graph.Concatenation(0, "NONE"))]
    ops += [OpSpec("RESHAPE", (0, 3), (4,), graph.View())]

    with pytest.raises(ModelError, match=r"its operands have shapes \[2\] and \[\], joined along 0"):
        tflite.parse(write(tensors, ops, [0], [4]), "m")


def test_a_size_that_an_input_decides_is_refused() -> None:
    tensors = [value(2, 6), TensorSpec("sizes", (2,), "int32"), value(3, 4, name="y")]
    data = write(tensors, [OpSpec("RESHAPE", (0, 1), (2,), graph.View())], [0, 1], [2])

    with pytest.raises(ModelError, match="its new shape is computed at run time"):
        tflite.parse(data, "m")


@pytest.mark.parametrize("numerics", ["ref", "xnnpack"])
def test_a_shape_may_be_an_output_and_a_size(numerics: str) -> None:
    """Read at once, and through operators that are folded."""
    tensors = [value(2, 6), value(2, 6, name="z"), TensorSpec("s", (2,), "int32"), integers(1)]
    tensors += [TensorSpec("r", (1,), "int32"), integers(2), TensorSpec("p", (2,), "int32")]
    tensors += [value(2, 6, name="a"), value(6, 2, name="b")]
    ops = [OpSpec("RELU", (0,), (1,)), OpSpec("SHAPE", (1,), (2,), graph.Shape("int32"))]
    ops += [OpSpec("RESHAPE", (1, 2), (7,), graph.View())]
    ops += [OpSpec("GATHER", (2, 3), (4,), graph.Gather(0, 0))]
    ops += [OpSpec("CONCATENATION", (4, 5), (6,), graph.Concatenation(0, "NONE"))]
    ops += [OpSpec("RESHAPE", (1, 6), (8,), graph.View())]
    model = write(tensors, ops, [0], [2, 7, 8])
    x = np.arange(-6, 6, dtype=np.int8).reshape(2, 6)

    check_bits([OneOp("shape", model, [x])], HERE, numerics=numerics)


def test_integers_that_are_the_same_in_every_run_are_refused_as_an_output() -> None:
    data = one("NEG", [integers(1, 2)], TensorSpec("y", (2,), "int32"))

    with pytest.raises(ModelError, match="all its operands are constant"):
        tflite.parse(data, "m")


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_outside_is_refused_and_not_folded(index: int) -> None:
    tensors = [
        value(2, 6),
        integers(3, 4),
        integers(index),
        TensorSpec("s", (1,), "int32"),
        value(12, name="y"),
    ]
    ops = [OpSpec("GATHER", (1, 2), (3,), graph.Gather(0, 0)), OpSpec("RESHAPE", (0, 3), (4,), graph.View())]

    with pytest.raises(ModelError, match=r"its indices 'k' lie outside \[2\]"):
        tflite.parse(write(tensors, ops, [0], [4]), "m")


def test_a_division_by_zero_is_refused_and_not_folded() -> None:
    tensors = [value(2, 6), integers(3), integers(0), TensorSpec("s", (1,), "int32"), value(12, name="y")]
    ops = [OpSpec("FLOOR_DIV", (1, 2), (3,)), OpSpec("RESHAPE", (0, 3), (4,), graph.View())]

    with pytest.raises(ModelError, match="all its operands are constant"):
        tflite.parse(write(tensors, ops, [0], [4]), "m")
