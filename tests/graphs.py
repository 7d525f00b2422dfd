"""Is a graph sound in itself, and is it what an independent reader finds in the file?"""

from __future__ import annotations

import numpy as np
import tflite as generated

from pilite.compiler import checks, schema
from pilite.compiler.graph import ABSENT, Graph, Tensor


def assert_consistent(graph: Graph) -> None:
    """All indices exist, constants fit, operators are in order and obey the rules."""
    assert str(graph).count("\n") >= len(graph.nodes)
    assert [tensor.index for tensor in graph.tensors] == list(range(len(graph.tensors)))
    for tensor in graph.tensors:
        _assert_tensor(tensor)
    known = {*graph.inputs, *(t.index for t in graph.tensors if t.is_constant or t.is_variable), ABSENT}
    for node in graph.nodes:
        assert known.issuperset(node.inputs)
        assert known.isdisjoint(node.outputs)
        known.update(node.outputs)
        assert isinstance(node.options, schema.OPERATORS[node.op].record)
        assert checks.refusal(node, graph) is None
    assert {i for node in graph.nodes for i in node.outputs}.issuperset(graph.outputs)


def _assert_tensor(tensor: Tensor) -> None:
    assert all(size > 0 for size in tensor.shape) or tensor.is_constant  # a list of axes may be empty
    if tensor.data is not None:
        assert (tensor.data.shape, tensor.data.dtype) == (tensor.shape, np.dtype(tensor.dtype))
    if tensor.quant is not None:
        assert len(tensor.quant.scales) == len(tensor.quant.zero_points)
        assert all(0 < scale < np.inf for scale in tensor.quant.scales)
        assert not tensor.quant.per_axis or tensor.shape[tensor.quant.axis] == len(tensor.quant.scales)


def assert_as_generated_accessors_read(data: bytes, graph: Graph) -> None:
    """Everything that the operators touch is in the file as the code that flatbuffers generates reads it."""
    model = generated.Model.GetRootAs(data, 0)
    main = model.Subgraphs(0)
    assert tuple(main.InputsAsNumpy()) == graph.inputs
    assert tuple(main.OutputsAsNumpy()) == graph.outputs
    assert main.OperatorsLength() == len(graph.nodes)
    for node in graph.nodes:
        operator = main.Operators(node.index)
        given = tuple(operator.InputsAsNumpy())
        assert (*given, ABSENT)[: len(node.inputs)] == node.inputs
        for i in {*node.inputs, *node.outputs} - {ABSENT}:
            _assert_same_tensor(model, main.Tensors(i), graph.tensors[i])


def _assert_same_tensor(model: generated.Model, stored: generated.Tensor, tensor: Tensor) -> None:
    shape = stored.ShapeAsNumpy() if stored.ShapeLength() else ()
    assert tuple(shape) == tensor.shape
    assert schema.DTYPES[stored.Type()] == tensor.dtype
    quant = stored.Quantization()
    if tensor.quant is not None:
        assert tuple(quant.ScaleAsNumpy().tolist()) == tensor.quant.scales
        assert not quant.ZeroPointLength() or tuple(quant.ZeroPointAsNumpy()) == tensor.quant.zero_points
    constant = model.Buffers(stored.Buffer())
    if tensor.data is not None and constant.DataLength():
        assert constant.DataAsNumpy().tobytes() == tensor.data.tobytes()
