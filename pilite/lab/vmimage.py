"""What a `vm` board boots: Debian's kernel, an initramfs and a root file system, made once from packages.

No root is needed and nothing is emulated: packages are unpacked, never configured.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pilite.errors import BoardError
from pilite.lab import cpio, image, lock
from pilite.lab.image import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = "1"  # part of the hash: change it when this file makes other bytes from the same recipes
FOLDERS = ("bin", "dev", "proc", "sys", "newroot", "modules", "board")


@dataclass(frozen=True)
class VmRecipe:
    """docker/vboard/vm.toml on top of recipe.toml; `userland` has the packages of both."""

    userland: Recipe
    modules: tuple[str, ...]
    init: str
    home_mb: int


@dataclass(frozen=True)
class Files:
    """What QEMU gets."""

    kernel: Path
    initrd: Path
    root: Path


def read_recipe(folder: Path = image.FOLDER) -> VmRecipe:
    """Read both recipes."""
    base, data = image.read_recipe(folder), (folder / "vm.toml").read_bytes()
    values = tomllib.loads(data.decode())
    userland = replace(
        base,
        id=hashlib.sha256(f"{FORMAT}\0{base.id}\0".encode() + data).hexdigest()[:12],
        packages=(*base.packages, *values["packages"]),
        leave_out=(*base.leave_out, *values["leave_out"]),
        directories={**base.directories, **{path: tuple(v) for path, v in values["directories"].items()}},
        files={**base.files, **{path: text.lstrip("\n") for path, text in values["files"].items()}},
    )
    return VmRecipe(userland, tuple(values["modules"]), values["init"].lstrip("\n"), values["home_mb"])


def files(recipe: VmRecipe, artifacts: Path) -> Files:
    """The recipe's files below artifacts/vboard/, made once. Raises BoardError."""
    folder = artifacts.resolve() / "vboard" / f"vm-{recipe.userland.id}"
    made = Files(folder / "vmlinuz", folder / "initrd", folder / "root.squashfs")
    with lock.held(artifacts.resolve() / "locks" / "vm-image"):
        if not folder.is_dir():
            _make(recipe, folder)
    return made


def _make(recipe: VmRecipe, folder: Path) -> None:
    """Make the folder beside its place and rename it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vm.") as scratch:
        beside = Path(scratch) / "made"
        beside.mkdir()
        image.unpack(recipe.userland, Path(scratch) / "debian.tar")
        with tarfile.open(Path(scratch) / "debian.tar") as debian:
            members = {member.name.removeprefix("./"): member for member in debian}
            kernel = next(name for name in members if name.startswith("boot/vmlinuz-"))
            (beside / "vmlinuz").write_bytes(_read(debian, members[kernel]))
            (beside / "initrd").write_bytes(initrd(recipe, debian, members))
            image.write_layer(debian, recipe.userland, Path(scratch) / "layer.tar")
        _squash(Path(scratch) / "layer.tar", beside / "root.squashfs", recipe.userland.epoch)
        beside.rename(folder)


def _read(debian: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = debian.extractfile(member)
    assert file is not None, member.name
    return file.read()


def initrd(recipe: VmRecipe, debian: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> bytes:
    """busybox, the modules that a virtual machine needs, and the recipe's init."""
    found = {Path(name).stem: member for name, member in members.items() if name.endswith(".ko")}
    modules = {name: _read(debian, found[name]) for name in _with_needs(recipe.modules, debian, found)}
    entries = {
        "init": cpio.Entry(0o755, recipe.init.replace("MODULES", " ".join(modules)).encode()),
        "bin/busybox": cpio.Entry(0o755, _read(debian, members["usr/bin/busybox"])),
        **{f"modules/{name}.ko": cpio.Entry(0o644, data) for name, data in modules.items()},
    }
    return cpio.archive(entries, FOLDERS)


def _with_needs(
    names: Sequence[str], debian: tarfile.TarFile, found: Mapping[str, tarfile.TarInfo]
) -> list[str]:
    """Modules and what they depend on, each after its needs; what is not a file is in the kernel."""
    order: dict[str, None] = {}
    for name in names:
        if name in found and name not in order:
            order.update(dict.fromkeys(_with_needs(needs(_read(debian, found[name])), debian, found)))
            order[name] = None
    return list(order)


def needs(module: bytes) -> list[str]:
    """The modules that a .ko file says it depends on (modinfo's depends=)."""
    said = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name for name in said[1].decode().split(",") if name] if said else []


def _squash(layer: Path, output: Path, epoch: int) -> None:
    """A tar as a squashfs with the tar's owners; without compression, since emulated CPUs unpack slowly."""
    tool = shutil.which("sqfstar", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if tool is None:
        raise BoardError("The vm board needs sqfstar to make its root: apt-get install squashfs-tools")
    command = [tool, "-quiet", "-no-progress", "-noI", "-noD", "-noF", "-noX"]
    owner = ["-root-mode", "755", "-root-uid", "0", "-root-gid", "0"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    with layer.open("rb") as data:
        done = subprocess.run(
            [*command, *owner, str(output)], stdin=data, env=environment, capture_output=True, check=False
        )
    if done.returncode:
        raise BoardError(
            f"sqfstar could not make the vm's root: {done.stderr[-300:].decode(errors='replace')}"
        )
