"""SSH: the pinned host key and no other, the given key and no other."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import boardkeys, boards, ssh
from pilite.lab import container as virtual
from pilite.lab.connection import Connection
from tests.lab.sshd import doorman
from tests.lab.stub import ARTIFACTS, ROOT


@pytest.fixture
def address(container: Connection) -> ssh.Address:
    """Where the running container is, and its right keys."""
    board = boards.load("container", ARTIFACTS)
    keys = boardkeys.make_keys(ARTIFACTS / "board" / board.name / "keys")
    port = virtual.port_of(virtual.client().containers.get(virtual.name_of(board, ARTIFACTS)))
    return ssh.Address(board.name, "127.0.0.1", port, board.user, keys.client, keys.host_public)


@pytest.mark.docker
def test_the_pinned_host_key_is_accepted(address: ssh.Address) -> None:
    with ssh.connect(address, 60) as connection:
        assert connection.check(["id", "-un"]) == "bench\n"


@pytest.mark.fault("wrong host key")
@pytest.mark.docker
def test_another_host_key_is_refused(address: ssh.Address, tmp_path: Path) -> None:
    other = boardkeys.make_keys(tmp_path).host_public
    with pytest.raises(BoardError, match=r"shows another host key than the pinned one"):
        ssh.connect(replace(address, host_key=other), 60)


@pytest.mark.parametrize(
    "pinned",
    [
        pytest.param(True, marks=pytest.mark.fault("wrong host key")),
        pytest.param(False, marks=pytest.mark.fault("unknown host key")),
    ],
)
def test_nothing_is_sent_to_a_host_with_another_key(tmp_path: Path, pinned: bool) -> None:
    keys = boardkeys.make_keys(tmp_path)
    with doorman() as door:
        key = keys.host_public if pinned else ""
        with pytest.raises(BoardError, match=r"another host key|its host key is not pinned"):
            ssh.connect(ssh.Address("pi", "127.0.0.1", door.port, "pi", keys.client, key))
        assert door.tried == []


@pytest.mark.fault("unknown host key")
@pytest.mark.docker
def test_a_host_key_that_is_not_pinned_is_refused(address: ssh.Address) -> None:
    with pytest.raises(BoardError, match=r"its host key is not pinned"):
        ssh.connect(replace(address, host_key=""), 60)


@pytest.mark.docker
def test_another_user_key_is_refused(address: ssh.Address, tmp_path: Path) -> None:
    other = boardkeys.make_keys(tmp_path).client
    with pytest.raises(BoardError, match=rf"the board refuses the key {other}"):
        ssh.connect(replace(address, key=other), 60)


@pytest.mark.fault("board is off")
def test_a_board_that_is_off_is_named_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        keys = boardkeys.make_keys(tmp_path)
        port = unused.getsockname()[1]
        off = ssh.Address("pi", "127.0.0.1", port, "pi", keys.client, keys.host_public)
        with pytest.raises(BoardError, match=rf"^pi \(pi@127\.0\.0\.1:{port}\): no connection .*Is it on"):
            ssh.connect(off, 5)


def test_a_missing_key_file_is_named() -> None:
    lost = ssh.Address("pi", "127.0.0.1", 9, "pi", Path("/nowhere/key"), "")
    with pytest.raises(BoardError, match=r"no key file /nowhere/key\. Name another \(onboard --key"):
        ssh.connect(lost)


@pytest.mark.parametrize("text", ["AAAA", "ssh-ed25519", "ssh-ed25519 !", "ssh-ed25519 AAAA", "rot13 AAAA"])
def test_a_host_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BoardError, match=r"host_key is no public key such as"):
        ssh.parse_host_key(text, "pi")


def test_no_code_accepts_unknown_host_keys() -> None:
    lenient = ("Auto" + "AddPolicy", "Warning" + "Policy")
    for path in (*ROOT.glob("pilite/**/*.py"), *ROOT.glob("tests/**/*.py"), ROOT / "tasks.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(name in text for name in lenient), path
