"""A .tflite becomes a typed, printable graph, or a message that says what to do; whatever its bytes are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import tflite
from pilite.compiler.graph import ABSENT, Add, DepthwiseConv2D, Mean, Softmax
from pilite.errors import ModelError
from tests.graphs import assert_as_generated_accessors_read, assert_consistent
from tests.small import DENSE, bias, edited, integers, micro_speech, one, residual, value, weights


def kernel_data(*shape: int) -> npt.NDArray[Any]:
    data = weights(*shape).data
    assert data is not None
    return data


def test_a_graph_prints_as_one_line_per_operator(golden: Callable[[str], None]) -> None:
    graphs = (tflite.parse(micro_speech(), "micro_speech"), tflite.parse(residual(), "residual"))
    golden("\n\n".join(map(str, graphs)) + "\n")


def test_constants_are_read_only_views_with_the_tensor_s_shape_and_dtype() -> None:
    graph = tflite.parse(micro_speech(), "m")
    kernel = graph.tensors[5]
    assert kernel.data is not None
    assert (kernel.data.shape, str(kernel.data.dtype)) == ((4, 240), "int8")
    assert not kernel.data.flags.writeable
    assert kernel.data.tolist() == kernel_data(4, 240).tolist()


def test_a_bias_that_is_left_out_is_absent_in_the_node() -> None:
    x, w, y = value(2, 6), weights(4, 6), value(2, 4)
    short = tflite.parse(one("FULLY_CONNECTED", [x, w], y, DENSE), "m")
    dashed = write([x, w, y], [OpSpec("FULLY_CONNECTED", (0, 1, ABSENT), (2,), DENSE)], [0], [2])
    assert short.nodes[0].inputs == tflite.parse(dashed, "m").nodes[0].inputs == (0, 1, ABSENT)


def test_the_depth_multiplier_follows_from_the_shapes_as_in_tflite_s_kernels() -> None:
    wrong = DepthwiseConv2D("SAME", (1, 1), (1, 1), multiplier=7, activation="NONE")
    operands = [value(1, 4, 4, 3), weights(1, 3, 3, 6), bias(6)]
    graph = tflite.parse(one("DEPTHWISE_CONV_2D", operands, value(1, 4, 4, 6), wrong), "m")
    assert graph.nodes[0].options == replace(wrong, multiplier=2)


def test_negative_axes_and_a_new_shape_with_one_unknown_are_resolved() -> None:
    mean = one("MEAN", [value(2, 3, 4), integers(-1, 1, -1)], value(2), Mean((), keep_dims=False))
    shape = one("RESHAPE", [value(2, 3, 4), integers(-1, 8)], value(3, 8))
    assert tflite.parse(mean, "m").nodes[0].options == Mean((1, 2), keep_dims=False)
    assert tflite.parse(shape, "m").nodes[0].inputs == (0,)


def test_a_free_batch_in_the_signature_is_the_batch_of_the_shape() -> None:
    x = replace(value(1, 10), signature=(-1, 10))
    graph = tflite.parse(one("SOFTMAX", [x], value(1, 10, scale=1 / 256, zero_point=-128), Softmax(1.0)), "m")
    assert graph.tensors[0].shape == (1, 10)


def test_constants_behind_the_tables_are_read() -> None:
    """How converters write files above 2 GB."""
    model = one("ADD", [value(4), weights(4)], value(4), Add("NONE"))
    data = kernel_data(4)

    def move(file: Any) -> None:
        file.buffers[1].data, file.buffers[1].offset, file.buffers[1].size = None, 4096, 4

    moved = edited(model, move).ljust(4096, b"\0") + data.tobytes()
    constant = tflite.parse(moved, "m").tensors[1].data
    assert constant is not None
    assert constant.tolist() == data.tolist()
    with pytest.raises(ModelError, match="a buffer of 4 bytes at byte 4096 does not fit the file"):
        tflite.parse(moved[:-1], "m")


def test_unused_tensors_may_be_anything() -> None:
    odd = TensorSpec("s", (), "string")
    model = write([value(4), value(2, 2), odd], [OpSpec("RESHAPE", (0,), (1,))], [0], [1])
    assert [t.index for t in tflite.parse(model, "m").tensors] == [0, 1, 2, 3]


def test_scales_of_float_and_bool_tensors_mean_nothing() -> None:
    spare = [TensorSpec(dtype, (2,), dtype, (0.5,), (1,)) for dtype in ("float32", "bool")]
    model = write([value(4), value(2, 2), *spare], [OpSpec("RESHAPE", (0,), (1,))], [0], [1])
    assert [t.quant for t in tflite.parse(model, "m").tensors[2:4]] == [None, None]


SUPPORTED = {  # model -> operators
    "deeplabv3_mnv2_dm05_pascal_quant": 72,
    "mlperf_tiny_ad01_int8": 10,
    "mlperf_tiny_kws_int8": 13,
    "mlperf_tiny_resnet8_int8": 16,
    "mlperf_tiny_vww_96_int8": 31,
    "mobilenet_v1_0.25_128_quant": 31,
    "mobilenet_v1_0.75_192_quant": 31,
    "mobilenet_v1_1.0_224_quant_embedding_extractor": 28,
    "mobilenet_v2_1.0_224_quant": 66,
    "movenet_single_pose_lightning_ptq": 157,
    "tf2_mobilenet_v2_1.0_224_ptq": 68,
    "tflm_micro_speech_quantized": 4,
    "tflm_trained_lstm_int8": 4,
}


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_real_model_of_supported_operators_is_read(name: str, shared_models: Path) -> None:
    graph = tflite.read(shared_models / f"{name}.tflite")
    assert len(graph.nodes) == SUPPORTED[name]
    assert_consistent(graph)
    assert_as_generated_accessors_read((shared_models / f"{name}.tflite").read_bytes(), graph)


def test_every_real_model_is_in_the_list(shared_models: Path) -> None:
    assert {path.stem for path in shared_models.glob("*.tflite")} == {*SUPPORTED}
