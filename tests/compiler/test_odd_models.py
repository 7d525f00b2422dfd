"""What converters and editors make of a file: odd and right, or one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import tflite
from pilite.compiler.graph import Add, TransposeConv
from pilite.errors import ModelError
from tests.batch import Array, check_bits
from tests.draw import OneOp
from tests.mutate import generated
from tests.native import HERE
from tests.refusals import reason
from tests.small import CONV, DENSE, DEPTHWISE, bias, edited, integers, one, residual, value, weights

Change = Callable[[Any], None]  # of the object form of a file


def first(file: Any) -> Any:
    return file.subgraphs[0]


def renamed(name: str) -> Change:
    def change(file: Any) -> None:
        for tensor in first(file).tensors:
            tensor.name = name

    return change


def signed(file: Any) -> None:
    """Signatures with names that no shell would like, and with no tensors."""
    signature, map_ = generated().SignatureDefT(), generated().TensorMapT()
    signature.signatureKey, map_.name = "serving default/\u221a \n", "in:0 " * 50
    signature.inputs, signature.outputs = [map_], []
    file.signatureDefs = [signature, deepcopy(signature)]


def described(file: Any) -> None:
    data = generated().MetadataT()
    data.name, data.buffer = "TFLITE_METADATA", 1
    file.metadata, file.description = [data], "x" * 100_000


def unused(file: Any) -> None:
    tensor = deepcopy(first(file).tensors[1])
    tensor.type, tensor.shape, tensor.name = 1, [0], "half"
    first(file).tensors.append(tensor)
    file.buffers.append(generated().BufferT())


def observed(file: Any) -> None:
    """Values in the middle are outputs, too, in another order."""
    first(file).outputs = [7, 11, 5, 10, 9]


def ranged(file: Any) -> None:
    for tensor in first(file).tensors:
        if tensor.quantization is not None:
            tensor.quantization.min, tensor.quantization.max = [0.0], [1.0]


def first_versions(file: Any) -> None:
    for code in file.operatorCodes:
        code.version = 1


def free_batch(file: Any) -> None:
    first(file).tensors[6].shapeSignature = [-1, 1, 1, 3]


ACCEPTED: dict[str, Change] = {
    "names that are empty": renamed(""),
    "names that are the same, on two lines": renamed("same\nname \x1b[31m"),
    "signatures": signed,
    "metadata": described,
    "tensors and buffers without use": unused,
    "values in the middle as outputs": observed,
    "ranges": ranged,
    "first versions": first_versions,
    "free batch": free_batch,
}


@pytest.mark.slow
def test_what_is_odd_and_right_gives_the_bits_of_tflite() -> None:
    rng = np.random.default_rng(1)
    inputs: list[Array] = [
        rng.standard_normal((1, 6, 6, 3)).astype(np.float32),
        rng.integers(0, 256, (1, 1, 1, 3)).astype(np.uint8),
    ]
    changed = {name: edited(residual(), change) for name, change in ACCEPTED.items()}

    check_bits([OneOp(name, model, inputs) for name, model in changed.items()], HERE)


@pytest.mark.slow
def test_two_constants_may_share_a_buffer_and_two_operands_a_tensor() -> None:
    data = np.arange(-4, 4, dtype=np.int8).reshape(1, 8)
    a, b = (value(1, 8, name=name, data=data) for name in "ab")
    tensors = [value(1, 8), a, replace(b, scales=(0.3,)), value(1, 8, name="y"), value(1, 8, name="z")]
    ops = [OpSpec("ADD", (0, 1), (3,), Add("NONE")), OpSpec("ADD", (3, 2), (4,), Add("NONE"))]
    ops += [OpSpec("ADD", (4, 4), (5,), Add("RELU"))]
    model = write([*tensors, value(1, 8, name="sum", scale=0.4)], ops, [0], [5, 3])

    def shared(file: Any) -> None:
        first(file).tensors[2].buffer = first(file).tensors[1].buffer

    check_bits([OneOp("shared", edited(model, shared), [data])], HERE)


def set_(name: str, new: Any) -> Change:
    return lambda file: setattr(first(file), name, new)


def twice(file: Any) -> None:
    file.subgraphs.append(deepcopy(first(file)))


def custom(file: Any) -> None:
    code = file.operatorCodes[first(file).operators[2].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 32
    code.customCode = "FlexConv2D"


def no_batch(file: Any) -> None:
    first(file).tensors[6].shape = [0, 1, 1, 3]


def zero_scale(file: Any) -> None:
    quant = first(file).tensors[3].quantization
    quant.scale, quant.zeroPoint = [0.1, 0.0, 0.1], [0, 0, 0]


def free_sizes(file: Any) -> None:
    first(file).tensors[6].shapeSignature = [-1, -1, 1, 3]


REFUSED: dict[str, tuple[Change, str]] = {
    "two graphs": (twice, "the file has 2 graphs (control flow or several signatures); export one"),
    "no outputs": (
        set_("outputs", []),
        "the graph has no outputs; name what it computes and convert the model again",
    ),
    "an input as output": (
        set_("outputs", [11, 6]),
        "graph output 6 'skip' is an input, a constant or listed twice; remove it",
    ),
    "an output twice": (
        set_("outputs", [11, 11]),
        "graph output 11 'y' is an input, a constant or listed twice; remove it",
    ),
    "custom operator": (
        custom,
        "unsupported operators: CUSTOM:FlexConv2D (#2); `python3 run.py ops` lists the supported ones",
    ),
    "no values": (
        no_batch,
        "operator #3 ADD: tensor 6 'skip' has the shape [0, 1, 1, 3]: empty or above 2 GB; "
        "convert the model again",
    ),
    "scale 0 of a channel": (
        zero_scale,
        "operator #2 CONV_2D: tensor 3 'w' has a scale that is no positive number; convert the model again",
    ),
    "free sizes": (
        free_sizes,
        "graph input 6 'skip' has the dynamic shape [-1, -1, 1, 3]; give its sizes, as in "
        "`--input-shape skip=1,1,1,3`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compiled_says_why_in_one_line(case: str) -> None:
    change, text = REFUSED[case]

    assert reason(edited(residual(), change)) == text


def test_a_float_model_says_how_to_convert_it() -> None:
    tensors = [TensorSpec(name, (4,), "float32") for name in "xy"]
    model = write(tensors, [OpSpec("RELU", (0,), (1,))], [0], [1])

    assert "full-integer quantization" in reason(model)
    assert len(reason(model).splitlines()) == 1


def test_the_model_itself_is_right() -> None:
    assert len(tflite.parse(residual(), "m").nodes) == 8


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1, 1, 4), (2, 2)])
@pytest.mark.parametrize("op", ["CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"])
def test_a_bias_of_any_shape_that_tflite_takes_is_a_vector(op: str, shape: tuple[int, ...]) -> None:
    """Each operator counts its values; DEPTHWISE_CONV_2D demands one dimension. XNNPACK takes no other."""
    model = biased(op, shape)
    graph = tflite.parse(model, "m")
    data = np.random.default_rng(5).integers(-128, 128, graph.tensors[graph.inputs[0]].shape)

    check_bits([OneOp(op, model, [data.astype(np.int8)])], HERE)
    assert "its bias 'b' has not one dimension, so LiteRT leaves it" in refused(model, "xnnpack")
    assert "its bias has shape [1, 3], but there are 3 output channels" in refused(
        biased("DEPTHWISE", (1, 3))
    )


def biased(op: str, shape: tuple[int, ...]) -> bytes:
    data = np.arange(100, 100 * np.prod(shape) + 1, 100, np.int32).reshape(shape)
    b = replace(bias(data.size), shape=shape, data=data)
    if op == "FULLY_CONNECTED":
        return one(op, [value(2, 5), weights(4, 5), b], value(2, 4, name="y"), DENSE)
    x, w, y = value(1, 5, 5, 3), weights(4, 3, 3, 3), value(1, 5, 5, 4, name="y")
    if op == "CONV_2D":
        return one(op, [x, w, b], y, CONV)
    if op == "TRANSPOSE_CONV":
        return one(op, [integers(1, 5, 5, 4), w, x, b], y, TransposeConv("SAME", (1, 1), "NONE"))
    return one("DEPTHWISE_CONV_2D", [x, weights(1, 3, 3, 3), b], replace(x, name="y"), DEPTHWISE)


def refused(model: bytes, numerics: str = "ref") -> str:
    with pytest.raises(ModelError) as found:
        tflite.parse(model, "m", numerics)
    return str(found.value)
