"""Wheels for boards: by the lock's hashes only, sent once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pilite.errors import BoardError
from pilite.lab import wheels
from pilite.lab.wheels import Target
from tests.lab.conftest import Bed

NAME = "small_thing-1.2-py3-none-any.whl"
TARGET = Target("3.11", "aarch64")


def wheel(folder: Path, text: str = "answer = 42\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / NAME, "w") as file:
        file.writestr(zipfile.ZipInfo("small_thing/__init__.py"), text)
        file.writestr(zipfile.ZipInfo("small_thing/tests/test_it.py"), "")
    return folder / NAME


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock with the one package, as pip writes it."""
    digest = hashlib.sha256(wheel(tmp_path / "right").read_bytes()).hexdigest()
    path = tmp_path / "requirements.lock"
    path.write_text(
        f"other==1.0 \\\n    --hash=sha256:{'0' * 64}\n"
        f"small-thing==1.2 ; python_full_version < '3.13' \\\n    --hash=sha256:{'1' * 64} \\\n"
        f"    --hash=sha256:{digest}\n"
    )
    return path


def test_a_pin_is_read_with_all_its_hashes(lock: Path) -> None:
    requirement, hashes = wheels.locked("small-thing", lock)
    assert (requirement.name, str(requirement.specifier), len(hashes)) == ("small-thing", "==1.2", 2)


def test_the_rivals_and_numpy_are_in_the_lock() -> None:
    for name in (wheels.NUMPY, *wheels.RIVALS.values()):
        assert wheels.locked(name)[1]


def test_a_package_outside_the_lock_is_refused(lock: Path) -> None:
    with pytest.raises(BoardError, match=r"requirements\.lock has no package thing"):
        wheels.locked("thing", lock)


def test_a_kept_wheel_is_used_only_if_its_hash_is_locked(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def pip(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "no matching distribution")

    monkeypatch.setattr(subprocess, "run", pip)
    kept = wheel(tmp_path / "wheels" / "3.11-aarch64")
    assert wheels.fetch("small-thing", TARGET, tmp_path, lock) == kept
    assert asked == []
    wheel(kept.parent, "answer = 43\n")
    with pytest.raises(
        BoardError, match=r"small-thing==1.2 has no wheel for Python 3.11 on aarch64: no matching"
    ):
        wheels.fetch("small-thing", TARGET, tmp_path, lock)
    assert "--require-hashes" in asked[0]
    assert "manylinux_2_34_aarch64" in asked[0]


def test_a_board_gets_the_packages_once(bed: Bed, lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "fetch", lambda name, *_: wheel(lock.parent / "kept"))
    site = wheels.site(bed.board, bed.connection, ["small-thing"], bed.artifacts, lock)
    code = "import small_thing; print(small_thing.answer)"
    out = bed.connection.check([bed.board.python, "-c", code], env={"PYTHONPATH": site})
    assert out == "42\n"
    assert bed.connection.run(["test", "-e", f"{site}/small_thing/tests"]).code == 1
    monkeypatch.setattr(wheels, "_send", lambda *_: pytest.fail("sent again"))
    assert wheels.site(bed.board, bed.connection, ["small-thing"], bed.artifacts, lock) == site


def test_the_boards_python_is_asked(local_bed: Bed) -> None:
    target = wheels.target_of(local_bed.board, local_bed.connection)
    assert target.python == f"{sys.version_info[0]}.{sys.version_info[1]}"
