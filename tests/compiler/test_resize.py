"""Other input shapes: what TFLite's own resizing gives, bit for bit, or one line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import resize, tflite
from pilite.compiler.graph import Mean
from pilite.errors import ModelError
from tests import oracle
from tests.batch import check_bits
from tests.draw import Array, OneOp
from tests.native import HERE
from tests.nets import Net, Window
from tests.small import integers, value

Shape = tuple[int, ...]


def resized_by_tflite(model: bytes, shapes: Sequence[Shape], inputs: Sequence[Array]) -> list[Array]:
    library = importlib.import_module(oracle.TFLITE if oracle._installed(oracle.TFLITE) else oracle.LITERT)
    kernels = library.OpResolverType.BUILTIN_REF
    interpreter = library.Interpreter(model_content=model, experimental_op_resolver_type=kernels)
    ends = interpreter.get_input_details()
    for end, shape in zip(ends, shapes, strict=True):
        interpreter.resize_tensor_input(end["index"], shape)
    interpreter.allocate_tensors()
    for end, array in zip(ends, inputs, strict=True):
        interpreter.set_tensor(end["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(end["index"]) for end in interpreter.get_output_details()]


def network(net: Net) -> int:
    """Convolutions, pools, a residual, a concatenation and a mean: any height, width and batch."""
    x = net.conv(net.input(1, 8, 8, 3), 8, (3, 3), Window(stride=(2, 2)))
    y = net.add(x, net.depthwise(x, (3, 3)))
    return net.mean(net.concatenation([y, net.conv(y, 4)]))


def made(build: Callable[[Net], int], dtype: str = "int8") -> OneOp:
    net = Net(dtype)
    return net.case("network", build(net))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (3, 8, 8, 3), (1, 13, 20, 3), (2, 1, 1, 3)])
def test_a_resized_model_gives_the_bits_of_tflite_resized(shape: Shape, dtype: str) -> None:
    case = made(network, dtype)
    name = tflite.parse(case.model, "m").tensors[tflite.parse(case.model, "m").inputs[0]].name
    data = resize.resized(case.model, {name: shape}, "m.tflite")
    limits = np.iinfo(dtype)
    x = np.random.default_rng(1).integers(limits.min, limits.max + 1, shape).astype(dtype)

    def truth(model: bytes, inputs: Sequence[Array]) -> list[Array]:
        return resized_by_tflite(case.model, [shape], inputs)

    check_bits([OneOp("resized", data, [x])], HERE, truth=truth)
    np.testing.assert_array_equal(oracle.tflite_ref(data, [x])[0], truth(data, [x])[0])


def reshaping(*new: int, signature: Shape = (), stored: Shape = (2, 6)) -> bytes:
    """MEAN over the middle of [n, k, 3], then RESHAPE to `new`."""
    x = value(4, 5, 3, name="in=x", signature=signature)
    tensors = [x, value(4, 3, name="m"), value(*stored, name="y"), integers(1), integers(*new)]
    ops = [OpSpec("MEAN", (0, 3), (1,), Mean((1,), keep_dims=False)), OpSpec("RESHAPE", (1, 4), (2,))]
    return write(tensors, ops, [0], [2])


def shapes_of(data: bytes) -> list[Shape]:
    return [t.shape for t in tflite.parse(data, "m.tflite").tensors]


def test_shapes_follow_through_every_operator() -> None:
    data = resize.resized(reshaping(2, -1), {"in=x": (8, 2, 3)}, "m.tflite")

    assert shapes_of(data)[:3] == [(8, 2, 3), (8, 3), (2, 12)]


def test_dynamic_dimensions_are_resolved() -> None:
    model = reshaping(2, -1, signature=(-1, -1, 3))
    with pytest.raises(ModelError, match="has the dynamic shape"):
        tflite.parse(model, "m.tflite")

    assert shapes_of(resize.resized(model, {"in=x": (4, 9, 3)}, "m.tflite"))[0] == (4, 9, 3)


def test_sizes_that_are_stored_as_unknown_are_resolved() -> None:
    model = resize.with_shapes(reshaping(2, -1), {0: (-1, -1, 3), 1: (-1, 3), 2: (-1, -1)})

    assert shapes_of(resize.resized(model, {"in=x": (4, 9, 3)}, "m.tflite"))[:3] == [
        (4, 9, 3),
        (4, 3),
        (2, 6),
    ]


def test_nothing_but_shapes_changes() -> None:
    model = reshaping(2, -1)
    data = resize.resized(model, {"in=x": (4, 5, 3)}, "m.tflite")
    before, after = (tflite.parse(x, "m.tflite") for x in (model, data))

    assert str(before) == str(after)
    assert len(data) < len(model) + 200


REFUSED: dict[str, tuple[bytes, dict[str, Shape], str]] = {
    "another name": (reshaping(2, -1), {"y": (1, 2, 3)}, "--input-shape y=...: its inputs are 'in=x'."),
    "another rank": (
        reshaping(2, -1),
        {"in=x": (1, 2)},
        "--input-shape in=x=1,2 has 2 dimensions; the input has 3, as in in=x=4,5,3.",
    ),
    "a fixed size behind": (
        reshaping(2, 6),
        {"in=x": (8, 2, 3)},
        "with this input shape operator #1 RESHAPE: it turns the shape [8, 3] into [2, 6]; "
        "give another --input-shape, or convert the model with this shape.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_shape_that_does_not_fit_is_refused_in_one_line(case: str) -> None:
    model, shapes, text = REFUSED[case]
    with pytest.raises(ModelError) as refused:
        resize.resized(model, shapes, "m.tflite")

    assert str(refused.value) == f"m.tflite: {text}"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", reshaping(2, -1)[:200]])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        resize.resized(data, {"x": (1,)}, "m.tflite")


def test_a_float_model_is_resized_and_refused_for_what_it_is() -> None:
    x, y = (TensorSpec(name, (4,), "float32") for name in "xy")
    data = resize.resized(write([x, y], [OpSpec("TANH", (0,), (1,))], [0], [1]), {"x": (9,)}, "m.tflite")

    with pytest.raises(ModelError, match="computes in float32"):
        tflite.parse(data, "m.tflite")
