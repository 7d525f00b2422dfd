"""Boards for the lab's tests: this machine below a temporary folder, and the container where Docker runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pilite.lab import boards
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from tests.conftest import missing_docker, missing_vm
from tests.lab.stub import ARTIFACTS, share

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")

# Sending numpy takes half a minute: beds on the container share it, and Python's byte code.
SHARE = 'rm -rf "$2" && mkdir -p "$1/site" "$1/pycache" "$2" && ln -s "$1/site" "$1/pycache" "$2"'


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
    share("loader", artifacts)
    board = replace(boards.load("local", artifacts), root=str(tmp_path / "board"))
    return Bed(board, boards.connect(board, artifacts), artifacts)


@pytest.fixture
def container_bed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bed]:
    """The container, in a folder of its own there."""
    if missing_docker():
        pytest.skip(missing_docker())
    connection: Connection = request.getfixturevalue("container")
    share("loader", tmp_path)
    board = boards.load("container", ARTIFACTS)
    shared, board = board.root, replace(board, root=f"{board.root}-test/{tmp_path.name}")
    connection.check(["sh", "-c", SHARE, "share", shared, board.root])
    yield Bed(board, connection, tmp_path)
    connection.run(["rm", "-rf", board.root])
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture(scope="session")
def vm() -> Iterator[Board]:
    """A `vm` board of this process's own, with an empty disk; forgotten after the last test.

    Of this process: tests that run beside cut its power.
    """
    if missing_vm():
        pytest.skip(missing_vm())
    board = replace(boards.load("vm", ARTIFACTS), name=f"vm-test-{WORKER}")
    boards.stop(board, ARTIFACTS)
    yield board
    boards.stop(board, ARTIFACTS)


@pytest.fixture
def vm_bed(tmp_path: Path, vm: Board) -> Iterator[Bed]:
    """The virtual machine, in a folder of its own there; it is started if a test before has cut its power."""
    share("loader", tmp_path)
    shared, board = vm.root, replace(vm, root=f"{vm.root}-test/{tmp_path.name}")
    with boards.connect(vm, ARTIFACTS) as connection:
        connection.check(["sh", "-c", SHARE, "share", shared, board.root])
        yield Bed(board, connection, tmp_path)
    with boards.connect(vm, ARTIFACTS) as again:
        again.run(["rm", "-rf", board.root])


CONTAINER = pytest.param("container", marks=[pytest.mark.docker, pytest.mark.slow])
VM = pytest.param("vm", marks=[pytest.mark.slow])


@pytest.fixture(params=[CONTAINER, VM])
def far_bed(request: pytest.FixtureRequest) -> Bed:
    """Each kind of board that is reached over SSH, in turn."""
    found: Bed = request.getfixturevalue(f"{request.param}_bed")
    return found


@pytest.fixture(params=["local", CONTAINER, VM])
def every_bed(request: pytest.FixtureRequest) -> Bed:
    """Each kind of board in turn, the slowest too."""
    found: Bed = request.getfixturevalue(f"{request.param}_bed")
    return found


@pytest.fixture(params=["local", VM])
def home_bed(request: pytest.FixtureRequest) -> Bed:
    """This machine, and one with a kernel of its own."""
    found: Bed = request.getfixturevalue(f"{request.param}_bed")
    return found


@pytest.fixture(params=["local", CONTAINER])
def bed(request: pytest.FixtureRequest) -> Bed:
    """This machine, and a board that is reached over SSH."""
    found: Bed = request.getfixturevalue(f"{request.param}_bed")
    return found
