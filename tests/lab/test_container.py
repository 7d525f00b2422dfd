"""The container board: a real sshd, the CPU of its file, its own keys, quick to start again."""

from __future__ import annotations

import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

import docker
from pilite.errors import BoardError
from pilite.lab import boardkeys, boards, hostcpu
from pilite.lab import container as virtual
from pilite.lab.connection import Connection
from tests.lab.stub import ARTIFACTS

NO_DOTPROD, DOTPROD = 0x8FB, 0x119FFB  # AT_HWCAP as QEMU 7.2 shows it


def hwcap(connection: Connection) -> int:
    out = connection.check(["env", "LD_SHOW_AUXV=1", "/bin/true"])
    return int(next(line.split()[1] for line in out.splitlines() if line.startswith("AT_HWCAP:")), 16)


@pytest.mark.docker
def test_sessions_see_the_cpu_of_the_boards_file(container: Connection) -> None:
    board = boards.load("container", ARTIFACTS)
    assert (board.cpu, hwcap(container)) == ("cortex-a72", NO_DOTPROD)
    assert hostcpu.best(container.check(["cat", "/proc/cpuinfo"]), hostcpu.known()) == board.cpu


@pytest.mark.docker
def test_it_is_an_arm_userland_of_an_ordinary_user(container: Connection) -> None:
    out = container.check(["sh", "-c", "uname -m; id -u; ls -l /proc/self/exe; touch /etc/x 2>&1 || true"])
    assert out.splitlines()[:2] == ["aarch64", "1000"]
    assert "Permission denied" in out


@pytest.mark.docker
def test_a_running_board_is_used_again(container: Connection) -> None:
    board = boards.load("container", ARTIFACTS)
    before = virtual.client().containers.get(virtual.name_of(board, ARTIFACTS)).id
    start = time.monotonic()
    with boards.connect(board, ARTIFACTS) as again:
        again.check(["true"])
    assert time.monotonic() - start < 20
    assert virtual.client().containers.get(virtual.name_of(board, ARTIFACTS)).id == before


@pytest.mark.docker
@pytest.mark.slow
def test_another_cpu_makes_another_board_and_stop_forgets_it(tmp_path: Path) -> None:
    board = replace(boards.load("container", tmp_path), name="other")
    (tmp_path / "vboard").symlink_to(ARTIFACTS / "vboard")
    try:
        for cpu, wanted in (("cortex-a76", DOTPROD), ("cortex-a53", NO_DOTPROD)):
            with boards.connect(replace(board, cpu=cpu), tmp_path) as connection:
                assert hwcap(connection) == wanted
    finally:
        boards.stop(board, tmp_path)
    names = [found.name for found in virtual.client().containers.list(all=True)]
    assert virtual.name_of(board, tmp_path) not in names
    boards.stop(board, tmp_path)  # a second time is no error


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first, second = boardkeys.make_keys(tmp_path / "keys"), boardkeys.make_keys(tmp_path / "keys")
    assert first == second
    assert first.client_public != first.host_public
    assert first.client_public.startswith("ssh-ed25519 AAAA")
    for path in (first.client, first.host):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_checkouts_have_two_containers(tmp_path: Path) -> None:
    board = boards.load("container", tmp_path)
    assert virtual.name_of(board, tmp_path / "a") != virtual.name_of(board, tmp_path / "b")


def test_without_docker_the_message_says_what_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(**_: Any) -> None:
        raise DockerException("Connection refused")

    monkeypatch.setattr(docker, "from_env", absent)
    with pytest.raises(BoardError, match=r"no engine answers: Connection refused. Start it"):
        virtual.client()
