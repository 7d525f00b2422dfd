"""Two checkouts in two folders make one release, byte by byte; `verify-release` finds what is not so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilite.lab import signing
from pilite.release import make
from tests.conftest import ROOT
from tests.few_ops import classifier, made

pytestmark = [pytest.mark.slow, pytest.mark.long]
PARTS = ("pilite", "loader", "models", "toolchains", "boards", "artifacts/.gitignore")
FILES = ("tasks.py", "LICENSE", "requirements.lock", "pyproject.toml")


@dataclass(frozen=True)
class Checkout:
    """A copy of this one, with its own artifacts/."""

    folder: Path
    model: Path
    keys: signing.Keys

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`run.py WORDS` there."""
        return subprocess.run(
            [sys.executable, str(self.folder / "tasks.py"), *words],
            cwd=self.folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def release(self, **environment: str) -> Path:
        """artifacts/release of the model for two CPUs."""
        words = ["--model", str(self.model), "--cpu", "cortex-a53", "--cpu", "cortex-a76"]
        done = self.run("release", *words, "--key", str(self.keys.key), **environment)
        assert done.returncode == 0, done.stderr
        return self.folder / "artifacts" / "release"

    def verify(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("verify-release", str(folder), "--signers", str(self.keys.allowed), *words)

    def rebuild(self, folder: Path) -> subprocess.CompletedProcess[str]:
        return self.verify(folder, "--rebuild", "--model", str(self.model))


def copied(folder: Path) -> Path:
    for name in (*PARTS, *FILES):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Checkout]:
    top = tmp_path_factory.mktemp("checkouts")
    model, keys = top / "m.tflite", signing.own_keys(top / "keys")
    model.write_bytes(made(classifier, "int8", 0).model)
    one, two = (Checkout(copied(top / name), model, keys) for name in ("a", "another folder/deep"))
    one.release(TZ="UTC", LC_ALL="C")
    two.release(TZ="Asia/Tokyo", PYTHONHASHSEED="7", ZIG_GLOBAL_CACHE_DIR=str(ROOT / "artifacts" / ".zig"))
    return one, two


def files(checkout: Checkout) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (checkout.folder / "artifacts" / "release").iterdir()}


def test_another_folder_gives_the_same_sums_and_bytes(checkouts: tuple[Checkout, Checkout]) -> None:
    one, two = map(files, checkouts)

    assert one[make.SUMS].decode() == two[make.SUMS].decode()
    assert one == two


def test_the_other_checkout_builds_it_again_to_the_same_bytes(checkouts: tuple[Checkout, Checkout]) -> None:
    one, two = checkouts
    done = two.rebuild(one.folder / "artifacts" / "release")

    assert done.returncode == 0, done.stderr
    assert "signature and 9 files are what was released" in done.stdout
    assert "built again, 9 files have the same bytes" in done.stdout


def test_a_checkout_that_differs_by_one_byte_builds_files_that_are_named(
    checkouts: tuple[Checkout, Checkout],
) -> None:
    one, two = checkouts
    header = two.folder / "loader" / "pilite.hpp"
    before = header.read_bytes()
    header.write_bytes(before + b"\n")
    done = two.rebuild(one.folder / "artifacts" / "release")
    header.write_bytes(before)

    named = {line.split(":")[0].strip() for line in done.stderr.splitlines() if ": has other bytes" in line}
    assert done.returncode == 1
    assert {name.rsplit(".", 1)[-1] for name in named} == {"gz", "deb", "json"}
    assert not any("model" in name or name.endswith(".whl") for name in named)


def test_one_changed_byte_is_named_and_the_exit_code_is_1(
    checkouts: tuple[Checkout, Checkout], tmp_path: Path
) -> None:
    one, _ = checkouts
    folder = shutil.copytree(one.folder / "artifacts" / "release", tmp_path / "release")
    (wheel,) = folder.glob("*aarch64.whl")
    data = bytearray(wheel.read_bytes())
    data[len(data) // 3] ^= 1
    wheel.write_bytes(data)
    done = one.verify(folder)

    assert done.returncode == 1
    assert f"{wheel.name}: has other bytes" in done.stderr
    assert done.stderr.count("has other bytes") == 1
