"""The file on disk: odd names survive, a killed run leaves the old file, damage is built again."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loader.pilite import Model
from models.zoo.writer import OpSpec, TensorSpec, write
from pilite import seal
from pilite.compiler import artifact, link, pipeline, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler.pipeline import Build
from pilite.errors import CompileError, ModelError, PiliteError
from tests import native
from tests.batch import BUILD_ID, OPTIONS
from tests.conftest import ROOT
from tests.nets import Net

NAMES = (
    "plain",
    "",
    'quote " and backslash \\',
    "??/ is a trigraph, %s and %n are formats",
    "line\nbreak\ttab\r\x01\x7f",
    "Größe 1€ 日本語7 🚀9",
    "*/ // /* #include <x> \\",
    "a" * 500,
    "/serving_default:0;StatefulPartitionedCall",
)


def echo(name: str) -> bytes:
    """A model of one operator whose input and output are called `name`."""
    quant: dict[str, Any] = {"shape": (1, 4), "dtype": "int8", "scales": (0.5,), "zero_points": (3,)}
    tensors = [TensorSpec(name, **quant), TensorSpec(f"{name}'", **{**quant, "shape": (4,)})]
    return write(tensors, [OpSpec("RESHAPE", (0,), (1,))], [0], [1])


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_reach_the_loader_as_they_are(name: str, tmp_path: Path) -> None:
    """Model and tensor names pass through C source, JSON and the descriptor."""
    graph = tflite.parse(echo(name), "echo")
    data, manifest = pipeline.compile_graph(graph, name, cpus.load(native.HERE), OPTIONS, BUILD_ID)
    (tmp_path / "model.so").write_bytes(data)

    with Model(tmp_path / "model.so", library=native.loader(platform.machine()).library) as model:
        assert model.name == name
        assert [d.name for d in (*model.input_details, *model.output_details)] == [name, f"{name}'"]
        (result,) = model.run(np.array([[1, 2, 3, 4]], np.int8))
    assert result.tolist() == [1, 2, 3, 4]
    assert manifest["name"] == name
    assert [end["name"] for end in (*manifest["inputs"], *manifest["outputs"])] == [name, f"{name}'"]


def test_the_glue_has_only_plain_characters() -> None:
    """What the C compiler reads is ASCII without anything that could end a string or start a trigraph."""
    ends = tuple(link.End(name, "int8", (1,), 1) for name in NAMES)
    source = link.glue(link.Descriptor(NAMES[4], BUILD_ID, "target", 0, ends, ends, 0, 0))
    strings = re.findall(r'"((?:[^"\\]|\\[0-7]{3})*)"', source)

    assert source.isascii()
    assert source.isprintable() or set(filter(lambda c: not c.isprintable(), source)) == {"\n"}
    assert not any("?" in text for text in strings)
    decoded = [_decoded(text) for text in strings]
    assert decoded.count(NAMES[2]) == 2
    assert set(NAMES) <= set(decoded)


def _decoded(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text).encode("latin-1").decode()


def test_scales_are_written_exactly() -> None:
    scale = float(np.float32(0.1))
    end = link.End("x", "uint8", (1, 2), 2, scale, 7)
    source = link.glue(link.Descriptor("m", BUILD_ID, "t", 0, (end,), (end,), 0, 0))

    assert float.fromhex("0x1.99999ap-4") == scale
    assert source.count("0x1.99999a0000000p-4f, 7}") == 2


# Writing.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three operators."""
    net = Net("int8", 0)
    x = net.input(1, 4, 4, 3)
    path = tmp_path_factory.mktemp("model") / "small.tflite"
    path.write_bytes(net.case("small", net.dense(net.mean(net.conv(x, 8)), 5)).model)
    return path


def build(model: Path, artifacts: Path, **options: Any) -> Build:
    return pipeline.build(model, "small", native.HERE, "ref", artifacts, **options)


def test_a_build_is_reused_until_something_changes(model: Path, tmp_path: Path) -> None:
    first = build(model, tmp_path)
    before = first.path.stat()
    again = build(model, tmp_path)

    assert (first.reused, again.reused) == (False, True)
    assert replace(again, reused=False) == first
    assert again.path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_path_tells_model_cpu_and_numerics(model: Path, tmp_path: Path) -> None:
    assert build(model, tmp_path).path == tmp_path / "small" / native.HERE / "ref" / "model.so"
    assert build(model, tmp_path, layers=True).path.parent.name == "ref-layers"


def test_whatever_changes_the_bytes_changes_the_build_id(tmp_path: Path) -> None:
    cpu, other = cpus.load("x86-64-v3"), cpus.load("cortex-a53")
    ids = [
        artifact.build_id("1" * 64, "m", cpu, OPTIONS),
        artifact.build_id("2" * 64, "m", cpu, OPTIONS),
        artifact.build_id("1" * 64, "n", cpu, OPTIONS),
        artifact.build_id("1" * 64, "m", other, OPTIONS),
        artifact.build_id("1" * 64, "m", cpu, {**OPTIONS, "layers": True}),
        artifact.build_id("1" * 64, "m", cpu, {**OPTIONS, "fully_connected": "f64"}),
    ]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in ids)
    assert ids[0] == artifact.build_id("1" * 64, "m", cpu, dict(OPTIONS))


@pytest.mark.parametrize("name", ["cortex-a53", "x86-64-v3"])
def test_the_host_is_no_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = artifact.build_id("1" * 64, "m", cpus.load(name), OPTIONS)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    assert artifact.build_id("1" * 64, "m", cpus.load(name), OPTIONS) == here


@pytest.mark.parametrize(
    ("place", "what"),
    [(100, "code"), (-200, "manifest"), (-30, "footer"), (None, "cut in half"), (0, "empty")],
)
def test_a_damaged_artifact_is_built_again(model: Path, tmp_path: Path, place: int | None, what: str) -> None:
    good = build(model, tmp_path)
    whole = good.path.read_bytes()
    broken = bytearray(whole if what != "empty" else b"")
    if place is None:
        broken = broken[: len(broken) // 2]
    elif broken:
        broken[place] ^= 1
    good.path.write_bytes(broken)

    repaired = build(model, tmp_path)

    assert not repaired.reused
    assert good.path.read_bytes() == whole


def test_an_artifact_of_another_build_is_replaced(model: Path, tmp_path: Path) -> None:
    path = build(model, tmp_path).path
    whole = path.read_bytes()
    elf, manifest = seal.unseal(whole)
    path.write_bytes(seal.seal(elf, {**manifest, "build_id": "f" * 64}))

    assert not build(model, tmp_path).reused
    assert path.read_bytes() == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from pilite.compiler import artifact
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
artifact.write(Path(sys.argv[1]), b"new" * 100000)
"""


def test_a_killed_run_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)

    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(b"old")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CompileError, match=r"model\.so: cannot be written: No space left.*make room"):
        artifact.write(path, b"new")

    assert [p.name for p in tmp_path.iterdir()] == ["model.so"]
    assert path.read_bytes() == b"old"


# The manifest.


def test_the_manifest_tells_what_the_library_tells(model: Path, tmp_path: Path) -> None:
    built = build(model, tmp_path)
    _, stored = seal.unseal(built.path.read_bytes())

    assert stored == built.manifest
    with Model(built.path, library=native.loader(platform.machine()).library) as opened:
        assert opened.build_id == built.build_id == stored["build_id"]
        for details, rows in (
            (opened.input_details, stored["inputs"]),
            (opened.output_details, stored["outputs"]),
        ):
            told = [(d.name, list(d.shape), str(d.dtype), d.scale, d.zero_point) for d in details]
            assert told == [(r["name"], r["shape"], r["dtype"], r["scale"], r["zero_point"]) for r in rows]


def test_neither_paths_nor_times_are_in_the_file(model: Path, tmp_path: Path) -> None:
    data = build(model, tmp_path).path.read_bytes()

    for trace in (str(ROOT), str(tmp_path), str(model.parent), str(Path.home()) + "/", "/tmp/"):
        assert trace.encode() not in data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cpu": "pentium"}, "no CPU 'pentium': toolchains/ has cortex-a53"),
        ({"numerics": "exact"}, "no numerics 'exact': choose one of ref"),
        ({"fully_connected": "q15"}, "no fully connected variant 'q15': choose one of q31, f64"),
    ],
)
def test_a_wrong_option_lists_the_right_ones(
    model: Path, tmp_path: Path, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(PiliteError, match=re.escape(said)):
        pipeline.build(
            **{"model": model, "name": "m", "cpu": "x86-64-v3", "numerics": "ref", "artifacts": tmp_path}  # type: ignore[arg-type]
            | arguments
        )


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.tflite: No such file or directory\. Give a \.tflite file"):
        build(tmp_path / "gone.tflite", tmp_path)
