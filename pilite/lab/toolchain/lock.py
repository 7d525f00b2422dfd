"""The package lock: one line "name version sha256" per Debian package, sorted by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import PiliteError

_LINE = re.compile(r"([a-z0-9][a-z0-9+.-]+) ([0-9][A-Za-z0-9.+:~-]*) ([0-9a-f]{64})")


@dataclass(frozen=True)
class Package:
    """A Debian package file."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.sha256}"


Lock = Mapping[str, Package]


def read(path: Path) -> Lock:
    """The lock by name. Raises PiliteError naming the line if one is not what it must be."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        raise PiliteError(f"{path}: {problem.strerror}. `toolchain --relock` makes a new lock.") from None
    packages: dict[str, Package] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or match[1] in packages:
            why = "is there twice" if match else "is not 'name version sha256'"
            raise PiliteError(
                f"{path}:{number}: '{line[:60]}' {why}. Bring the line back, or make a new lock with "
                f"`toolchain --relock`."
            )
        packages[match[1]] = Package(*match.groups())
    if not packages:
        raise PiliteError(f"{path}: holds no package. `toolchain --relock` makes a new lock.")
    return packages


def write(path: Path, packages: Iterable[Package]) -> None:
    """Write beside and rename."""
    beside = path.with_name(path.name + ".new")
    beside.write_text("".join(f"{one}\n" for one in sorted(packages, key=lambda p: p.name)), encoding="utf-8")
    beside.replace(path)


def difference(locked: Lock, found: Lock) -> list[str]:
    """One line per package that differs, for people: `libc6: 2.36-9 is locked, 2.37-1 is here`."""
    lines = []
    for name in sorted({*locked, *found}):
        wanted, here = locked.get(name), found.get(name)
        if wanted is None and here is not None:
            lines.append(f"{name}: {here.version} is here and not locked")
        elif here is None and wanted is not None:
            lines.append(f"{name}: {wanted.version} is locked and missing")
        elif wanted and here and wanted.version != here.version:
            lines.append(f"{name}: {wanted.version} is locked, {here.version} is here")
        elif wanted and here and wanted.sha256 != here.sha256:
            lines.append(f"{name}: {wanted.sha256[:12]} is the locked sha256, {here.sha256[:12]} the file's")
    return lines
