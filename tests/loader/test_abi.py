"""Versions of the ABI side by side: what loader/ABI.md promises about the minor version before and after."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pilite import seal
from pilite.compiler import pipeline
from pilite.lab.loader import SOURCES, LoaderFiles, build_loader
from tests.few_ops import classifier, made
from tests.loader.conftest import NATIVE
from tests.loader.fakes import ADD

# The next minor version as ABI.md allows it: one field more at the end of both structs.
APPENDED = (
    ("pilite_abi.h", r"#define PILITE_ABI_MINOR 1u", "#define PILITE_ABI_MINOR 2u"),
    ("pilite_abi.h", r"(\n\} pilite_host;)", r"\n  int (*appended_service)(void);\1"),
    ("pilite_abi.h", r"(\n\} pilite_model;)", r"\n  uint64_t appended_field;\1"),
    ("pilite.cc", r"(kHost = .* parallel_launch)\}", r"\1, nullptr}"),
)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> LoaderFiles:
    """The loader of the next minor version."""
    folder = tmp_path_factory.mktemp("later")
    shutil.copytree(SOURCES, folder / "loader")
    for name, pattern, replacement in APPENDED:
        path = folder / "loader" / name
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count == 1
        path.write_text(text)
    return build_loader(NATIVE, folder / "artifacts", folder / "loader")


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """What the fake model wants."""
    np.save(tmp_path / "x.npy", np.zeros((1, 1000), np.int8))
    np.save(tmp_path / "command.npy", np.array([ADD, 3, 1, 0], np.int32))
    return ["--input", str(tmp_path / "x.npy"), "--input", str(tmp_path / "command.npy")]


def run(files: LoaderFiles, model: Path, *inputs: str) -> subprocess.CompletedProcess[str]:
    command = [str(files.runner), str(model), *inputs, "--output", str(model.with_suffix(""))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def with_footer(source: Path, target: Path, **changes: int) -> Path:
    """The same artifact with another version in its footer."""
    elf, manifest = seal.unseal(source.read_bytes())
    data = seal.seal(elf, manifest)
    body = data[: -seal.FOOTER_BYTES]
    machine = int.from_bytes(elf[18:20], "little")
    fields = {"abi_major": seal.ABI_MAJOR, "abi_minor": seal.ABI_MINOR, **changes}
    footer = seal.Footer(machine, len(elf), len(body) - len(elf), seal._xxh64(body), **fields)
    target.write_bytes(body + footer.pack())
    return target


@pytest.mark.slow
def test_a_compiled_model_of_the_minor_version_before_loads_and_gives_the_same_bytes(
    later: LoaderFiles, files: LoaderFiles, tmp_path: Path
) -> None:
    (tmp_path / "m.tflite").write_bytes(made(classifier, "int8", 0).model)
    cpu = {"x86_64": "x86-64-v3", "aarch64": "cortex-a53"}[NATIVE]
    model = pipeline.build(tmp_path / "m.tflite", "m", cpu, "ref", tmp_path / "a").path
    outputs = []
    for loader in (files, later):
        done = run(loader, model, "--random", "1")
        assert done.returncode == 0, done.stderr
        outputs.append(model.with_name("model.0.npy").read_bytes())

    assert outputs[0] == outputs[1]


def test_a_model_of_the_minor_version_before_loads(later: LoaderFiles, fake: Path, inputs: list[str]) -> None:
    done = run(later, fake, *inputs)
    assert done.returncode == 0, done.stderr


def test_a_model_that_says_the_minor_version_after_loads(
    files: LoaderFiles, fake: Path, inputs: list[str], tmp_path: Path
) -> None:
    done = run(files, with_footer(fake, tmp_path / "model.so", abi_minor=seal.ABI_MINOR + 1), *inputs)
    assert done.returncode == 0, done.stderr


def test_another_major_version_is_refused_with_both_versions(
    files: LoaderFiles, fake: Path, tmp_path: Path
) -> None:
    done = run(files, with_footer(fake, tmp_path / "model.so", abi_major=seal.ABI_MAJOR + 1))

    assert done.returncode == 2
    assert f"ABI 2.{seal.ABI_MINOR}, this loader reads format 1 and ABI 1.x; update the loader" in done.stderr
