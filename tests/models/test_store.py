"""Files below artifacts/models are replaced in one step and recognized by their digests."""

from __future__ import annotations

from pathlib import Path

from models import store


def test_writing_replaces_in_one_step_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    store.write(tmp_path / "x", b"new")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"new")]


def test_git_blob_is_what_git_prints(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")

    assert store.git_blob(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert store.git_blob(tmp_path / "missing") is None
