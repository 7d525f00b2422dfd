"""The virtual boards' userland: Debian packages unpacked into a tar, the same every time, for Docker."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pilite.errors import BoardError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parents[2] / "docker" / "vboard"
FORMAT = "1"  # part of the recipe's hash: change it when this file makes other bytes from the same recipe
NAME = "pilite-vboard"
USER = 1000  # the number of `bench` in the recipe
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


@dataclass(frozen=True)
class Recipe:
    """docker/vboard/recipe.toml. `id` is a hash of the file: the same id, the same image."""

    id: str
    suite: str
    epoch: int
    packages: tuple[str, ...]
    leave_out: tuple[str, ...]
    directories: Mapping[str, tuple[int, int, int]]
    links: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def tag(self) -> str:
        return f"{NAME}:{self.id}"


def read_recipe(folder: Path = FOLDER) -> Recipe:
    """Read the recipe."""
    data = (folder / "recipe.toml").read_bytes()
    values = tomllib.loads(data.decode())
    return Recipe(
        id=hashlib.sha256(FORMAT.encode() + b"\0" + data).hexdigest()[:12],
        suite=values["suite"],
        epoch=values["epoch"],
        packages=tuple(values["packages"]),
        leave_out=tuple(values["leave_out"]),
        directories={path: tuple(entry) for path, entry in values["directories"].items()},
        links=values["links"],
        files={path: text.lstrip("\n") for path, text in values["files"].items()},
    )


def archive(recipe: Recipe, artifacts: Path) -> Path:
    """The `docker load` archive of a recipe, below artifacts/vboard/; made once. Raises BoardError."""
    path = artifacts.resolve() / "vboard" / recipe.id / "image.tar"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent
    unpack(recipe, beside / "debian.tar")
    with tarfile.open(beside / "debian.tar") as debian:
        write_layer(debian, recipe, beside / "layer.tar")
    write_archive(beside / "layer.tar", recipe, beside / f"image.{os.getpid()}.tar")
    (beside / f"image.{os.getpid()}.tar").replace(path)
    for name in ("debian.tar", "layer.tar"):
        (beside / name).unlink()
    return path


def unpack(recipe: Recipe, output: Path) -> None:
    """Debian's packages as a tar, by mmdebstrap; 20 to 60 s. Raises BoardError."""
    if shutil.which("mmdebstrap") is None:
        raise BoardError("Virtual boards need mmdebstrap to make their image: apt-get install mmdebstrap")
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        "--architectures=arm64",
        f"--mode={'root' if os.getuid() == 0 else 'unshare'}",
        f"--include={','.join(recipe.packages)}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        '--aptopt=Acquire::Languages "none"',
        recipe.suite,
        str(output),
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(recipe.epoch)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BoardError(
            f"mmdebstrap could not unpack Debian {recipe.suite} arm64: {' '.join(done.stderr[-400:].split())}"
        )


def write_layer(debian: tarfile.TarFile, recipe: Recipe, output: Path) -> None:
    """Debian's files and the recipe's own, sorted by name, no time stamp after the recipe's epoch."""
    kept = {member.name.removeprefix("./"): member for member in debian if keeps(member, recipe)}
    for path in (*recipe.directories, *recipe.links, *recipe.files):
        kept.pop(path, None)
    own = {member.name: (member, data) for member, data in additions(recipe)}
    with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as layer:
        for name in sorted({*kept, *own}):
            member, data = own[name] if name in own else (kept[name], content(debian, kept[name]))
            layer.addfile(settled(member, name, recipe.epoch), data)


def keeps(member: tarfile.TarInfo, recipe: Recipe) -> bool:
    name = member.name.removeprefix("./")
    return name not in ("", ".") and not name.startswith(recipe.leave_out) and not member.isdev()


def content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    return archive.extractfile(member) if member.isfile() else None


def settled(member: tarfile.TarInfo, name: str, epoch: int) -> tarfile.TarInfo:
    """Without what differs between two runs: times, user names, spelling."""
    member.name, member.mtime = name, min(int(member.mtime), epoch)
    member.uname = member.gname = ""
    member.pax_headers = {}
    if member.islnk():
        member.linkname = member.linkname.removeprefix("./")
    return member


def additions(recipe: Recipe) -> Iterable[tuple[tarfile.TarInfo, io.BytesIO | None]]:
    """The recipe's directories, links and files as tar members."""
    for path, (mode, uid, gid) in recipe.directories.items():
        member = tarfile.TarInfo(path)
        member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, uid, gid
        yield member, None
    for path, target in recipe.links.items():
        member = tarfile.TarInfo(path)
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
        yield member, None
    for path, text in recipe.files.items():
        yield file_member(path, text.encode(), _mode(path))


def _mode(path: str) -> int:
    """Permissions of a recipe's file."""
    return {"etc/shadow": 0o640, "etc/sudoers": 0o440}.get(path, 0o755 if "/sbin/" in path else 0o644)


def file_member(path: str, data: bytes, mode: int, owner: int = 0) -> tuple[tarfile.TarInfo, io.BytesIO]:
    """A regular file for a tar."""
    member = tarfile.TarInfo(path)
    member.size, member.mode, member.uid, member.gid = len(data), mode, owner, owner
    return member, io.BytesIO(data)


def write_archive(layer: Path, recipe: Recipe, output: Path) -> str:
    """A `docker load` archive of the board's layer; the image's id."""
    return pack(layer, recipe.tag, image_config(layer, recipe), output)


def pack(layer: Path, tag: str, configuration: Mapping[str, Any], output: Path) -> str:
    """A `docker load` archive of one layer; the image's id. `docker import` cannot set the architecture."""
    config = json.dumps(configuration, sort_keys=True, separators=(",", ":")).encode()
    image = hashlib.sha256(config).hexdigest()
    entry = {"Config": f"{image}.json", "RepoTags": [tag], "Layers": ["layer.tar"]}
    with tarfile.open(output, "w") as tar, layer.open("rb") as data:
        tar.addfile(*file_member(f"{image}.json", config, 0o644))
        member = tarfile.TarInfo("layer.tar")
        member.size = layer.stat().st_size
        tar.addfile(member, data)
        tar.addfile(*file_member("manifest.json", json.dumps([entry]).encode(), 0o644))
    return f"sha256:{image}"


def image_config(layer: Path, recipe: Recipe) -> dict[str, Any]:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(recipe.epoch))
    digest = digest_of(layer)
    return {
        "architecture": "arm64",
        "variant": "v8",
        "os": "linux",
        "created": created,
        "config": {"Env": ENVIRONMENT, "Cmd": ["/usr/sbin/sshd", "-D", "-e"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": created, "created_by": f"docker/vboard recipe {recipe.id}"}],
    }


def digest_of(file: Path) -> str:
    """The sha256 of a file that may be larger than memory."""
    with file.open("rb") as data:
        return hash_of(data)


def hash_of(data: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: data.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()
