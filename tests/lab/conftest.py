"""Boards for the lab's tests: this machine below a temporary folder, and the container where Docker runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pilite.lab import boards
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from tests.conftest import missing_docker
from tests.lab.stub import ARTIFACTS

# Sending numpy takes half a minute: beds on the container share it, and Python's byte code.
SHARE = 'mkdir -p "$1/site" "$1/pycache" "$2" && ln -s "$1/site" "$1/pycache" "$2"'


@dataclass(frozen=True)
class Bed:
    """A board under test: connected, and with artifacts of its own."""

    board: Board
    connection: Connection
    artifacts: Path

    @property
    def root(self) -> str:
        return self.board.root


@pytest.fixture(scope="session")
def container() -> Iterator[Connection]:
    """One connection to the `container` board for all tests."""
    with boards.connect(boards.load("container", ARTIFACTS), ARTIFACTS) as connection:
        yield connection


@pytest.fixture
def local_bed(tmp_path: Path) -> Bed:
    """This machine."""
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "loader").symlink_to(ARTIFACTS / "loader")  # the built loader is the same
    board = replace(boards.load("local", artifacts), root=str(tmp_path / "board"))
    return Bed(board, boards.connect(board, artifacts), artifacts)


@pytest.fixture
def container_bed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bed]:
    """The container, in a folder of its own there."""
    if missing_docker():
        pytest.skip(missing_docker())
    connection: Connection = request.getfixturevalue("container")
    (tmp_path / "loader").symlink_to(ARTIFACTS / "loader")
    board = boards.load("container", ARTIFACTS)
    shared, board = board.root, replace(board, root=f"{board.root}-test/{tmp_path.name}")
    connection.check(["sh", "-c", SHARE, "share", shared, board.root])
    yield Bed(board, connection, tmp_path)
    connection.run(["rm", "-rf", board.root])
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(params=["local", pytest.param("container", marks=[pytest.mark.docker, pytest.mark.slow])])
def bed(request: pytest.FixtureRequest) -> Bed:
    """Each kind of board in turn."""
    found: Bed = request.getfixturevalue(f"{request.param}_bed")
    return found
