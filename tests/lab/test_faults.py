"""Deploys on links and boards that fail: `current` stays whole, a retry converges, no word is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import boards, deploy, fleet, release, signing, ssh
from pilite.lab import container as virtual
from pilite.lab import vm as machine
from pilite.lab.boards import Board
from pilite.lab.connection import Connection
from pilite.lab.release import Place
from pilite.lab.ssh import SshConnection
from tests.lab.conftest import Bed
from tests.lab.faultproxy import Faults, proxy
from tests.lab.stub import ARTIFACTS, MODEL, Stub
from tests.lab.test_deploy import link, put, releases


def is_whole(bed: Bed) -> bool:
    """Whether `current` leads to a release that is signed and right in every byte."""
    place = Place(bed.connection, f"{bed.root}/{MODEL}")
    return release.look(place, link(bed, "current")).intact


def deployed_once(bed: Bed) -> str:
    """A first release, of which faults must leave every byte."""
    return put(bed, Stub(1)).release


def converges(bed: Bed, stub: Stub, old: str) -> None:
    """After the fault: the old release is current and whole; one more deploy makes the new one current."""
    assert (link(bed, "current"), is_whole(bed)) == (old, True)
    again = put(bed, stub, expected=stub)
    assert (again.state, link(bed, "current"), is_whole(bed)) == ("deployed", again.release, True)


# Links.


@contextmanager
def through(bed: Bed, faults: Faults) -> Iterator[Bed]:
    """The same board behind a bad link."""
    assert isinstance(bed.connection, SshConnection)
    address = bed.connection.address
    with (
        proxy(address.port, faults) as bad,
        ssh.connect(replace(address, port=bad.port), 60) as connection,
    ):
        yield Bed(bed.board, connection, bed.artifacts)


LINKS = {
    "connection reset during the upload": "reset_at",
    "black hole during the upload": "silent_at",
    "bit flip on the way": "flip_at",
}


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.parametrize("fault", [pytest.param(name, marks=pytest.mark.fault(name)) for name in LINKS])
def test_a_bad_link_is_an_error_and_a_retry_converges(
    container_bed: Bed, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = deployed_once(container_bed)
    monkeypatch.setattr(ssh, "DEAD", 4)
    faults = Faults()
    with through(container_bed, faults) as bad:
        bad.connection.run(["true"])
        setattr(faults, LINKS[fault], faults.sent + 40_000)  # a release of the stub has 84,000 bytes
        with pytest.raises(BoardError, match=rf"^{container_bed.board.name} \(bench@127.0.0.1"):
            put(bad, Stub(2))
    converges(container_bed, Stub(2), old)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.fault("slow link")
def test_a_slow_link_takes_longer_and_works(container_bed: Bed) -> None:
    with through(container_bed, Faults(delay=0.05)) as slow:
        assert put(slow, Stub(2), expected=Stub(2)).state == "deployed"
    assert is_whole(container_bed)


@contextmanager
def hung(board: Board) -> Iterator[None]:
    """The board stops answering, and goes on afterwards."""
    if board.kind == "container":
        container = virtual.client().containers.get(virtual.name_of(board, ARTIFACTS))
        container.pause()
        try:
            yield
        finally:
            container.unpause()
    else:
        folder = machine.folder_of(board, ARTIFACTS)
        process = machine.recorded(folder)
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)


@pytest.mark.fault("board hangs")
def test_a_board_that_hangs_is_named_and_works_again_afterwards(
    far_bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = deployed_once(far_bed)
    with monkeypatch.context() as patch:
        patch.setattr(ssh, "DEAD", 3)
        patch.setattr(ssh, "GRACE", 1)
        waiting = boards.connect(far_bed.board, ARTIFACTS)
        with hung(far_bed.board), pytest.raises(BoardError, match=rf"^{far_bed.board.name} \("):
            waiting.run(["true"], timeout=1)
        waiting.close()
    with boards.connect(far_bed.board, ARTIFACTS) as fresh:
        converges(Bed(far_bed.board, fresh, far_bed.artifacts), Stub(2), old)


@pytest.mark.fault("command outlives its time-out (orphan)")
def test_a_command_that_takes_too_long_leaves_no_orphan(every_bed: Bed) -> None:
    word = f"61.{time.monotonic_ns() % 10**6}"
    with pytest.raises(BoardError, match=r"was not done after 1 s and was killed"):
        every_bed.connection.run(["sh", "-c", f"sleep {word} & sleep {word}"], timeout=1)
    there = ["sh", "-c", f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep {word}'"]
    count = int(every_bed.connection.run(there).out)
    assert count <= 1  # the question itself


# What is deployed.


@pytest.mark.fault("artifact for another machine")
def test_code_for_another_machine_is_refused_before_anything_is_sent(every_bed: Bed) -> None:
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[every_bed.board.arch]
    with pytest.raises(BoardError, match=rf"code for {other}; the board needs {every_bed.board.arch}"):
        put(every_bed, Stub(code_for=other))
    assert every_bed.connection.run(["test", "-e", f"{every_bed.root}/{MODEL}"]).code


@pytest.mark.fault("ELF aligned to 4 KiB")
def test_an_elf_that_a_pi_5_cannot_map_is_refused_before_anything_is_sent(every_bed: Bed) -> None:
    with pytest.raises(BoardError, match="aligned to 4096 bytes"):
        put(every_bed, Stub(page_bytes=4096))
    assert every_bed.connection.run(["test", "-e", f"{every_bed.root}/{MODEL}"]).code


@pytest.mark.fault("release without a signature")
def test_an_unsigned_release_is_refused_by_the_board(home_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    old = deployed_once(home_bed)
    with monkeypatch.context() as patch:
        patch.setattr(signing, "sign", lambda *_: "")
        with pytest.raises(BoardError, match=r"the copy on the board is not signed by a key in"):
            put(home_bed, Stub(2))
    assert (link(home_bed, "current"), releases(home_bed)) == (old, [old])


# Who deploys.


@pytest.mark.fault("two deployers at once")
def test_of_two_deployers_one_is_told_to_wait(home_bed: Bed) -> None:
    old = deployed_once(home_bed)
    other = Place(home_bed.connection, f"{home_bed.root}/{MODEL}", "other@there/1")
    release.begin(other, "0" * 16)
    with pytest.raises(BoardError, match=r"other@there/1 deploys there"):
        put(home_bed, Stub(2))
    with release.turn(other, home_bed.artifacts):
        pass  # the other one ends
    converges(home_bed, Stub(2), old)


@pytest.mark.fault("deployer killed in the middle")
def test_a_killed_deployer_keeps_nobody_waiting(local_bed: Bed) -> None:
    old = deployed_once(local_bed)
    Stub(2).write(local_bed.artifacts, local_bed.board)
    code = (
        "import sys, os; from pathlib import Path; from dataclasses import replace\n"
        "from pilite.lab import boards, deploy, release\n"
        "release.stage = lambda *_: os.kill(os.getpid(), 9)\n"
        "a = Path(sys.argv[1]); b = replace(boards.load('local', a), root=sys.argv[2])\n"
        "deploy.deploy(b, boards.connect(b, a), 'stub', a)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(local_bed.artifacts), local_bed.root], check=False)
    assert done.returncode == -9
    assert Path(local_bed.root, MODEL, ".lease").exists()
    converges(local_bed, Stub(2), old)


@pytest.mark.fault("one board of a fleet is off")
def test_a_board_that_is_off_hides_no_other(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    off = Board("off", "ssh", bed.board.cpu, host="127.0.0.1", port=1, user="pi", key=__file__)
    connect = boards.connect

    def either(board: Board, artifacts: Path) -> Connection:
        return connect(board, artifacts) if board is off else bed.connection

    monkeypatch.setattr(boards, "connect", either)
    monkeypatch.setattr(type(bed.connection), "close", lambda self: None)
    Stub(1).write(bed.artifacts, bed.board)
    outcome = fleet.each(
        [off, bed.board],
        bed.artifacts,
        lambda board, connection, say: deploy.deploy(board, connection, MODEL, bed.artifacts),
    )
    assert [done.state for done in outcome.done.values()] == ["deployed"]
    assert list(outcome.failures) == ["off"]
    with pytest.raises(BoardError, match=r"^off \(pi@127.0.0.1:1\): "):
        outcome.raise_failures()


@pytest.mark.fault("8 boards at once")
@pytest.mark.slow
def test_many_boards_of_one_machine_deploy_at_once(local_bed: Bed) -> None:
    Stub(1).write(local_bed.artifacts, local_bed.board)
    found = [replace(local_bed.board, name=f"b{i}", root=f"{local_bed.root}/{i}") for i in range(8)]
    lock, most = threading.Lock(), [0, 0]

    def act(board: Board, connection: Connection, say: fleet.Say) -> str:
        with lock:
            most[0] += 1
            most[1] = max(most)
        state = deploy.deploy(board, connection, MODEL, local_bed.artifacts).state
        with lock:
            most[0] -= 1
        return state

    for wanted in ("deployed", "unchanged"):
        outcome = fleet.each(found, local_bed.artifacts, act)
        assert (set(outcome.done.values()), outcome.failures) == ({wanted}, {})
    assert most[1] > 1
