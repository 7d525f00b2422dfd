"""Boards of kind `container`: an arm64 Debian under qemu-user with a real sshd, for each checkout its own.

It keeps running between commands, and so do the deploys on it; a changed recipe, CPU or key makes a new one.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any

from docker.errors import DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

import docker
from pilite.errors import BoardError
from pilite.lab import emulation, hostcpu, image, lock, ssh
from pilite.lab.boardkeys import Keys, make_keys
from pilite.lab.boards import Board
from pilite.lab.connection import Connection

PATIENCE = 60.0  # seconds until sshd answers; it takes about one, more on a busy machine
LABEL = "pilite.board"
# What sshd needs to log users in, and nothing else of root.
CAPABILITIES = ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID", "SYS_CHROOT"]


def connect(board: Board, artifacts: Path) -> Connection:
    """Start the board unless it runs, and log in. Raises BoardError."""
    keys = make_keys(artifacts / "board" / board.name / "keys")
    container = start(board, keys, artifacts)
    address = ssh.Address(
        board.name, "127.0.0.1", port_of(container), board.user, keys.client, keys.host_public
    )
    return _patiently(container, address)


def remove(board: Board, artifacts: Path) -> None:
    """Stop the board and forget what is on it."""
    try:
        client().containers.get(name_of(board, artifacts)).remove(force=True)
    except NotFound:
        return
    except DockerException as problem:
        raise BoardError(f"{board.name}: Docker: {problem}") from None


def client() -> docker.DockerClient:
    """The Docker engine. Raises BoardError if none answers."""
    try:
        engine = docker.from_env(timeout=120)
        engine.ping()
        return engine
    except (DockerException, OSError) as problem:
        raise BoardError(
            f"The container board needs Docker, and no engine answers: {problem}. Start it (systemctl start "
            f"docker, or dockerd as root), and be in the group docker."
        ) from None


def name_of(board: Board, artifacts: Path) -> str:
    """One container per board and checkout."""
    return f"pilite-{board.name}-{hashlib.sha256(str(artifacts.resolve()).encode()).hexdigest()[:8]}"


def start(board: Board, keys: Keys, artifacts: Path) -> Container:
    """A running container of this board; one of another recipe or with other settings is replaced."""
    with lock.held(artifacts / "locks" / "container-image"):
        emulation.ensure()
        load(client(), image.read_recipe(), artifacts)
    engine, recipe = client(), image.read_recipe()
    files, cpuinfo = settings(board, keys), write_cpuinfo(board, artifacts)
    parts = (recipe.id.encode(), board.cpu.encode(), files, str(cpuinfo).encode(), cpuinfo.read_bytes())
    wanted = hashlib.sha256(b"\0".join(parts)).hexdigest()
    try:
        container = _existing(engine, name_of(board, artifacts), wanted)
        if container is None:
            container = create(engine, board, recipe, name_of(board, artifacts), wanted, cpuinfo)
            container.put_archive("/", files)
        container.start()
        container.reload()
        return container
    except DockerException as problem:
        raise BoardError(f"{board.name}: Docker cannot start it: {problem}") from None


def _existing(engine: docker.DockerClient, name: str, wanted: str) -> Container | None:
    try:
        container = engine.containers.get(name)
    except NotFound:
        return None
    if container.labels.get(LABEL) == wanted:
        return container
    container.remove(force=True)
    return None


def load(engine: docker.DockerClient, recipe: image.Recipe, artifacts: Path) -> None:
    """Give the recipe's image to Docker unless it has it."""
    try:
        engine.images.get(recipe.tag)
    except ImageNotFound:
        with image.archive(recipe, artifacts).open("rb") as data:
            engine.images.load(data)


def create(
    engine: docker.DockerClient, board: Board, recipe: image.Recipe, name: str, wanted: str, cpuinfo: Path
) -> Container:
    """A container that is not started yet."""
    return engine.containers.create(
        recipe.tag,
        name=name,
        hostname=board.name,
        labels={LABEL: wanted},
        environment={"QEMU_CPU": board.cpu},
        ports={"22/tcp": ("127.0.0.1", 0)},
        volumes={str(cpuinfo): {"bind": "/proc/cpuinfo", "mode": "ro"}},
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
        security_opt=["no-new-privileges"],
        pids_limit=1024,
        platform="linux/arm64",
    )


def write_cpuinfo(board: Board, artifacts: Path) -> Path:
    """The /proc/cpuinfo that the board shows."""
    path = artifacts.resolve() / "board" / board.name / "cpuinfo"
    text = hostcpu.qemu_cpuinfo(board.cpu, len(os.sched_getaffinity(0)))
    if not path.is_file() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def settings(board: Board, keys: Keys) -> bytes:
    """sshd_config, the host key and the one user key, as a tar."""
    config = (image.FOLDER / "sshd_config").read_text(encoding="utf-8").format(cpu=board.cpu)
    files = (
        image.file_member("etc/ssh/sshd_config", config.encode(), 0o644),
        image.file_member("etc/ssh/ssh_host_ed25519_key", keys.host.read_bytes(), 0o600),
        image.file_member(
            "home/bench/.ssh/authorized_keys", keys.client_public.encode() + b"\n", 0o600, image.USER
        ),
    )
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for member, content in files:
            tar.addfile(member, content)
    return data.getvalue()


def port_of(container: Container) -> int:
    """The port on this machine that leads to the board's sshd."""
    ports: Any = container.attrs["NetworkSettings"]["Ports"].get("22/tcp")
    if not ports:
        raise BoardError(f"{container.name} ended at once: {log_of(container)}")
    return int(ports[0]["HostPort"])


def log_of(container: Container) -> str:
    return " ".join(container.logs(tail=5).decode(errors="replace").split()) or "it says nothing"


def _patiently(container: Container, address: ssh.Address) -> Connection:
    """Log in as soon as sshd listens. Raises BoardError with the container's last words after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not ssh.listens(address):
        container.reload()
        if container.status != "running" or time.monotonic() > end:
            raise BoardError(
                f"{address}: no sshd. The container ({container.status}) says: {log_of(container)}"
            )
        time.sleep(0.2)
    return ssh.connect(address, PATIENCE)
