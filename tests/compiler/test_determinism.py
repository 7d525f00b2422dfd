"""The same inputs give the same bytes: in another folder, process, hash seed, locale, time zone and day."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.few_ops import classifier, diamond, made, residual

BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pilite.compiler import pipeline
for cpu in sys.argv[4:]:
    built = pipeline.build(Path(sys.argv[2]), "m", cpu, "ref", Path(sys.argv[3]))
    print(built.reused, built.build_id)
"""
CPUS = ("x86-64-v3", "cortex-a53", "cortex-a76")


def build(model: Path, folder: Path, **environment: str) -> list[str]:
    """Build in a process of its own, in `folder`; what it prints for every CPU."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", BUILD, str(ROOT), str(model), str(folder), *CPUS]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("model.so"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "m.tflite"
    path.write_bytes(made(request.param, "int8", 0).model)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("model", [classifier, residual, diamond], indirect=True, ids=lambda g: g.__name__)
def test_another_folder_process_and_hash_seed_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another folder" / "deep"
    first = build(model, tmp_path / "a", PYTHONHASHSEED="0", LC_ALL="C", TZ="UTC")
    second = build(
        model, elsewhere, PYTHONHASHSEED="12345", LC_ALL="C.UTF-8", TZ="Asia/Tokyo", TMPDIR=str(tmp_path)
    )

    assert len(digests(tmp_path / "a")) == len(CPUS)
    assert digests(tmp_path / "a") == digests(elsewhere)
    assert first == second
    assert [line.split()[0] for line in first] == ["False"] * len(CPUS)


@pytest.mark.slow
@pytest.mark.parametrize("model", [classifier], indirect=True, ids=["classifier"])
def test_a_second_build_says_that_nothing_changed(model: Path, tmp_path: Path) -> None:
    first, second = build(model, tmp_path / "a"), build(model, tmp_path / "a")

    assert second == [line.replace("False", "True") for line in first]


@pytest.mark.slow
@pytest.mark.parametrize("model", [classifier], indirect=True, ids=["classifier"])
def test_the_name_of_the_model_file_does_not_matter(model: Path, tmp_path: Path) -> None:
    """Negative control too: one other byte in the model does."""
    renamed, changed = tmp_path / "renamed.tflite", tmp_path / "changed.tflite"
    renamed.write_bytes(model.read_bytes())
    changed.write_bytes(model.read_bytes() + b"\0")
    for name in ("m", "renamed", "changed"):
        build(tmp_path / f"{name}.tflite", tmp_path / name)

    assert digests(tmp_path / "m") == digests(tmp_path / "renamed")
    assert set(digests(tmp_path / "m").values()).isdisjoint(digests(tmp_path / "changed").values())
