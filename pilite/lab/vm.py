"""Boards of kind `vm`: an arm64 Debian with its own kernel in qemu-system-aarch64, for each checkout its own.

It keeps running between commands. A power cut treats its disk as a real one: what was not synced is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pilite.errors import BoardError
from pilite.lab import cpio, image, lock, ssh, vmimage
from pilite.lab.boardkeys import Keys, make_keys
from pilite.lab.boards import Board
from pilite.lab.connection import Connection

PATIENCE = 240.0  # seconds until sshd answers; about 8 on an idle machine
CORES = 4  # as a Pi has
MEMORY_MB = 1024


@dataclass(frozen=True)
class Machine:
    """A running QEMU: `wanted` is a hash of everything that it was made from."""

    pid: int
    port: int
    wanted: str


def connect(board: Board, artifacts: Path) -> Connection:
    """Start the board unless it runs, and log in. Raises BoardError."""
    folder = folder_of(board, artifacts)
    keys = make_keys(folder.parent / "keys")
    with lock.held(folder / "lock"):
        machine = start(board, keys, artifacts)
    address = ssh.Address(board.name, "127.0.0.1", machine.port, board.user, keys.client, keys.host_public)
    end = time.monotonic() + PATIENCE
    while not ssh.listens(address):
        why = _silence(machine, folder, time.monotonic() > end)
        if why:
            raise BoardError(f"{address}: no sshd, {why}. Its console says: {_console(folder)}")
        time.sleep(0.2)
    return ssh.connect(address, PATIENCE)


def _silence(machine: Machine, folder: Path, late: bool) -> str:
    """Why nobody will answer any more; empty while somebody may."""
    if not runs(machine, folder):
        return "because its QEMU has ended"
    return f"although its QEMU has run for {PATIENCE:.0f} s: stop the board and try again" if late else ""


def folder_of(board: Board, artifacts: Path) -> Path:
    return artifacts.resolve() / "board" / board.name / "vm"


def remove(board: Board, artifacts: Path) -> None:
    """Stop the board and forget what is on it."""
    power_cut(board, artifacts)
    shutil.rmtree(folder_of(board, artifacts), ignore_errors=True)


def power_cut(board: Board, artifacts: Path) -> None:
    """End QEMU at once: the guest's memory is lost with everything that it had not synced to its disk."""
    folder = folder_of(board, artifacts)
    machine = recorded(folder)
    if machine and runs(machine, folder):
        os.kill(machine.pid, signal.SIGKILL)
        while runs(machine, folder):
            time.sleep(0.01)
    if recorded(folder) == machine:  # another one, that was started meanwhile, would run on unknown
        (folder / "machine.json").unlink(missing_ok=True)


def start(board: Board, keys: Keys, artifacts: Path, clock: str = "utc") -> Machine:
    """The running machine of this board; one of another recipe or with other settings is replaced.

    `clock`: what its clock shows at the start, as QEMU's -rtc base= takes it.
    """
    folder, recipe = folder_of(board, artifacts), vmimage.read_recipe()
    settings = settings_of(board, keys)
    parts = (recipe.userland.id.encode(), board.cpu.encode(), settings)
    wanted = hashlib.sha256(b"\0".join(parts)).hexdigest()
    machine = recorded(folder)
    if machine and machine.wanted == wanted and runs(machine, folder):
        return machine
    power_cut(board, artifacts)
    files = vmimage.files(recipe, artifacts)
    (folder / "initrd").write_bytes(files.initrd.read_bytes() + settings)
    if not (folder / "home.img").is_file() or _stamp(folder) != wanted:
        _make_disk(folder, recipe.home_mb)
        (folder / "stamp").write_text(wanted)
    return _launch(board, files, folder, wanted, clock)


def settings_of(board: Board, keys: Keys) -> bytes:
    """sshd_config, the host key and the one user key, as a second initramfs."""
    config = (image.FOLDER / "sshd_config").read_text(encoding="utf-8").format(cpu=board.cpu)
    entries = {
        "board/sshd_config": cpio.Entry(0o644, config.encode()),
        "board/host_key": cpio.Entry(0o600, keys.host.read_bytes()),
        "board/authorized_keys": cpio.Entry(0o644, keys.client_public.encode() + b"\n"),
    }
    return cpio.archive(entries)


def recorded(folder: Path) -> Machine | None:
    """The machine that was started last; None if there is none, or its power was cut."""
    try:
        return Machine(**json.loads((folder / "machine.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _stamp(folder: Path) -> str:
    return (folder / "stamp").read_text() if (folder / "stamp").is_file() else ""


def runs(machine: Machine, folder: Path) -> bool:
    """Whether the process is there and is this board's: numbers are used again."""
    try:
        state = Path(f"/proc/{machine.pid}/stat").read_text().rpartition(")")[2].split()[0]
        line = Path(f"/proc/{machine.pid}/cmdline").read_bytes()
    except OSError:
        return False
    ended, starting = state in "ZX", line == b""  # the line is empty for a moment while a program starts
    return not ended and (starting or str(folder / "initrd").encode() in line.split(b"\0"))


def _make_disk(folder: Path, megabytes: int) -> None:
    """An empty ext4 that belongs to the board's user."""
    disk = folder / "home.img"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(megabytes << 20)
    options = f"root_owner={image.USER}:{image.USER},lazy_itable_init=0"
    tool = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if tool is None:
        raise BoardError("The vm board needs mkfs.ext4 to make its disk: apt-get install e2fsprogs")
    subprocess.run([tool, "-q", "-F", "-m", "0", "-E", options, str(disk)], check=True)


def _launch(board: Board, files: vmimage.Files, folder: Path, wanted: str, clock: str) -> Machine:
    """Start QEMU, free of this process, and record it."""
    if shutil.which("qemu-system-aarch64") is None:
        raise BoardError("The vm board needs qemu-system-aarch64: apt-get install qemu-system-arm")
    port = _free_port()
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            command(board, files, folder, port, clock),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    machine = Machine(process.pid, port, wanted)
    (folder / "machine.json").write_text(json.dumps(asdict(machine)))
    return machine


def command(board: Board, files: vmimage.Files, folder: Path, port: int, clock: str) -> list[str]:
    """The call of QEMU."""
    disk = f"file={folder / 'home.img'},format=raw,if=none,id=home,cache=writeback"
    words = f"""qemu-system-aarch64 -M virt -cpu {board.cpu} -smp {CORES} -m {MEMORY_MB}
        -accel tcg,thread=multi,tb-size=256 -nodefaults -no-user-config -display none -no-reboot
        -rtc base={clock} -netdev user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22
        -device virtio-blk-pci,drive=root -device virtio-blk-pci,drive=home
        -device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci""".split()
    return [
        *words,
        *("-kernel", str(files.kernel), "-initrd", str(folder / "initrd")),
        *("-append", "console=ttyAMA0 quiet loglevel=3 panic=-1 random.trust_bootloader=on"),
        *("-drive", f"file={files.root},format=raw,if=none,id=root,readonly=on", "-drive", disk),
        *("-serial", f"file:{folder / 'console.log'}"),
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _console(folder: Path) -> str:
    texts = [
        (folder / name).read_bytes()[-400:]
        for name in ("qemu.log", "console.log")
        if (folder / name).is_file()
    ]
    return " ".join(b" ".join(texts).decode(errors="replace").split()) or "nothing"
