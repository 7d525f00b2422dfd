"""Folders of finished runs: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilite.lab import store

DOCUMENT: dict[str, Any] = {"time": "2026-01-02T03:04:05Z", "board": {"name": "pi"}}


def fill(folder: Path) -> None:
    (folder / "result.json").write_text("{}")


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = [store.add(tmp_path / "bench", DOCUMENT, fill).name for _ in range(3)]
    assert names == ["20260102T030405Z-pi", "20260102T030405Z-pi-2", "20260102T030405Z-pi-3"]
    assert [path.name for path in store.finished(tmp_path / "bench")] == names


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        store.add(tmp_path, DOCUMENT, fail)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_no_finished_run(tmp_path: Path) -> None:
    left = tmp_path / f"{store.BESIDE}x"
    left.mkdir()
    fill(left)
    assert list(store.finished(tmp_path)) == []
    assert list(store.finished(tmp_path / "none")) == []
