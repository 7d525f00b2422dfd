"""Compiling in the toolchain image gives the bytes that compiling outside gives, for every CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from docker.errors import NotFound

from models import resolve
from pilite.compiler import child, cpu, pipeline
from pilite.errors import CompileError, ModelError, PiliteError
from pilite.job import Compile, Job
from pilite.lab.toolchain import image, inside, recipe
from pilite.lab.toolchain.image import Image
from tests.conftest import ROOT
from tests.few_ops import classifier, made
from tests.lab.toolchain.socketproxy import proxy


@pytest.fixture(scope="module")
def toolchain() -> Image:
    return image.ensure(recipe.read(), ROOT / "artifacts", progress=lambda step: None)


@pytest.fixture(scope="module")
def compile_inside(toolchain: Image) -> Compile:
    return inside.compiler(toolchain, ROOT / "artifacts")


ZOO = "mobilenet_v2_0.35_96_uint8"


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A few int8 operators, or a whole uint8 network of the zoo by its name."""
    if getattr(request, "param", "classifier") == ZOO:
        return resolve(ZOO, ROOT / "artifacts").path
    path = tmp_path / "m.tflite"
    path.write_bytes(made(classifier, "int8", 0).model)
    return path


def built(model: Path, name: str, artifacts: Path, compile: Compile) -> bytes:
    return pipeline.build(model, "m", name, "ref", artifacts, compile=compile).path.read_bytes()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
@pytest.mark.parametrize("name", cpu.names())
@pytest.mark.parametrize("model", ["classifier", ZOO], indirect=True)
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


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
@pytest.mark.parametrize("last", ["read", "compile"])
def test_an_engine_that_goes_away_is_one_error_and_leaves_the_artifact_of_before(
    last: str, toolchain: Image, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tmp_path / "m" / "cortex-a53" / "ref" / "model.so"
    before.parent.mkdir(parents=True)
    before.write_bytes(b"old")
    with proxy(tmp_path / "engine.sock") as cut:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
        compile = inside.compiler(toolchain, tmp_path)
        with pytest.raises(PiliteError, match=r"Docker could not compile m for cortex-a53: .*") as caught:
            pipeline.build(
                model,
                "m",
                "cortex-a53",
                "ref",
                tmp_path,
                compile=compile,
                progress=lambda step: cut() if step == last else None,
            )
    monkeypatch.undo()
    engine = image.client()
    inside.sweep(engine, tmp_path / "toolchain")
    label = f"{inside.LABEL}={tmp_path / 'toolchain'}"

    assert engine.containers.list(all=True, filters={"label": label}) == []
    assert str(caught.value).endswith("Earlier artifacts are unchanged.")
    assert len(str(caught.value).splitlines()) == 1
    assert before.read_bytes() == b"old"
    assert not list((tmp_path / "builds").iterdir())


FOREVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pilite.compiler import pipeline
from pilite.lab.toolchain import inside
from pilite.lab.toolchain.image import Image
def wait(step):
    print(step, flush=True)
    time.sleep(600)
compile = inside.compiler(Image("", sys.argv[2], True), Path(sys.argv[4]))
pipeline.build(
    Path(sys.argv[3]), "m", "cortex-a53", "ref", Path(sys.argv[4]), compile=compile, progress=wait
)
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.docker
def test_what_a_killed_build_left_is_removed_by_the_next_one_but_not_a_build_that_runs(
    toolchain: Image, model: Path, tmp_path: Path
) -> None:
    engine = image.client()
    words = [sys.executable, "-c", FOREVER, str(ROOT), toolchain.id, str(model), str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout is not None
        assert build.stdout.readline() == "read\n"
        (output,) = (tmp_path / "toolchain").glob("output.*")
        inside.compiler(toolchain, tmp_path)
        assert engine.containers.get(inside.container_of(output))
        build.send_signal(signal.SIGKILL)
    assert output.is_dir()
    compile = inside.compiler(toolchain, tmp_path)

    assert not output.exists()
    with pytest.raises(NotFound):
        engine.containers.get(inside.container_of(output))
    assert built(model, "cortex-a53", tmp_path, compile)
