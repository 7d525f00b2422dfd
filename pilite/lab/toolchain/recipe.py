"""docker/toolchain/ as data: what the toolchain image is made of, and the id of that."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import PiliteError
from pilite.lab import wheels

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parents[3] / "docker" / "toolchain"
REQUIREMENTS = FOLDER.parents[1] / "requirements.lock"
FORMAT = "1"  # part of the id: change it when pilite/lab/toolchain/ makes other bytes from the same files
NAME = "pilite-toolchain"
MMDEBSTRAP = "mmdebstrap"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # this machine's name -> Debian's and Docker's


@dataclass(frozen=True)
class Recipe:
    """docker/toolchain/recipe.toml for one base and architecture."""

    folder: Path
    requirements: Path
    arch: str  # amd64 or arm64
    base: str
    image: str  # what `base` is pulled as; empty if it is made here
    suite: str
    epoch: int
    mirrors: tuple[str, ...]
    packages: tuple[str, ...]
    python: str
    wheels: tuple[str, ...]
    leave_out: tuple[str, ...]

    @property
    def lock(self) -> Path:
        return self.folder / f"packages.{self.arch}.lock"

    @property
    def authorities(self) -> list[Path]:
        return sorted((self.folder / "extra-ca").glob("*.crt"))

    @property
    def id(self) -> str:
        """A hash of everything that decides what is in the image: the same id, the same image.

        Raises PiliteError if this architecture's packages are not locked.
        """
        if not self.lock.is_file():
            raise PiliteError(
                f"{self.lock}: is missing: nothing is locked for {self.arch}. `toolchain --relock` makes "
                f"it from what Debian has today; or build without --docker: the bytes are the same."
            )
        digest = hashlib.sha256(f"{FORMAT} {self.arch} {self.base}".encode())
        for path in self._inputs():
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        digest.update(self.pins.encode())
        return digest.hexdigest()[:12]

    @property
    def tag(self) -> str:
        return f"{NAME}:{self.id}"

    @property
    def pins(self) -> str:
        """The part of requirements.lock that the image gets, hashes and all."""
        lines = []
        for name in sorted(self.wheels):
            pin, hashes = wheels.locked(name, self.requirements)
            words = [f"{pin.name}{pin.specifier}", *(f"--hash=sha256:{one}" for one in sorted(hashes))]
            lines.append(" ".join(words))
        return "\n".join(lines) + "\n"

    def _inputs(self) -> Iterator[Path]:
        yield from (self.folder / name for name in ("recipe.toml", "Dockerfile", "packages.sh"))
        yield from (self.lock, *self.authorities)


def read(base: str = MMDEBSTRAP, folder: Path = FOLDER, requirements: Path = REQUIREMENTS) -> Recipe:
    """Read the recipe for this machine. Raises PiliteError for a base or a machine that it does not know."""
    values = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    bases: Mapping[str, Mapping[str, str]] = values["bases"]
    if base not in bases:
        raise PiliteError(
            f"--base {base}: unknown; docker/toolchain/recipe.toml declares {', '.join(bases)}."
        )
    if platform.machine() not in ARCHITECTURES:
        raise PiliteError(
            f"The toolchain image is made on {' and '.join(ARCHITECTURES)}, and this machine is "
            f"{platform.machine()}. Build on one of them."
        )
    return Recipe(
        folder=folder,
        requirements=requirements,
        arch=ARCHITECTURES[platform.machine()],
        base=base,
        image=bases[base].get("image", ""),
        suite=values["suite"],
        epoch=values["epoch"],
        mirrors=tuple(values["mirrors"]),
        packages=tuple(values["packages"]),
        python=values["python"],
        wheels=tuple(values["wheels"]),
        leave_out=tuple(values["leave_out"]),
    )
