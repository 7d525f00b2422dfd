"""boards/<name>.toml as typed values, and what wrong files say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from pilite.errors import BoardError
from pilite.lab import boards, hostcpu
from pilite.lab.connection import LocalConnection

PI = {
    "kind": "ssh",
    "cpu": "cortex-a72",
    "host": "192.168.0.14",
    "user": "pi",
    "key": "~/.ssh/pi",
    "host_key": "ssh-ed25519 AAAA",
}


def test_the_boards_of_the_tree_are_known() -> None:
    assert {"local", "container"} <= set(boards.names())
    assert boards.DEFAULT_BOARD in boards.names()


@pytest.mark.parametrize("name", boards.names())
def test_every_board_of_the_tree_can_be_read(name: str, tmp_path: Path) -> None:
    board = boards.load(name, tmp_path)
    assert board.cpu in hostcpu.known()
    assert board.root.startswith("/")
    assert board.python


def test_an_unknown_board_lists_the_known_ones(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.toml").write_text('kind = "local"\ncpu = "best"\n')
    with pytest.raises(BoardError, match=r"^No board 'pi9'; boards/ has: a, b\.$"):
        boards.load("pi9", tmp_path, tmp_path)


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"No board '../container'"):
        boards.load("../container", tmp_path, tmp_path)


def inventory(folder: Path, **groups: list[str]) -> Path:
    for name, members in groups.items():
        (folder / f"{name}.toml").write_text(f'kind = "local"\ncpu = "best"\ngroups = {members}\n')
    return folder


@pytest.mark.parametrize(
    ("wanted", "limit", "found"),
    [
        (["a"], "", ["a"]),
        (["desk"], "", ["a", "b"]),
        (["b", "desk", "b"], "", ["b", "a"]),
        (["all"], "", ["a", "b", "c4"]),
        (["all"], "c*", ["c4"]),
        (["all"], "lab, b", ["b", "c4"]),
        (["desk"], "lab", ["b"]),
    ],
)
def test_boards_are_chosen_by_name_group_and_limit(
    tmp_path: Path, wanted: list[str], limit: str, found: list[str]
) -> None:
    folder = inventory(tmp_path, a=["desk"], b=["desk", "lab"], c4=["lab"])
    assert [board.name for board in boards.select(wanted, tmp_path, limit, folder)] == found


def test_an_unknown_group_lists_boards_and_groups(tmp_path: Path) -> None:
    folder = inventory(tmp_path, a=["desk"], b=["lab"])
    with pytest.raises(
        BoardError, match=r"^No board or group 'x'; boards/ has: a, b; groups: all, desk, lab\.$"
    ):
        boards.select(["a", "x"], tmp_path, "", folder)


def test_a_limit_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"--limit z\*: none of a is left"):
        boards.select(["a"], tmp_path, "z*", inventory(tmp_path, a=[]))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "pi.toml").write_text("kind = \n")
    with pytest.raises(BoardError, match=r"^boards/pi\.toml is no TOML: .*Mend it, or remove it"):
        boards.load("pi", tmp_path, tmp_path)


def test_a_pi_is_read_with_its_defaults(tmp_path: Path) -> None:
    lines = [f"{name} = {value!r}" for name, value in PI.items()] + ["threads = [1, 2]"]
    (tmp_path / "pi.toml").write_text("\n".join(lines))
    board = boards.load("pi", tmp_path, tmp_path)
    assert (board.root, board.python, board.port) == ("/home/pi/pilite", "python3", 22)
    assert (board.threads, board.arch, board.timing_valid, board.emulated) == ((1, 2), "aarch64", True, False)


def test_times_of_the_container_never_count(tmp_path: Path) -> None:
    board = boards.load("container", tmp_path)
    assert (board.timing_valid, board.emulated, board.arch) == (False, True, "aarch64")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "vm2"}, "kind is 'vm2'; known kinds: local, container, vm, ssh"),
    ({"cpu": ""}, "cpu missing; a board of kind ssh needs it"),
    ({"host_key": None}, "host_key missing"),
    ({"colour": "red"}, "unknown value colour; known: kind, cpu, threads"),
    ({"threads": []}, r"threads is \[\]; it must be a list of counts such as \[1, 4\]"),
    ({"threads": [1, True]}, "threads is"),
    ({"threads": 4}, "threads is 4"),
    ({"port": "22"}, "port is '22'; it must be a port number"),
    ({"port": 70000}, "port is 70000"),
    ({"user": 7}, "user is 7; it must be a text"),
]


@pytest.mark.parametrize(("change", "text"), WRONG)
def test_a_wrong_value_is_named(change: dict[str, Any], text: str) -> None:
    values = {name: value for name, value in {**PI, **change}.items() if value is not None}
    with pytest.raises(BoardError, match=rf"^boards/pi\.toml: {text}"):
        boards.parse("pi", values)


def test_the_local_board_is_this_machine_and_this_python(tmp_path: Path) -> None:
    board = boards.load("local", tmp_path)
    assert (board.cpu, board.python, board.timing_valid) == (hostcpu.best(), sys.executable, True)
    connection = boards.connect(board, tmp_path)
    assert isinstance(connection, LocalConnection)
    assert Path(board.root).is_dir()
    boards.stop(board, tmp_path)
