"""The random models run in TFLite, are read, can be made again, and are as nasty as they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pilite.compiler import tflite
from pilite.compiler.graph import ABSENT, Conv2D, Graph
from tests import one_op, oracle
from tests.graphs import assert_consistent


@pytest.mark.parametrize(("op", "dtype"), one_op.ROWS)
def test_random_models_are_read_and_run_in_tflite(op: str, dtype: str) -> None:
    for seed in range(12):
        case = one_op.seeded(op, dtype, seed)
        graph = tflite.parse(case.model, case.name)
        assert_consistent(graph)
        for y, result in zip(graph.outputs, oracle.tflite_ref(case.model, case.inputs), strict=True):
            expected = graph.tensors[y]
            assert (result.shape, result.dtype) == (expected.shape, np.dtype(expected.dtype)), case.name


@pytest.mark.parametrize(("op", "dtype"), one_op.ROWS)
def test_a_number_always_makes_the_same_model_and_inputs(op: str, dtype: str) -> None:
    first, again, other = (one_op.seeded(op, dtype, seed) for seed in (5, 5, 6))
    assert first.model == again.model != other.model
    for a, b in zip(first.inputs, again.inputs, strict=True):
        np.testing.assert_array_equal(a, b)


def graphs(op: str, dtype: str, count: int = 250) -> list[Graph]:
    return [tflite.parse(one_op.seeded(op, dtype, seed).model, "m") for seed in range(count)]


def multipliers(graph: Graph) -> list[float]:
    """Input scale times weight scale over output scale."""
    (node,) = graph.nodes
    x, w, y = (graph.tensors[i].quant for i in (*node.inputs[:2], node.outputs[0]))
    assert x is not None
    assert w is not None
    assert y is not None
    return [x.scale * scale / y.scale for scale in w.scales]


@pytest.mark.parametrize("dtype", one_op.DTYPES)
def test_convolutions_include_the_hard_cases(dtype: str) -> None:
    found: set[str] = set()
    for graph in graphs("CONV_2D", dtype):
        (node,) = graph.nodes
        x, w = (graph.tensors[i] for i in node.inputs[:2])
        o = node.options
        assert isinstance(o, Conv2D)
        assert w.data is not None
        found |= {o.padding, o.activation, f"stride {max(o.stride)}", f"dilation {max(o.dilation)}"}
        found |= {
            name
            for name, seen in {
                "left shift": max(multipliers(graph)) >= 1,
                "ties": all(math.frexp(m)[0] == 0.5 for m in multipliers(graph)),
                "window larger than image": w.shape[1] > x.shape[1],
                "one pixel": x.shape[1:3] == (1, 1),
                "batch": x.shape[0] > 1,
                "ends of the range": {w.data.min(), w.data.max()}
                == {np.iinfo(dtype).min, np.iinfo(dtype).max},
                "per channel": w.quant is not None and w.quant.per_axis,
            }.items()
            if seen
        }
    expected = (
        "SAME,VALID,NONE,RELU,RELU6,RELU_N1_TO_1,stride 1,stride 2,stride 3,dilation 1,dilation 2,dilation 3"
    )
    names = {*expected.split(","), "left shift", "ties", "window larger than image", "one pixel", "batch"}
    assert found == names | {"ends of the range"} | ({"per channel"} if dtype == "int8" else set())


def test_outputs_vary_and_seldom_saturate() -> None:
    """A kernel can only be caught by values between the ends of the range."""
    for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD"):
        flat = 0
        for seed in range(100):
            case = one_op.seeded(op, "uint8", seed)
            (result,) = oracle.tflite_ref(case.model, case.inputs)
            flat += result.size > 8 and len(np.unique(result)) <= 2
        assert flat < 25, op


def test_a_missing_bias_occurs_where_tflite_allows_it() -> None:
    without = {
        op: sum(ABSENT in graph.nodes[0].inputs for graph in graphs(op, "int8", count=60))
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    }
    assert without["CONV_2D"] == 0
    assert min(without["DEPTHWISE_CONV_2D"], without["FULLY_CONNECTED"]) > 0
