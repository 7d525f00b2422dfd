"""The zoo makes the published architectures, the same bytes everywhere, and ranges like a trained model's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import zoo
from models.registry import entries
from models.zoo import draw, pictures
from models.zoo.writer import with_outputs
from pilite.compiler import tflite
from pilite.compiler.graph import ABSENT, Graph, Node

ROOT = Path(__file__).parents[2]
Array = npt.NDArray[Any]

PUBLISHED = {  # zoo name -> the published file of the same architecture
    "mobilenet_v1_0.25_128_uint8": "mobilenet_v1_0.25_128_quant",
    "mobilenet_v1_0.75_192_uint8": "mobilenet_v1_0.75_192_quant",
    "mobilenet_v2_1.0_224_uint8": "mobilenet_v2_1.0_224_quant",
    "mobilenet_v2_1.0_224_int8": "tf2_mobilenet_v2_1.0_224_ptq",
    "deeplab_mobilenet_v2_0.5_513_uint8": "deeplabv3_mnv2_dm05_pascal_quant",
}
ALIKE = [pytest.param(name, marks=pytest.mark.slow if "513" in name else ()) for name in PUBLISHED]
SMALL = (
    "mobilenet_v1_0.25_128_uint8",
    "mobilenet_v1_0.25_128_int8",
    "mobilenet_v2_0.35_96_uint8",
    "mobilenet_v2_0.35_96_int8",
    "inception_v1_0.25_64_uint8",
    "inception_v2_0.25_64_uint8",
    "inception_v3_0.25_96_int8",
    "inception_v4_0.25_96_uint8",
    "resnet_50_0.25_64_int8",
    "resnet_50_0.25_64_uint8",
    "efficientnet_lite0_0.25_64_int8",
    "mobilenet_v3_large_0.25_64_int8",
    "mobilenet_v3_large_minimalistic_0.25_64_uint8",
    "deeplab_mobilenet_v2_0.25_65_uint8",
    "unet_mobilenet_v2_0.25_64_int8",
    "ssd_mobilenet_v1_0.25_96_uint8",
    "ssd_mobilenet_v2_0.25_96_int8",
)
DETECTORS = [name for name in SMALL if name.startswith("ssd")]
CLASSIFIERS = [name for name in SMALL if not name.startswith(("deeplab", "ssd", "unet"))]
LARGE = (
    "mobilenet_v1_1.0_224_uint8",
    "mobilenet_v1_1.0_224_int8",
    "mobilenet_v2_1.0_224_uint8",
    "mobilenet_v2_1.0_224_int8",
    "mobilenet_v2_1.4_300_uint8",
)
LARGE_LATER = [pytest.param(name, marks=pytest.mark.slow) for name in LARGE]
FEW = 200  # elements of means and gates of narrow models
UNCALIBRATED = ("SOFTMAX", "LOGISTIC", "ARG_MAX", "DEQUANTIZE")  # TFLite fixes their ranges
PINNED = [
    name if name in SMALL else pytest.param(name, marks=pytest.mark.slow)
    for name, entry in entries().items()
    if entry.kind == "zoo"
]
OTHER_KERNELS = {  # of numpy's BLAS and of numpy itself, as an old or a foreign CPU would choose them
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
    "PYTHONHASHSEED": "7",
}


@cache
def made(name: str) -> bytes:
    recipe = zoo.parse(name)
    assert recipe is not None
    return zoo.generate(recipe)


@cache
def graph_of(name: str) -> Graph:
    return tflite.parse(made(name), name)


# Names.


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("mobilenet_v2_1.0_224_uint8", zoo.Recipe("mobilenet_v2", 1.0, 224, "uint8")),
        ("mobilenet_v2_0.35_96_int8", zoo.Recipe("mobilenet_v2", 0.35, 96, "int8")),
        ("mobilenet_v1_0.25_128_uint8", zoo.Recipe("mobilenet_v1", 0.25, 128, "uint8")),
        ("inception_v4_299_uint8", zoo.Recipe("inception_v4", 1.0, 299, "uint8")),
        ("resnet_50_0.5_64_int8", zoo.Recipe("resnet_50", 0.5, 64, "int8")),
    ],
)
def test_a_name_says_the_whole_recipe(name: str, recipe: zoo.Recipe) -> None:
    assert zoo.parse(name) == recipe
    assert recipe.name == name


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v9_1.0_224_uint8",
        "mobilenet_v2_224_uint8",
        "inception_v1_1.0_224_uint8",  # published without a width
        "inception_v3_64_uint8",
        "resnet_50_30_int8",
        "mobilenet_v2_1.00_224_uint8",  # a second name for 1.0 would be a second file with other weights
        "mobilenet_v2_1_224_uint8",
        "mobilenet_v2_0.0_224_uint8",
        "mobilenet_v2_2.5_224_uint8",
        "mobilenet_v2_1.0_16_uint8",
        "mobilenet_v2_1.0_999_uint8",
        "mobilenet_v2_1.0_024_uint8",
        "mobilenet_v2_1.0_224_int16",
        "mobilenet_v2_1.0_224_uint8.tflite",
        "mobilenet_v2_1.0_224_uint8\n",
    ],
)
def test_other_spellings_and_sizes_out_of_range_are_no_zoo_names(name: str) -> None:
    assert zoo.parse(name) is None


# Architecture.


@pytest.mark.parametrize("name", ALIKE)
def test_operators_shapes_and_options_equal_those_of_the_published_file(
    name: str, shared_models: Path
) -> None:
    published = tflite.read(shared_models / f"{PUBLISHED[name]}.tflite")

    assert [_face(graph_of(name), node) for node in graph_of(name).nodes] == [
        _face(published, node) for node in published.nodes
    ]


@pytest.mark.parametrize("name", ALIKE)
def test_multiplications_and_weight_bytes_equal_those_of_the_published_file(
    name: str, shared_models: Path
) -> None:
    recipe = zoo.parse(name)
    assert recipe is not None
    published = tflite.read(shared_models / f"{PUBLISHED[name]}.tflite")

    assert recipe.net.macs == sum(_macs(published, n) for n in published.nodes)
    assert _constant_bytes(graph_of(name)) == _constant_bytes(published)


def _face(graph: Graph, node: Node) -> tuple[object, ...]:
    """What a kernel is chosen by: operator, options, dtypes and shapes; not names, not numbers of tensors."""
    tensors = [graph.tensors[i] for i in (*node.inputs, *node.outputs) if i != ABSENT]
    per_axis = [t.quant is not None and t.quant.per_axis for t in tensors]
    return node.op, node.options, [(t.dtype, t.shape) for t in tensors], per_axis


def _macs(graph: Graph, node: Node) -> int:
    if node.op not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return 0
    taps = graph.tensors[node.inputs[1]].shape[1:]
    per_output = taps[0] * taps[1] * (taps[2] if node.op == "CONV_2D" else 1)
    return graph.tensors[node.outputs[0]].elements * per_output


def _constant_bytes(graph: Graph) -> int:
    used = {i for node in graph.nodes for i in node.inputs}
    return sum(t.nbytes for t in graph.tensors if t.is_constant and t.index in used)


# Quantization.


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_asymmetric_per_tensor_or_symmetric_per_channel(name: str) -> None:
    for node in graph_of(name).nodes:
        if not node.op.endswith("CONV_2D"):
            continue
        filter = graph_of(name).tensors[node.inputs[1]]
        assert filter.quant is not None
        if name.endswith("uint8"):
            assert len(filter.quant.scales) == 1
            assert filter.quant.zero_point != 0
        else:
            channels = graph_of(name).tensors[node.outputs[0]].shape[3]
            assert len(filter.quant.scales) == channels
            assert set(filter.quant.zero_points) == {0}
            assert filter.quant.axis == (3 if node.op == "DEPTHWISE_CONV_2D" else 0)


@pytest.mark.parametrize("name", SMALL)
def test_weights_use_the_range_of_eight_bits(name: str) -> None:
    for node in graph_of(name).nodes:
        if node.op.endswith("CONV_2D"):
            data = graph_of(name).tensors[node.inputs[1]].data
            assert data is not None
            assert int(data.max()) - int(data.min()) > 180, node


# The same bytes everywhere.


def test_other_blas_kernels_and_hash_seeds_give_the_same_bytes() -> None:
    name = "mobilenet_v2_0.35_96_int8"
    code = f"import sys; from models import zoo; sys.stdout.buffer.write(zoo.generate(zoo.parse({name!r})))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    elsewhere = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **OTHER_KERNELS}, capture_output=True, check=True
    )

    assert elsewhere.stdout == made(name)


@pytest.mark.parametrize("name", PINNED)
def test_the_bytes_are_those_that_models_toml_pins(name: str) -> None:
    assert sha256(made(name)).hexdigest() == entries()[name].sha256, f"{name}: intended? then pin the new one"


def test_another_recipe_has_other_weights() -> None:
    recipe = zoo.Recipe("mobilenet_v1", 0.25, 64, "uint8")
    other = zoo.Recipe("mobilenet_v1", 0.25, 65, "uint8")

    assert _first_filter(recipe) != _first_filter(other)


def _first_filter(recipe: zoo.Recipe) -> bytes:
    graph = tflite.parse(zoo.generate(recipe), recipe.name)
    data = graph.tensors[graph.nodes[0].inputs[1]].data
    assert data is not None
    return data.tobytes()


def test_draws_stay_in_their_ranges_and_reach_both_ends() -> None:
    drawn = draw.whole("a seed", 2000, -3, 4)

    assert (drawn.min(), drawn.max()) == (-3, 4)
    assert abs(int(draw.bell("a seed", (100, 100)).sum())) < 100 * 100 * 10


@pytest.mark.parametrize("side", [32, 45, 96])
def test_pictures_differ_in_light_and_detail(side: int) -> None:
    drawn = pictures.draw("a seed", 4, side).astype(int)
    detail = np.abs(np.diff(drawn, axis=2)).mean(axis=(1, 2, 3))

    assert drawn.shape == (4, side, side, 3)
    assert drawn[0].max() == 255
    assert drawn[3].max() <= 255 // 3 + 255 // 16
    assert detail[0] > 2 * detail[1] > 0


# What the numbers do: TFLite's reference kernels, every operator's output, random inputs and pictures.


@pytest.mark.parametrize("name", [*SMALL, *LARGE_LATER])
def test_no_layer_saturates_or_dies(name: str, shared_images: Path) -> None:
    graph = graph_of(name)
    ends = {*graph.inputs, *graph.outputs}
    nodes = [
        node
        for node in graph.nodes
        if node.op not in UNCALIBRATED and not {node.inputs[0], *node.outputs} & ends
    ]
    for title, values in _runs(name, shared_images).items():
        for node in nodes:
            q = values[node.outputs[0]]
            where = f"{title}: {node}"
            assert _clamped(graph, node.outputs[0], q) <= _may_clamp(graph, node, q), where
            assert int(q.max()) - int(q.min()) > (30 if q.size > FEW else 0), where
            assert len(np.unique(q)) > min(30, q.size // 16), where


@pytest.mark.parametrize("name", [*CLASSIFIERS, *LARGE_LATER])
def test_classes_depend_on_the_input_and_are_neither_even_nor_certain(name: str, shared_images: Path) -> None:
    outputs = [values[graph_of(name).outputs[0]] for values in _runs(name, shared_images).values()]

    assert len({q.tobytes() for q in outputs}) == len(outputs)
    assert len({int(q.argmax()) for q in outputs}) > 1
    assert all(q.max() > 4 for q in outputs)
    assert np.median([np.count_nonzero(q) for q in outputs]) > 5


@pytest.mark.parametrize("name", DETECTORS)
def test_every_picture_has_detections_of_its_own_with_scores_that_differ(
    name: str, shared_images: Path
) -> None:
    runs = _runs(name, shared_images).values()
    boxes, classes, scores, number = ([values[i] for values in runs] for i in graph_of(name).outputs)

    assert len({b.tobytes() for b in boxes}) == len(boxes)
    assert {float(n[0]) for n in number} == {10.0}
    assert np.median([len(np.unique(s)) for s in scores]) > 5
    assert all(0.5 < s.max() < 255 / 256 for s in scores)
    assert len(np.unique(classes)) > 10


def _may_clamp(graph: Graph, node: Node, q: Array) -> float:
    """Elements: 2 % and the scatter of their number. What passes values on, and gates, are not asked."""
    part = 0.02 * q.size
    gate = node.op in ("ADD", "MUL") and graph.tensors[node.inputs[1]].is_constant
    return q.size if gate or node.op in ("MAX_POOL_2D", "CONCATENATION") else part + 2 * part**0.5


def _clamped(graph: Graph, index: int, q: Array) -> int:
    """Elements of `q` at the ends of its dtype, without the end that is a real zero: ReLU puts half there."""
    quant, ends = graph.tensors[index].quant, np.iinfo(q.dtype)
    assert quant is not None
    return int(np.isin(q, [end for end in (ends.min, ends.max) if end != quant.zero_point]).sum())


@cache
def _runs(name: str, images: Path) -> Mapping[str, Mapping[int, Array]]:
    """Title of the input -> tensor index -> value, for every operator's output."""
    runtime = pytest.importorskip("tflite_runtime.interpreter", reason="no tflite-runtime for this Python")
    graph = graph_of(name)
    outputs = [i for node in graph.nodes for i in node.outputs]
    reference = runtime.OpResolverType.BUILTIN_REF if name in SMALL else runtime.OpResolverType.BUILTIN
    interpreter = runtime.Interpreter(
        model_content=with_outputs(made(name), outputs), experimental_op_resolver_type=reference
    )
    interpreter.allocate_tensors()
    return {
        title: _run(interpreter, graph.inputs[0], x, outputs)
        for title, x in _inputs(graph.tensors[graph.inputs[0]].shape, images).items()
    }


def _run(interpreter: Any, index: int, x: Array, outputs: list[int]) -> dict[int, Array]:
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return {i: interpreter.get_tensor(i) for i in outputs}


def _inputs(shape: tuple[int, ...], images: Path) -> dict[str, Array]:
    from PIL import Image

    noise = {
        f"noise {seed}": np.random.default_rng(seed).integers(0, 256, shape, np.uint8) for seed in range(3)
    }
    photos = {
        path.name: np.asarray(Image.open(path).convert("RGB").resize((shape[2], shape[1])))[None]
        for path in sorted(images.glob("*.bmp"))
    }
    return {**noise, **photos}
