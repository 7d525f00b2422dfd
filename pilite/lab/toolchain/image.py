"""Build the toolchain image: base, docker/toolchain/Dockerfile, one flat layer without times of the build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

import docker
from pilite.errors import CheckFailed, PiliteError, next_step
from pilite.lab import image as archives
from pilite.lab import lock, wheels
from pilite.lab.toolchain import archive
from pilite.lab.toolchain.recipe import MMDEBSTRAP, Recipe

Progress = Callable[[str], None]
DOCKERFILE = ("Dockerfile", "packages.sh")
ROOM = 6 << 30  # bytes that a build needs below artifacts/ and in the engine's folder together
NOTHING: Sequence[Path] = ()
FAILURES = (DockerException, RequestException, HTTPError)  # the engine said no, or is gone


@dataclass(frozen=True)
class Image:
    """The flattened image in the engine. Its id is the sha256 of its configuration, layer digest included."""

    tag: str
    id: str
    reused: bool


def client() -> docker.DockerClient:
    """The Docker engine. Raises PiliteError if none answers."""
    try:
        engine = docker.from_env(timeout=600)
        engine.ping()
        return engine
    except (DockerException, OSError) as problem:
        raise PiliteError(
            f"No Docker engine answers: {str(problem)[:160]}. Start it (systemctl start docker, or dockerd "
            f"as root), be in the group docker, or build without --docker: the bytes are the same."
        ) from None


def ensure(recipe: Recipe, artifacts: Path, *, cache: bool = True, progress: Progress = print) -> Image:
    """The image of a recipe: the one in the engine, or built now. `cache` False builds it in any case.

    Raises:
        CheckFailed: a package or wheel is not the locked one, with one line for each.
        PiliteError: a tool, the network, the engine or room on the disk is missing.
    """
    engine = client()
    found = existing(engine, recipe) if cache else None
    if found is not None:
        return Image(recipe.tag, found, True)
    folder = artifacts.resolve() / "toolchain"
    try:
        with alone(folder) as scratch:
            found = existing(engine, recipe) if cache else None
            if found is not None:  # another build has made it meanwhile
                return Image(recipe.tag, found, True)
            require_room(folder)
            return Image(recipe.tag, build(engine, recipe, folder, scratch, progress), False)
    except FAILURES as problem:
        raise PiliteError(
            f"Docker could not build {recipe.tag}: {archive.tail(str(problem))}. "
            f"An earlier image is unchanged."
        ) from None
    except OSError as problem:
        raise PiliteError(
            f"{recipe.tag} cannot be built in {folder}: {problem.strerror or problem}. "
            f"{next_step(problem) or 'Mend that and run again'}; an earlier image is unchanged."
        ) from None


@contextmanager
def alone(folder: Path) -> Iterator[Path]:
    """A folder for a build; another build waits, and what a killed one left is removed."""
    with lock.held(folder / ".build.lock"):
        for left in folder.glob("build.*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="build.") as scratch:
            yield Path(scratch)


def existing(engine: docker.DockerClient, recipe: Recipe) -> str | None:
    try:
        return str(engine.images.get(recipe.tag).id)
    except ImageNotFound:
        return None


def require_room(folder: Path, needed: int = ROOM) -> None:
    """Fail before an hour of work does. Raises PiliteError."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PiliteError(
            f"{folder}: {free >> 20} MiB are free and a build of the toolchain needs {needed >> 20} MiB. "
            f"Make room and run again."
        )


def build(
    engine: docker.DockerClient, recipe: Recipe, folder: Path, scratch: Path, progress: Progress
) -> str:
    """All steps; the id of the flattened image, which has the recipe's tag at the end."""
    progress("packages")
    debs = archive.fetch(recipe, folder / "archive")
    archive.stage(debs, scratch / "repository")
    files = [wheels.fetch(name, target(recipe), folder.parent) for name in recipe.wheels]
    with base_image(engine, recipe, scratch, progress) as base:
        progress("context")
        packages = NOTHING if recipe.base == MMDEBSTRAP else sorted((scratch / "repository").iterdir())
        context(recipe, packages, files, scratch / "context.tar")
        layered = run_dockerfile(engine, scratch / "context.tar", base, progress)
        try:
            progress("flatten")
            flatten(engine, layered, recipe, scratch / "layer.tar")
        finally:
            engine.images.remove(layered, force=True)
    progress("load")
    return load(engine, recipe, scratch)


def target(recipe: Recipe) -> wheels.Target:
    return wheels.Target(recipe.python, {"amd64": "x86_64", "arm64": "aarch64"}[recipe.arch])


@contextmanager
def base_image(
    engine: docker.DockerClient, recipe: Recipe, scratch: Path, progress: Progress
) -> Iterator[str]:
    """The name of the base in the engine; one that was made here is removed afterwards."""
    progress(f"base {recipe.base}")
    if recipe.base != MMDEBSTRAP:
        pull(engine, recipe)
        yield recipe.image
        return
    debootstrap(recipe, scratch / "repository", scratch / "base.tar")
    tag = f"{recipe.tag}-base"
    config = configuration(recipe, archives.digest_of(scratch / "base.tar"), {})
    archives.pack(scratch / "base.tar", tag, config, scratch / "base.image.tar")
    with (scratch / "base.image.tar").open("rb") as data:
        engine.images.load(data)
    for name in ("base.tar", "base.image.tar"):
        (scratch / name).unlink()
    try:
        yield tag
    finally:
        engine.images.remove(tag, force=True)


def pull(engine: docker.DockerClient, recipe: Recipe) -> None:
    """Have the engine fetch the base by its digest, unless it has it. Raises PiliteError."""
    try:
        engine.images.get(recipe.image)
    except ImageNotFound:
        try:
            engine.images.pull(recipe.image)
        except DockerException as problem:
            raise PiliteError(
                f"--base {recipe.base}: {recipe.image} cannot be pulled: {archive.tail(str(problem))}. "
                f"Where no registry can be reached, use --base mmdebstrap."
            ) from None


def debootstrap(recipe: Recipe, repository: Path, output: Path) -> None:
    """A configured Debian of exactly the packages in `repository`; no network. Raises PiliteError."""
    if shutil.which("mmdebstrap") is None:
        raise PiliteError("The base is made by mmdebstrap: apt-get install mmdebstrap, or use --base debian.")
    names = [
        line[9:] for line in (repository / "Packages").read_text().splitlines() if line[:9] == "Package: "
    ]
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--architectures={recipe.arch}"]
    command += [f"--mode={'root' if os.getuid() == 0 else 'unshare'}", f"--include={','.join(names)}"]
    command += ["", str(output), f"deb [trusted=yes] copy:{repository} ./"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(recipe.epoch), "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PiliteError(f"mmdebstrap could not make the base: {archive.tail(done.stderr)}")


def context(recipe: Recipe, packages: Sequence[Path], files: Sequence[Path], output: Path) -> None:
    """The tar that Docker builds from: the same bytes for the same recipe."""
    with tarfile.open(output, "w") as tar:
        for name in DOCKERFILE:
            tar.addfile(*archives.file_member(name, (recipe.folder / name).read_bytes(), 0o644))
        tar.addfile(*archives.file_member("packages.lock", recipe.lock.read_bytes(), 0o644))
        tar.addfile(*archives.file_member("requirements.txt", recipe.pins.encode(), 0o644))
        for folder, members in {
            "packages": packages,
            "wheels": files,
            "extra-ca": recipe.authorities,
        }.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
            for path in members:
                _add(tar, path, f"{folder}/{path.name}")


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = path.stat().st_size, 0o644
    with path.open("rb") as data:
        tar.addfile(entry, data)


def run_dockerfile(engine: docker.DockerClient, source: Path, base: str, progress: Progress) -> str:
    """The id of the image with one layer per step. Raises CheckFailed with the failed step's last words."""
    said: list[str] = []
    with source.open("rb") as data:
        lines = engine.api.build(
            fileobj=data,
            custom_context=True,
            buildargs={"BASE": base},
            nocache=True,
            rm=True,
            forcerm=True,
            network_mode="none",
            decode=True,
        )
        for line in lines:
            text = str(line.get("stream", "")).strip()
            if text:
                said.append(text)
            if text.startswith("Step "):
                progress(text.splitlines()[0][:70])
            if "error" in line:
                _remove_layers(engine, said)
                raise CheckFailed(
                    "\n".join(["The toolchain's Dockerfile failed:", *said[-12:], line["error"]])
                )
            if "aux" in line:
                built = str(line["aux"]["ID"])
    return built


def _remove_layers(engine: docker.DockerClient, said: Sequence[str]) -> None:
    """Remove what a failed build has made so far: the engine says "---> ID" for the base and each layer."""
    layers = [text[5:] for text in said if re.fullmatch(r"---> [0-9a-f]{12}", text)][1:]
    with suppress(DockerException):
        for newest in layers[-1:]:  # takes the others with it
            engine.images.remove(newest, force=True)


def flatten(engine: docker.DockerClient, name: str, recipe: Recipe, output: Path) -> None:
    """One layer with the files of an image: no times of the build, no logs, nothing of `leave_out`."""
    container = engine.containers.create(name)
    try:
        with tempfile.TemporaryFile(dir=output.parent) as exported:
            for block in container.export():
                exported.write(block)  # type: ignore[arg-type]
            exported.seek(0)
            normalize(exported, recipe, output)
    finally:
        container.remove(force=True)


def normalize(exported: IO[bytes], recipe: Recipe, output: Path) -> None:
    """Sorted by name; a time after the recipe's epoch was the build's and becomes the epoch."""
    with (
        tarfile.open(fileobj=exported) as before,
        tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as layer,
    ):
        members = [
            m for m in before.getmembers() if not m.name.startswith(recipe.leave_out) and not m.isdev()
        ]
        for member in sorted(members, key=lambda m: (m.islnk(), m.name)):  # a hard link after its target
            data = archives.content(before, member)
            layer.addfile(archives.settled(member, member.name, recipe.epoch), data)


def configuration(recipe: Recipe, digest: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """An image's configuration; Docker's id of the image is its sha256."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(recipe.epoch))
    return {
        "architecture": recipe.arch,
        "os": "linux",
        "created": created,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": created, "created_by": f"docker/toolchain {recipe.id}"}],
    }


RUNTIME = {
    "Env": [
        "PATH=/opt/pilite/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/tmp",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONHASHSEED=0",
    ],
    "User": "65534:65534",
    "Cmd": ["python3", "-m", "pilite.compiler", "--help"],
}


def load(engine: docker.DockerClient, recipe: Recipe, scratch: Path) -> str:
    """Give the flat image to the engine; its id, the digest that two builds share."""
    config = configuration(recipe, archives.digest_of(scratch / "layer.tar"), RUNTIME)
    wanted = archives.pack(scratch / "layer.tar", recipe.tag, config, scratch / "image.tar")
    before = existing(engine, recipe)
    with (scratch / "image.tar").open("rb") as data:
        engine.images.load(data)
    found = existing(engine, recipe)
    if before not in (None, found):
        with suppress(DockerException):  # a container may still use it
            engine.images.remove(before)
    if found != wanted:
        raise PiliteError(f"{recipe.tag}: the engine calls it {found}, and its digest is {wanted}.")
    return wanted


def document(recipe: Recipe, image: Image) -> dict[str, Any]:
    """What `toolchain --json` writes."""
    return {
        "schema": "pilite.toolchain/1",
        "tag": image.tag,
        "digest": image.id,
        "base": recipe.base,
        "arch": recipe.arch,
        "reused": image.reused,
    }
