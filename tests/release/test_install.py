"""A release as users get it: wheel, .deb and C++ example in bare arm64 Debians give TFLite's bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from docker.models.images import Image

from loader.pilite import Array
from models import resolve
from pilite import VERSION, zig
from pilite.compiler import pipeline
from pilite.lab import container, emulation, image, signing
from pilite.release import make
from pilite.release.statements import Model, Parameters
from tests.conftest import ROOT
from tests.oracle import tflite_ref as oracle

ARTIFACTS = ROOT / "artifacts"
EXAMPLES = ROOT / "examples"
NAME, CPU, SIDE = "mobilenet_v1_0.25_128_uint8", "cortex-a53", 128
SUITES = ("bookworm", "trixie")  # Debian 12 and 13: Raspberry Pi OS of today and tomorrow

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.docker]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with release/, model.so, pictures/ and the examples: all that the container gets."""
    folder = tmp_path_factory.mktemp("shipped")
    source = resolve(NAME, ARTIFACTS)
    built = pipeline.build(source.path, NAME, CPU, "ref", ARTIFACTS)
    wanted = Parameters((Model(NAME, make.sha256(source.path.read_bytes())),), (CPU,), ("ref",), "q31")
    made = make.contents(wanted, {(NAME, CPU, "ref"): built.path}, ARTIFACTS)
    make.write(made, signing.own_keys(folder / "keys").key, folder / "release")
    shutil.copytree(EXAMPLES, folder / "examples")
    with tarfile.open(folder / "release" / f"pilite-model-{NAME}-{VERSION}.tar.gz") as tar:
        tar.extractall(folder / "models")
    draw_pictures(folder / "pictures")
    folder.chmod(0o755)
    return folder


def draw_pictures(folder: Path) -> None:
    folder.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        (folder / f"{seed}.ppm").write_bytes(b"P6\n%d %d\n255\n" % (SIDE, SIDE) + pixels.tobytes())


def pixels(picture: Path) -> Array:
    return np.frombuffer(picture.read_bytes()[-SIDE * SIDE * 3 :], np.uint8).reshape(1, SIDE, SIDE, 3)


@pytest.fixture(scope="module")
def expected(shipped: Path) -> dict[str, Array]:
    """TFLite's scores for every picture."""
    model = resolve(NAME, ARTIFACTS).path.read_bytes()
    return {p.name: oracle(model, [pixels(p)])[0] for p in sorted((shipped / "pictures").iterdir())}


def best(scores: Array) -> str:
    flat = scores.reshape(-1)
    return " ".join(f"{i}={flat[i]}" for i in np.argsort(-flat.astype(int), kind="stable")[:5])


@pytest.fixture(scope="module", params=SUITES)
def bare(request: pytest.FixtureRequest) -> Image:
    emulation.ensure()
    recipe = image.read_recipe(ROOT / "docker" / "bare" / request.param)
    container.load(container.client(), recipe, ARTIFACTS)
    return container.client().images.get(recipe.tag)


def inside(bare: Image, shipped: Path, script: str) -> str:
    said: bytes = container.client().containers.run(
        bare,
        ["bash", "-ec", script],
        volumes={str(shipped): {"bind": "/shipped", "mode": "ro"}},
        environment={"QEMU_CPU": CPU, "MODEL": f"/shipped/models/{NAME}/{CPU}/ref/model.so"},
        network_mode="none",
        remove=True,
        stderr=True,
    )
    return said.decode()


def lines(expected: dict[str, Array]) -> list[str]:
    return [f"/shipped/pictures/{name}: {best(scores)}" for name, scores in expected.items()]


def test_the_wheel_installs_with_pip_and_classifies_a_folder_as_tflite_does(
    bare: Image, shipped: Path, expected: dict[str, Array]
) -> None:
    script = (
        "python3 -m pip install --quiet --no-index --no-deps --break-system-packages "
        f"/shipped/release/pilite-{VERSION}-py3-none-manylinux_2_28_aarch64.whl\n"
        "python3 /shipped/examples/folder.py $MODEL /shipped/pictures\n"
        "pilite-run $MODEL --random 1 | head -1"
    )
    said = inside(bare, shipped, script).splitlines()

    assert said[-len(expected) - 1 : -1] == lines(expected)
    assert said[-1].startswith(NAME)


def test_the_debian_package_installs_and_a_camera_loop_gives_tflites_classes(
    bare: Image, shipped: Path, expected: dict[str, Array]
) -> None:
    size = SIDE * SIDE * 3
    script = (
        f"dpkg --install /shipped/release/pilite_{VERSION}_arm64.deb >/dev/null\n"
        f"for picture in /shipped/pictures/*; do tail -c {size} $picture; done"
        " | python3 /shipped/examples/camera.py $MODEL\n"
        "pilite-run $MODEL --bench | tail -1"
    )
    said = inside(bare, shipped, script).splitlines()
    frames = [f"frame {i}: {s.argmax()}={s.max()}" for i, s in enumerate(expected.values())]

    assert said[-len(frames) - 1 : -1] == frames
    assert said[-1].startswith("bench: 1 threads")


@pytest.fixture(scope="module")
def classifier(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ example, built for arm64 by CMake from the released tar.gz and nothing else."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake; apt-get install cmake")
    folder = tmp_path_factory.mktemp("cmake")
    with tarfile.open(shipped / "release" / f"pilite-loader-{VERSION}-aarch64.tar.gz") as tar:
        tar.extractall(folder)
    compiler = folder / "c++"
    script = f"export ZIG_GLOBAL_CACHE_DIR={ARTIFACTS}/.zig\nexec {sys.executable} -I -m ziglang c++"
    compiler.write_text(f'#!/bin/sh\n{script} -target {zig.AARCH64} "$@"\n')
    compiler.chmod(0o755)
    configure = ["cmake", "-S", str(EXAMPLES / "classifier"), "-B", str(folder / "build")]
    configure += [
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    ]
    configure += [f"-DCMAKE_PREFIX_PATH={folder / f'pilite-loader-{VERSION}-aarch64'}"]
    for step in (configure, ["cmake", "--build", str(folder / "build")]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(folder / "build" / "classifier", shipped / "classifier")
    return shipped / "classifier"


def test_the_cpp_example_links_by_cmake_alone_and_classifies_as_tflite_does(
    bare: Image, shipped: Path, classifier: Path, expected: dict[str, Array]
) -> None:
    script = (
        f"dpkg --install /shipped/release/pilite_{VERSION}_arm64.deb >/dev/null\n"
        f"/shipped/{classifier.name} $MODEL /shipped/pictures/*"
    )
    assert inside(bare, shipped, script).splitlines()[-len(expected) :] == lines(expected)
