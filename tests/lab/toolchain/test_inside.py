"""Compiling in the toolchain image gives the bytes that compiling outside gives, for every CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.compiler import child, cpu, pipeline
from pilite.errors import CompileError, ModelError
from pilite.job import Compile, Job
from pilite.lab.toolchain import image, inside, recipe
from tests.conftest import ROOT
from tests.few_ops import classifier, made


@pytest.fixture(scope="module")
def compile_inside() -> Compile:
    made_or_found = image.ensure(recipe.read(), ROOT / "artifacts", progress=lambda step: None)
    return inside.compiler(made_or_found, ROOT / "artifacts")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(made(classifier, "int8", 0).model)
    return path


def built(model: Path, name: str, artifacts: Path, compile: Compile) -> bytes:
    return pipeline.build(model, "m", name, "ref", artifacts, compile=compile).path.read_bytes()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
@pytest.mark.parametrize("name", cpu.names())
def test_the_bytes_are_those_of_a_build_outside(
    name: str, compile_inside: Compile, model: Path, tmp_path: Path
) -> None:
    outside = built(model, name, tmp_path / "outside", child.compile)
    assert built(model, name, tmp_path / "inside", compile_inside) == outside


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
def test_a_model_that_is_refused_inside_is_refused_with_the_same_words(
    compile_inside: Compile, tmp_path: Path
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"no model")
    with pytest.raises(ModelError) as outside:
        built(tmp_path / "m.tflite", "cortex-a53", tmp_path / "a", child.compile)
    with pytest.raises(ModelError) as caught:
        built(tmp_path / "m.tflite", "cortex-a53", tmp_path / "b", compile_inside)

    assert str(caught.value) == str(outside.value)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
def test_an_image_with_another_compiler_is_told_from_a_wrong_result(
    compile_inside: Compile, model: Path
) -> None:
    options = {"numerics": "ref", "fully_connected": "q31", "layers": False, "markers": False}
    job = Job(model, "m", "cortex-a53", options, "0" * 64)
    with pytest.raises(
        CompileError, match=r"its build is [0-9a-f]{12}, not 000000000000: .* `toolchain` renews"
    ):
        compile_inside(job, lambda step: None)
