"""Options and constant operands that TFLite does not define, or that are no constants, are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler.graph import Add, Concatenation, Mean, Pad
from tests.refusals import edit, reason
from tests.small import CONV, DENSE, bias, edited, integers, one, value, weights

X, Y = value(4, 3), value(3, 4, name="y")
COMPUTED = TensorSpec("k", (2,), "int32")
BORDERS = integers([1, 0], [0, 1])


def pad_v2(border: TensorSpec) -> bytes:
    return one("PADV2", [X, BORDERS, border], value(5, 4, name="y"), Pad((), (), 0))


OPTIONS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "shape computed": (
        "RESHAPE",
        lambda: one("RESHAPE", [X, COMPUTED], Y),
        "its new shape is computed at run time; only constants, and what the model computes from shapes "
        "alone, can be compiled: convert the model with a fixed one",
    ),
    "shape that does not fit": (
        "RESHAPE",
        lambda: one("RESHAPE", [X, integers(2, -1)], Y),
        "its output has shape [3, 4] where [2, 6] follows from its operands; convert the model again",
    ),
    "axes of float": (
        "MEAN",
        lambda: one("MEAN", [X, integers(1, dtype="float32")], value(4), Mean((1,), keep_dims=False)),
        "its axes is float32 instead of int32; convert the model again",
    ),
    "axis outside": (
        "MEAN",
        lambda: one("MEAN", [X, integers(2)], value(4), Mean((1,), keep_dims=False)),
        "axis 2 is outside a tensor of 2 dimensions; convert the model again",
    ),
    "concatenation outside": (
        "CONCATENATION",
        lambda: one("CONCATENATION", [X], X, Concatenation(-3, "NONE")),
        "axis -3 is outside a tensor of 2 dimensions; convert the model again",
    ),
    "squeezed size": (
        "SQUEEZE",
        lambda: edited(
            one("SQUEEZE", [value(1, 4)], value(4)),
            lambda file: setattr(file.subgraphs[0].operators[0].builtinOptions, "squeezeDims", [1]),
        ),
        "it squeezes dimensions [1] of [1, 4], and not all of them are 1; convert the model again",
    ),
    "two new axes": (
        "EXPAND_DIMS",
        lambda: one("EXPAND_DIMS", [X, integers(0, 1)], value(1, 1, 4, 3)),
        "its axis has 2 entries instead of one; convert the model again",
    ),
    "borders": (
        "PAD",
        lambda: one("PAD", [X, integers([1, 0])], value(5, 3), Pad((), ())),
        "its paddings do not have two entries for each dimension of [4, 3]; convert the model again",
    ),
    "value of another scale": (
        "PADV2",
        lambda: pad_v2(weights(1, scale=0.5)),
        "the value it pads with is no constant of the output's dtype, scale and zero point; "
        "convert the model again",
    ),
    "value computed": (
        "PADV2",
        lambda: pad_v2(value(1)),
        "the value it pads with is no constant of the output's dtype, scale and zero point; "
        "convert the model again",
    ),
    "unknown activation": (
        "ADD",
        edit(
            lambda file: setattr(file.subgraphs[0].operators[0].builtinOptions, "fusedActivationFunction", 9)
        ),
        "activation number 9 is unknown to TFLite's schema; convert the model again",
    ),
    "shuffled weights": (
        "FULLY_CONNECTED",
        lambda: edited(
            one("FULLY_CONNECTED", [value(1, 4), weights(4, 4), bias(4)], value(1, 4), DENSE),
            lambda file: setattr(file.subgraphs[0].operators[0].builtinOptions, "weightsFormat", 1),
        ),
        "its weights are shuffled (SHUFFLED4x16INT8); convert the model with the default layout",
    ),
    "newer version": (
        "ADD",
        edit(lambda file: setattr(file.operatorCodes[0], "version", 6)),
        "its version 6 is unknown, the newest known is 5; convert the model with an older converter",
    ),
    "too few operands": (
        "CONV_2D",
        lambda: one("CONV_2D", [value(1, 4, 4, 3)], value(1, 4, 4, 3), CONV),
        "it has 1 operands and 1 outputs, which TFLite does not define; convert the model again",
    ),
    "no values": (
        "NEG",
        lambda: one("NEG", [integers()], TensorSpec("y", (1,), "int32")),
        "tensor 0 'k' has no values; convert the model again",
    ),
    "operand left out": (
        "ADD",
        lambda: write([value(4), value(4)], [OpSpec("ADD", (0, -1), (1,), Add("NONE"))], [0], [1]),
        "its operand 1 is missing; convert the model again",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_be_used_say_why(case: str) -> None:
    op, make, text = OPTIONS[case]
    assert reason(make()) == f"operator #0 {op}: {text}"
