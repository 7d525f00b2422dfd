"""The writer's files load in both runtimes, say what they were told, and are the same bytes every time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tflite

from models.zoo.writer import OpSpec, TensorSpec, with_outputs, write
from pilite.compiler.flatbuffer import Damaged
from pilite.compiler.graph import Concatenation, Conv2D, Mean, NoOptions, Pad, Softmax, View
from pilite.compiler.tflite import parse
from tests import oracle

X = TensorSpec("x", (1, 5, 5, 3), "int8", (0.1,), (3,))
WEIGHTS = np.arange(4 * 3 * 3 * 3, dtype=np.int8).reshape(4, 3, 3, 3)
W = TensorSpec("w", WEIGHTS.shape, "int8", (0.01, 0.02, 0.03, 0.04), data=WEIGHTS)
B = TensorSpec("b", (4,), "int32", (0.001, 0.002, 0.003, 0.004), data=np.arange(4, dtype=np.int32))
Y = TensorSpec("y", (1, 3, 3, 4), "int8", (0.5,), (-1,))
CONV = Conv2D("VALID", (1, 1), (1, 1), "RELU6")
IMAGE = np.arange(75, dtype=np.int8).reshape(X.shape)


def output(*shape: int) -> TensorSpec:
    return replace(X, name="y", shape=shape)


def conv_model() -> bytes:
    return write([X, W, B, Y], [OpSpec("CONV_2D", (0, 1, 2), (3,), CONV)], [0], [3], "two words")


ONE_OPERAND = {
    "reshape": (OpSpec("RESHAPE", (0,), (1,), View((3, 25))), output(3, 25)),
    "squeeze": (OpSpec("SQUEEZE", (0,), (1,), View((5, 5, 3))), output(5, 5, 3)),
    "expand_dims": (OpSpec("EXPAND_DIMS", (0,), (1,), View((1, 5, 1, 5, 3))), output(1, 5, 1, 5, 3)),
    "mean": (OpSpec("MEAN", (0,), (1,), Mean((1, 2), keep_dims=True)), output(1, 1, 1, 3)),
    "pad": (OpSpec("PAD", (0,), (1,), Pad((0, 1, 0, 0), (0, 0, 2, 0))), output(1, 6, 7, 3)),
    "padv2": (OpSpec("PADV2", (0,), (1,), Pad((0, 1, 0, 0), (0, 0, 2, 0), value=-5)), output(1, 6, 7, 3)),
    "concatenation": (OpSpec("CONCATENATION", (0, 0), (1,), Concatenation(1, "NONE")), output(1, 10, 5, 3)),
}


@pytest.mark.parametrize("run", [oracle.tflite_ref, oracle.litert_ref, oracle.litert_default])
@pytest.mark.parametrize("case", ONE_OPERAND)
def test_shapes_and_axes_become_operands_that_the_runtimes_accept(case: str, run: Any) -> None:
    op, y = ONE_OPERAND[case]
    model = write([X, y], [op], [0], [1])
    (result,) = run(model, [IMAGE] * len({*op.inputs}))
    assert result.shape == y.shape
    (node,) = parse(model, "m").nodes
    assert node.options == op.options


def test_an_operand_that_is_given_is_not_added_again() -> None:
    axes = TensorSpec("axes", (2,), "int32", data=np.array([-3, -2], np.int32))
    y = output(1, 1, 1, 3)
    model = write([X, axes, y], [OpSpec("MEAN", (0, 1), (2,), Mean((1, 2), keep_dims=True))], [0], [2])
    assert len(parse(model, "m").tensors) == 3


def test_generated_accessors_read_what_was_written() -> None:
    model = tflite.Model.GetRootAs(conv_model(), 0)
    graph = model.Subgraphs(0)
    options = tflite.Conv2DOptions()
    table = graph.Operators(0).BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    assert (model.Version(), model.Description()) == (3, b"two words")
    assert [graph.Tensors(i).Name() for i in range(4)] == [b"x", b"w", b"b", b"y"]
    assert (options.Padding(), options.StrideH(), options.DilationWFactor()) == (tflite.Padding.VALID, 1, 1)
    assert options.FusedActivationFunction() == tflite.ActivationFunctionType.RELU6
    assert (model.OperatorCodes(0).BuiltinCode(), model.OperatorCodes(0).Version()) == (3, 3)
    assert model.Buffers(1).DataAsNumpy().tobytes() == WEIGHTS.tobytes()
    np.testing.assert_array_equal(
        graph.Tensors(1).Quantization().ScaleAsNumpy(), np.array(W.scales, np.float32)
    )


def test_constants_are_aligned_for_vector_loads() -> None:
    data = conv_model()
    assert data.index(WEIGHTS.tobytes()) % 16 == 0


def test_the_same_model_gives_the_same_bytes() -> None:
    assert conv_model() == conv_model()


def test_a_constant_of_another_shape_is_refused() -> None:
    wrong = replace(W, data=WEIGHTS[:2])
    with pytest.raises(ValueError, match=r"w is int8\(4, 3, 3, 3\), its data int8\(2, 3, 3, 3\)"):
        write([X, wrong, B, Y], [OpSpec("CONV_2D", (0, 1, 2), (3,), CONV)], [0], [3])


def test_options_of_another_operator_are_refused() -> None:
    with pytest.raises(ValueError, match="options are a Conv2D, not a Softmax"):
        write([X, Y], [OpSpec("SOFTMAX", (0,), (1,), CONV)], [0], [1])


def test_a_squeeze_that_drops_values_is_refused() -> None:
    with pytest.raises(ValueError, match="more dimensions of size 1"):
        write([X, output(5, 3)], [OpSpec("SQUEEZE", (0,), (1,))], [0], [1])


def two_steps() -> bytes:
    flat = output(1, 75)
    y = TensorSpec("p", (1, 75), "int8", (1 / 256,), (-128,))
    ops = [OpSpec("RESHAPE", (0,), (1,), NoOptions()), OpSpec("SOFTMAX", (1,), (2,), Softmax(1.0))]
    return write([X, flat, y], ops, [0], [2])


def test_every_value_of_a_model_can_become_an_output() -> None:
    exposed = with_outputs(two_steps(), [2, 1])
    (expected,) = oracle.tflite_ref(two_steps(), [IMAGE])
    result, flat = oracle.tflite_ref(exposed, [IMAGE])
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(flat, IMAGE.reshape(1, 75))
    assert parse(exposed, "m").outputs == (2, 1)


@pytest.mark.parametrize("size", [0, 7, 8, 60])
def test_outputs_of_a_damaged_file_are_not_replaced(size: int) -> None:
    with pytest.raises(Damaged):
        with_outputs(two_steps()[:size], [1])
