"""Compile one job in the toolchain image: no network, nothing writable but its output, not as root."""

from __future__ import annotations

import codecs
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker.errors import DockerException
from docker.models.containers import Container

import docker
from pilite import job as jobs
from pilite.errors import PiliteError
from pilite.job import Compile, Job, Progress
from pilite.lab.toolchain import image as images
from pilite.lab.toolchain.image import Image

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("pilite", "loader", "toolchains")  # of the checkout: what the compiler reads
NOBODY = 65534
OUTPUT, ZIG = "/output", "/zig"
PYTHON = "/opt/pilite/bin/python3"


def compiler(image: Image, artifacts: Path) -> Compile:
    """A function that compiles in `image`."""
    engine = images.client()
    folder = artifacts.resolve() / "toolchain"

    def compile(job: Job, progress: Progress) -> bytes:
        try:
            with _writable(folder) as output:
                return _compile(engine, image, job, output, _zig(folder), progress)
        except DockerException as problem:
            raise PiliteError(f"Docker could not compile {job.name}: {str(problem)[:300]}") from None

    return compile


def _compile(
    engine: docker.DockerClient, image: Image, job: Job, output: Path, zig: Path, progress: Progress
) -> bytes:
    model = f"/model/{job.model.name}"  # the name is in messages
    command = [PYTHON, "-m", jobs.MODULE, *job.words(model, f"{OUTPUT}/model.so")]
    mounts = {str(_readable(job.model, output)): {"bind": model, "mode": "ro"}}
    mounts |= {str(ROOT / name): {"bind": f"/pilite/{name}", "mode": "ro"} for name in SOURCES}
    mounts |= {str(output): {"bind": OUTPUT, "mode": "rw"}, str(zig): {"bind": ZIG, "mode": "rw"}}
    container = engine.containers.create(image.id, command=command, volumes=mounts, **SANDBOX)
    try:
        container.start()
        words = jobs.follow(_lines(container), progress)
        code = int(container.wait()["StatusCode"])
    finally:
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
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="output.") as scratch:
        _give(Path(scratch))
        yield Path(scratch)


def _zig(folder: Path) -> Path:
    """zig's cache of the C library's parts, for containers alone: it starts empty, so nothing leaks in."""
    place = folder / "zig"
    place.mkdir(parents=True, exist_ok=True)
    _give(place)
    return place


def _give(folder: Path) -> None:
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
