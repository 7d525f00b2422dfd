"""The zoo's architectures: as many channels, operators and multiplications as published."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from models.zoo import FAMILIES, mobilenet
from models.zoo.layers import Layer
from pilite.compiler import detection

CLASSIFIED = {"AVERAGE_POOL_2D": 1, "RESHAPE": 1, "SOFTMAX": 1}
DETECTED = {"RESHAPE": 13, "CONCATENATION": 2, "LOGISTIC": 1, detection.OP: 1}
INCEPTION_V4 = {
    **dict.fromkeys((0, 1, 2, 4, 6, 8, 9, 44, 45, 49, 54, 140), "CONV_2D"),
    **dict.fromkeys((3, 13, 52, 142), "MAX_POOL_2D"),
    **dict.fromkeys((15, 24, 57, 69, 81, 93, 105, 117, 129, 141, 149, 189, 191), "CONCATENATION"),
    **dict.fromkeys((16, 118, 178, 192), "AVERAGE_POOL_2D"),
    194: "SOFTMAX",
}


def test_v2_channels_are_multiples_of_eight_and_never_more_than_a_tenth_smaller() -> None:
    published = (32, 16, 24, 32, 64, 96, 160, 320)

    assert [mobilenet.v2_channels(c, 0.35) for c in published] == [16, 8, 8, 16, 24, 32, 56, 112]
    assert [mobilenet.v2_channels(c, 1.4) for c in published] == [48, 24, 32, 48, 88, 136, 224, 448]


def test_v1_channels_are_truncated_products() -> None:
    assert [mobilenet.v1_channels(c, 0.75) for c in (32, 64, 1024)] == [24, 48, 768]
    assert mobilenet.v1_channels(32, 0.7) == 22
    assert mobilenet.v1_channels(32, 0.1) == 8


def test_a_wide_v2_adds_its_residuals_where_the_shapes_allow_it() -> None:
    ops = [layer.op for layer in mobilenet.v2(1.4, 224, "uint8").layers]

    assert ops.count("ADD") == 10


@pytest.mark.parametrize("family", FAMILIES)
def test_multiplications_are_those_that_are_published(family: str) -> None:
    """To the digits of the source, or half a percent: some count additions of biases."""
    about = FAMILIES[family]
    published = float(about.gmacs)
    last_digit = 10.0 ** -len(about.gmacs.partition(".")[2])

    counted = about.build(1.0, about.published, "uint8").macs / 1e9
    assert abs(counted - published) <= max(0.5 * last_digit, 0.005 * published)


OPERATORS = {  # of the published quantized files, how many of each
    "inception_v1": {"CONV_2D": 58, "MAX_POOL_2D": 13, "CONCATENATION": 9} | CLASSIFIED,
    "inception_v2": {"CONV_2D": 70, "DEPTHWISE_CONV_2D": 1, "MAX_POOL_2D": 5, "CONCATENATION": 10}
    | CLASSIFIED
    | {"AVERAGE_POOL_2D": 8},
    "inception_v3": {"CONV_2D": 95, "MAX_POOL_2D": 4, "CONCATENATION": 15}
    | CLASSIFIED
    | {"AVERAGE_POOL_2D": 10},
    "inception_v4": {"CONV_2D": 149, "MAX_POOL_2D": 4, "AVERAGE_POOL_2D": 15, "CONCATENATION": 25}
    | {"FULLY_CONNECTED": 1, "SOFTMAX": 1},
    "efficientnet_lite0": {"CONV_2D": 33, "DEPTHWISE_CONV_2D": 16, "ADD": 9, "FULLY_CONNECTED": 1}
    | CLASSIFIED,
    "mobilenet_v3_large_minimalistic": {"CONV_2D": 33, "DEPTHWISE_CONV_2D": 15, "ADD": 10} | CLASSIFIED,
    "unet_mobilenet_v2": {"CONV_2D": 34, "DEPTHWISE_CONV_2D": 17, "ADD": 10, "TRANSPOSE_CONV": 5}
    | {"RELU": 4, "CONCATENATION": 4},
    "ssd_mobilenet_v1": {"CONV_2D": 34, "DEPTHWISE_CONV_2D": 13} | DETECTED,
    "ssd_mobilenet_v2": {"CONV_2D": 55, "DEPTHWISE_CONV_2D": 17, "ADD": 10} | DETECTED,
    "resnet_50": {"PAD": 1, "CONV_2D": 53, "MAX_POOL_2D": 1, "ADD": 16, "MEAN": 1, "FULLY_CONNECTED": 1}
    | {"SOFTMAX": 1},
}


@pytest.mark.parametrize("family", OPERATORS)
def test_every_operator_occurs_as_often_as_published(family: str) -> None:
    assert Counter(layer.op for layer in _layers(family)) == OPERATORS[family]


def test_operators_of_inception_v4_are_where_the_published_file_has_them() -> None:
    """By index, as the operators that halide/Halide cut out of it are named (apps/hannk/test)."""
    layers = _layers("inception_v4")

    assert len(layers) == 195
    assert {i: layers[i].op for i in INCEPTION_V4} == INCEPTION_V4


def _layers(family: str) -> tuple[Layer, ...]:
    about = FAMILIES[family]
    return about.build(1.0, about.published, "uint8").layers


@pytest.mark.parametrize("family", ["ssd_mobilenet_v1", "ssd_mobilenet_v2"])
def test_ssd_looks_at_1917_boxes_of_a_picture_of_300_pixels(family: str) -> None:
    layers = {layer.op: layer for layer in _layers(family)}
    last = layers[detection.OP]

    assert layers["LOGISTIC"].shape == (1, 1917, 91)
    assert len(set(last.anchors)) == len(last.anchors) == 1917
    assert (last.shape, *last.more) == ((1, 10, 4), (1, 10), (1, 10), (1,))


def test_anchors_of_ssd_are_those_of_its_paper() -> None:
    """Six of the finest image's boxes, and those of the coarsest, which has one pixel."""
    anchors = np.array(_layers("ssd_mobilenet_v1")[-1].anchors)

    np.testing.assert_allclose(anchors[:3, :2], 0.5 / 19)
    np.testing.assert_allclose(anchors[:3, 2:], [[0.1, 0.1], [0.1414, 0.2828], [0.2828, 0.1414]], atol=1e-4)
    np.testing.assert_allclose(anchors[3:6, 1], 1.5 / 19)
    assert np.all(anchors[-6:, :2] == 0.5)
    wide = [[0.95, 0.95], [0.6718, 1.3435], [1.3435, 0.6718], [0.5485, 1.6454], [1.6454, 0.5485]]
    np.testing.assert_allclose(anchors[-6:, 2:], [*wide, [0.9747, 0.9747]], atol=1e-4)


def test_an_int8_ssd_detects_by_real_values() -> None:
    *_, boxes, scores, last = FAMILIES["ssd_mobilenet_v2"].build(0.25, 96, "int8").layers

    assert [boxes.op, scores.op, last.op] == ["DEQUANTIZE", "DEQUANTIZE", detection.OP]
