"""The vm board: a kernel of its own, a disk that forgets what was not synced, power that can be cut."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pilite.errors import BoardError, PiliteError
from pilite.lab import boards, cpio, release, vmimage
from pilite.lab import vm as machine
from pilite.lab.boardkeys import make_keys
from pilite.lab.boards import Board
from pilite.lab.connection import SECONDS, Connection, Heard, Progress, Result, nothing
from tests.lab.conftest import Bed
from tests.lab.stub import ARTIFACTS, MODEL, Stub, share
from tests.lab.test_deploy import link, put
from tests.lab.test_faults import is_whole


@pytest.mark.slow
def test_it_is_a_pi_like_machine_with_a_kernel_of_its_own(vm_bed: Bed) -> None:
    script = (
        "nproc; id -un; uname -r; grep -m1 'CPU part' /proc/cpuinfo; LD_SHOW_AUXV=1 /bin/true | grep HWCAP:"
    )
    cores, user, kernel, part, hwcap = vm_bed.connection.check(["sh", "-c", script]).splitlines()
    assert (cores, user) == (str(machine.CORES), "bench")
    assert kernel != os.uname().release
    assert "0xd08" in part
    assert not int(hwcap.split()[1], 16) & 1 << 20  # no dot product in a cortex-a72


@pytest.mark.slow
def test_a_running_machine_is_used_again_and_forgotten_when_stopped(tmp_path: Path, vm: Board) -> None:
    share("vboard", tmp_path)
    board = replace(vm, name="other", cpu="cortex-a53")
    folder = machine.folder_of(board, tmp_path)
    try:
        folder.mkdir(parents=True)
        keys = make_keys(folder.parent / "keys")
        first = machine.start(board, keys, tmp_path)
        assert machine.start(board, keys, tmp_path) == first
        assert machine.runs(first, folder)
    finally:
        boards.stop(board, tmp_path)
    assert not machine.runs(first, folder)
    assert not folder.exists()
    boards.stop(board, tmp_path)  # a second time is no error


@pytest.mark.fault("vm's port taken by another program")
def test_a_port_that_somebody_else_has_is_said_and_the_next_start_takes_another(
    vm: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share("vboard", tmp_path)
    board = replace(vm, name="other")
    with socket.create_server(("127.0.0.1", 0)) as taken, monkeypatch.context() as patch:
        patch.setattr(machine, "_free_port", lambda: taken.getsockname()[1])
        with pytest.raises(BoardError, match=r"no sshd, because its QEMU has ended\. .*host forwarding rule"):
            boards.connect(board, tmp_path)
    try:
        with boards.connect(board, tmp_path) as connection:
            assert connection.check(["id", "-un"]) == "bench\n"
    finally:
        boards.stop(board, tmp_path)


def test_another_process_with_the_same_number_is_not_the_machine(tmp_path: Path) -> None:
    assert not machine.runs(machine.Machine(os.getpid(), 1, ""), tmp_path)
    assert not machine.runs(machine.Machine(2**22 + 1, 1, ""), tmp_path)


def test_a_damaged_record_is_no_machine(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"pid": 1}'):
        (tmp_path / "machine.json").write_text(text)
        assert machine.recorded(tmp_path) is None


def test_a_power_cut_does_not_forget_a_machine_that_was_started_meanwhile(
    vm: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines on one disk would destroy it."""
    folder = machine.folder_of(replace(vm, name="other"), tmp_path)
    folder.mkdir(parents=True)
    record, old, new = folder / "machine.json", machine.Machine(2**22, 1, "old"), machine.Machine(7, 2, "new")
    record.write_text(json.dumps(asdict(old)))

    def ended(asked: machine.Machine, where: Path) -> bool:
        record.write_text(json.dumps(asdict(new)))
        return False

    monkeypatch.setattr(machine, "runs", ended)
    machine.power_cut(replace(vm, name="other"), tmp_path)

    assert machine.recorded(folder) == new


@pytest.mark.parametrize(
    ("is_there", "words"),
    [(True, "although its QEMU has run for 0 s: stop the board"), (False, "because its QEMU has ended")],
)
def test_a_machine_that_does_not_answer_says_whether_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, words: str
) -> None:
    monkeypatch.setattr(machine, "start", lambda *_: machine.Machine(1, 1, "x"))
    monkeypatch.setattr(machine, "runs", lambda *_: is_there)
    monkeypatch.setattr(machine, "PATIENCE", 0)
    with pytest.raises(BoardError, match=words):
        machine.connect(boards.load("vm", tmp_path), tmp_path)


def test_modules_come_after_their_needs() -> None:
    assert vmimage.needs(b"\x7fELF..\0depends=jbd2,mbcache\0name=ext4\0") == ["jbd2", "mbcache"]
    assert vmimage.needs(b"\x7fELF..\0depends=\0name=virtio_blk\0") == []
    assert vmimage.needs(b"\x7fELF") == []


def test_a_cpio_member_is_what_cpio_5_says() -> None:
    data = cpio.archive({"init": cpio.Entry(0o755, b"abcde")}, ["bin"])
    assert len(data) % 4 == 0
    folder, file = data.index(b"bin\0") - 110, data.index(b"init\0") - 110
    assert data[folder : folder + 22] == b"070701" + b"00000001" + b"000041ED"
    assert data[file : file + 22] == b"070701" + b"00000002" + b"000081ED"
    assert data[file + 54 : file + 62] == b"00000005"
    assert data[file + 116 : file + 121] == b"abcde"
    assert b"TRAILER!!!\0" in data


# Power cuts.


class Cutting(Connection):
    """Passes everything on; when `strikes` likes what is about to be done, the power goes `delay` s later."""

    def __init__(self, under: Connection, cut: Callable[[], None], strikes: str, delay: float) -> None:
        self.where, self._under, self._cut = under.where, under, cut
        self._strikes, self._delay = strikes, delay
        self._timer: threading.Timer | None = None

    def _maybe(self, what: str) -> None:
        if what == self._strikes and self._timer is None:
            self._timer = threading.Timer(self._delay, self._cut)
            self._timer.start()

    def wait(self) -> None:
        """Until it has struck: what was cut may have ended earlier, and the next machine is not meant."""
        if self._timer is not None:
            self._timer.join()

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = SECONDS,
        env: Mapping[str, str] | None = None,
        heard: Heard | None = None,
    ) -> Result:
        self._maybe(command[4] if command[3:4] == ["release.sh"] else Path(command[0]).name)
        return self._under.run(command, timeout=timeout, env=env, heard=heard)

    def put(self, source: Path, target: str, *, start: int = 0, progress: Progress = nothing) -> None:
        self._maybe(Path(target).name)
        self._under.put(source, target, start=start, progress=progress)

    def get(self, source: str, target: Path) -> None:
        self._under.get(source, target)

    def close(self) -> None:
        self._under.close()

    def cut(self) -> None:
        self._under.cut()


CUTS = {
    "power cut during the upload": ("model.so", 0.0),
    "power cut during verification": ("stage", 0.3),
    "power cut during the health check": ("pilite-run", 0.1),
    "power cut at the switch": ("switch", 0.2),
    "power cut after the deploy was acknowledged": ("", 0.0),
}


def seen(bed: Bed) -> str:
    """What is on the disk, for a failure that a second run may not show."""
    script = 'cd "$1" && ls -laR .. && cd current && sha256sum -c MANIFEST.sha256; dmesg | tail -n 20'
    return str(bed.connection.run(["sh", "-c", script, "seen", f"{bed.root}/{MODEL}"]))


@pytest.fixture
def rebooted(vm: Board, vm_bed: Bed) -> Iterator[Callable[[], Bed]]:
    """Switch the machine on again: the same disk, a new connection."""
    opened: list[Connection] = []

    def again() -> Bed:
        opened.append(boards.connect(vm, ARTIFACTS))
        return replace(vm_bed, connection=opened[-1])

    yield again
    for connection in opened:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.fault(name)) for name in CUTS])
def test_a_power_cut_leaves_a_whole_release(
    vm_bed: Bed, rebooted: Callable[[], Bed], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`current` is whole; what was acknowledged is current; the next deploy works."""
    strikes, delay = CUTS[name]
    old = put(vm_bed, Stub(1)).release
    cutting = Cutting(vm_bed.connection, lambda: boards.power_cut(vm_bed.board, ARTIFACTS), strikes, delay)
    acknowledged = ""
    with suppress(PiliteError), monkeypatch.context() as patch:
        patch.setattr("pilite.lab.ssh.DEAD", 5)  # for this deploy alone: slow is not dead
        acknowledged = put(replace(vm_bed, connection=cutting), Stub(2)).release
    cutting.wait()
    boards.power_cut(vm_bed.board, ARTIFACTS)
    bed = rebooted()
    current = link(bed, "current")
    assert is_whole(bed), seen(bed)
    assert current == acknowledged if acknowledged else current != ""
    again = put(bed, Stub(2), expected=Stub(2))
    assert link(bed, "current") == again.release
    assert again.release != old


@pytest.mark.slow
@pytest.mark.fault("control: without fsync a power cut loses a deploy")
def test_without_fsync_an_acknowledged_deploy_is_lost(
    vm_bed: Bed, rebooted: Callable[[], Bed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above would see if release.sh did not sync: they can fail."""
    put(vm_bed, Stub(1))
    lazy = "sync() { :; }\n" + release.SCRIPT.replace("-exec sync {} +", "-exec true {} +")
    assert lazy.count("-exec true") == 1
    monkeypatch.setattr(release, "SCRIPT", lazy)
    acknowledged = put(vm_bed, Stub(2)).release
    boards.power_cut(vm_bed.board, ARTIFACTS)
    monkeypatch.undo()
    bed = rebooted()
    assert link(bed, "current") != acknowledged or not is_whole(bed)
    assert put(bed, Stub(2), expected=Stub(2)).state == "deployed"


# A full disk and a wrong clock.


@pytest.mark.slow
@pytest.mark.parametrize("left_kb", [pytest.param(0, marks=pytest.mark.fault("disk full")), 72])
def test_a_full_disk_keeps_the_old_release(
    vm_bed: Bed, left_kb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put(vm_bed, Stub(1)).release
    most = "fallocate -l $(($(df -k --output=avail . | tail -1) - 2048))K filler"
    rest = f"cat /dev/zero > rest 2>/dev/null; truncate -s -{left_kb}K rest; sync ."
    vm_bed.connection.check(["sh", "-c", f'cd "$1" && {most}; {rest}', "fill", vm_bed.root])
    if left_kb:
        monkeypatch.setattr(release, "SPARE", -1 << 40)  # it fills up while the files are sent
    with pytest.raises(BoardError, match=r"the board's disk.* Make room there"):
        put(vm_bed, Stub(2))
    assert (link(vm_bed, "current"), is_whole(vm_bed)) == (old, True)
    vm_bed.connection.check(["rm", f"{vm_bed.root}/filler", f"{vm_bed.root}/rest"])
    assert put(vm_bed, Stub(2), expected=Stub(2)).state == "deployed"


@pytest.mark.slow
@pytest.mark.fault("board's clock is years off")
def test_a_clock_that_is_years_off_changes_nothing(
    vm: Board, vm_bed: Bed, rebooted: Callable[[], Bed]
) -> None:
    """A Pi has no clock of its own: it starts somewhen, and jumps when the network tells it the time."""
    old = put(vm_bed, Stub(1)).release
    boards.power_cut(vm_bed.board, ARTIFACTS)
    folder = machine.folder_of(vm_bed.board, ARTIFACTS)
    machine.start(vm, make_keys(folder.parent / "keys"), ARTIFACTS, clock="2001-01-01")
    bed = rebooted()
    assert bed.connection.check(["date", "+%Y"]) == "2001\n"
    new = put(bed, Stub(2), expected=Stub(2)).release
    assert (link(bed, "current"), link(bed, "previous"), is_whole(bed)) == (new, old, True)
    boards.power_cut(vm_bed.board, ARTIFACTS)  # so that the next test has the right time again
