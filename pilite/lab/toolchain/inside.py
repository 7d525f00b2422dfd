"""Compile one job in the toolchain image: no network, nothing writable but its output, not as root.

artifacts/toolchain/output.X/      locked as long as its build runs in the container pilite-output.X
"""

from __future__ import annotations

import codecs
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from docker.errors import NotFound
from docker.models.containers import Container

import docker
from pilite import job as jobs
from pilite.errors import PiliteError
from pilite.job import Compile, Job, Progress
from pilite.lab import lock
from pilite.lab.toolchain import archive
from pilite.lab.toolchain import image as images
from pilite.lab.toolchain.image import Image

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("pilite", "loader", "toolchains")  # of the checkout: what the compiler reads
NOBODY = 65534
PREFIX, LABEL = "pilite-", "pilite.output"  # of containers: name, and the folder that their output is in
OUTPUT, ZIG = "/output", "/zig"
PYTHON = "/opt/pilite/bin/python3"


def compiler(image: Image, artifacts: Path) -> Compile:
    """A function that compiles in `image`."""
    engine = images.client()
    folder = artifacts.resolve() / "toolchain"
    sweep(engine, folder)

    def compile(job: Job, progress: Progress) -> bytes:
        try:
            with _writable(folder) as output:
                return _compile(engine, image, job, output, _zig(folder), progress)
        except images.FAILURES as problem:
            raise PiliteError(
                f"Docker could not compile {job.name} for {job.cpu}: {archive.tail(str(problem))}. "
                f"Earlier artifacts are unchanged."
            ) from None

    return compile


def sweep(engine: docker.DockerClient, folder: Path) -> None:
    """Remove the folders and containers of builds whose process was killed or whose engine was away."""
    with lock.held(folder / ".output.lock"):
        for output in folder.glob("output.*"):
            with suppress(BlockingIOError), _locked(output):  # that build runs
                shutil.rmtree(output, ignore_errors=True)
        ours = {"label": f"{LABEL}={folder}"}
        for container in engine.containers.list(all=True, ignore_removed=True, filters={**ours}):
            if not (folder / str(container.name).removeprefix(PREFIX)).exists():
                with suppress(NotFound):
                    container.remove(force=True)


def container_of(output: Path) -> str:
    return f"{PREFIX}{output.name}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder's lock, which the kernel gives back when its holder dies. Raises BlockingIOError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _compile(
    engine: docker.DockerClient, image: Image, job: Job, output: Path, zig: Path, progress: Progress
) -> bytes:
    model = f"/model/{job.model.name}"  # the name is in messages
    command = [PYTHON, "-m", jobs.MODULE, *job.words(model, f"{OUTPUT}/model.so")]
    mounts = {str(_readable(job.model, output)): {"bind": model, "mode": "ro"}}
    mounts |= {str(ROOT / name): {"bind": f"/pilite/{name}", "mode": "ro"} for name in SOURCES}
    mounts |= {str(output): {"bind": OUTPUT, "mode": "rw"}, str(zig): {"bind": ZIG, "mode": "rw"}}
    name = container_of(output)
    options = {"name": name, "labels": {LABEL: str(output.parent)}, "volumes": mounts, **SANDBOX}
    container = engine.containers.create(image.id, command=command, **options)
    try:
        container.start()
        words = jobs.follow(_lines(container), progress)
        code = int(container.wait()["StatusCode"])
    finally:
        with suppress(NotFound):
            container.remove(force=True)
    made = output / "model.so"
    if code or not made.is_file():
        raise jobs.died(job, code, words)
    return made.read_bytes()


def _readable(model: Path, folder: Path) -> Path:
    """A copy that the container's user may read, whatever the rights of the original are."""
    copy = folder / "model.tflite"
    shutil.copyfile(model, copy)
    copy.chmod(0o644)
    return copy


def _user() -> int:
    return os.getuid() or NOBODY


SANDBOX: dict[str, Any] = {
    "user": f"{_user()}:{os.getgid() or NOBODY}",
    "working_dir": "/pilite",
    "environment": {"ZIG_GLOBAL_CACHE_DIR": ZIG, "PYTHONDONTWRITEBYTECODE": "1"},
    "network_mode": "none",
    "read_only": True,
    "tmpfs": {"/tmp": "rw,exec,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


def _lines(container: Container) -> Iterable[str]:
    """What it prints, line by line, until it ends."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    for block in container.logs(stream=True, follow=True):
        *lines, rest = (rest + decoder.decode(block)).split("\n")
        yield from lines
    yield rest


@contextmanager
def _writable(folder: Path) -> Iterator[Path]:
    """A folder for one output that the container's user may write to."""
    with ExitStack() as stack:
        with lock.held(folder / ".output.lock"):  # `sweep` must not see it before it is locked
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix="output.")))
            stack.enter_context(_locked(scratch))
        _give(scratch)
        yield scratch


def _zig(folder: Path) -> Path:
    """zig's cache of the C library's parts, for containers alone: it starts empty, so nothing leaks in."""
    place = folder / "zig"
    place.mkdir(parents=True, exist_ok=True)
    _give(place)
    return place


def _give(folder: Path) -> None:
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
