"""The archive of Debian packages: fetched by apt, which checks signatures; then checked by the lock.

artifacts/toolchain/archive/<name>_<version>_<arch>.deb     kept between builds; nothing is fetched twice
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.toolchain import lock as locks
from pilite.lab.toolchain.lock import Lock, Package
from pilite.lab.toolchain.recipe import Recipe

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FULL = "No space left on device"


@dataclass(frozen=True)
class Apt:
    """apt-get with folders and sources of its own: nothing of this machine's apt is read or changed."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """Its output. Raises PiliteError with its last words."""
        done = subprocess.run(
            words, cwd=cwd or self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PiliteError(f"{' '.join(words[:2])}: {tail(done.stderr or done.stdout)}")
        return done.stdout


def tail(text: str) -> str:
    return " ".join(text.split())[-300:]


def fetch(recipe: Recipe, folder: Path) -> list[Path]:
    """The files of the locked packages, all of them checked, those that are missing fetched.

    Raises:
        CheckFailed: a file is not the locked one, or Debian has other versions now; one line per package.
        PiliteError: the lock is damaged; apt is missing or cannot reach Debian.
    """
    wanted = locks.read(recipe.lock)
    folder.mkdir(parents=True, exist_ok=True)
    have = _by_hash(folder)
    missing = [package for package in wanted.values() if package.sha256 not in have]
    if missing:
        _download(recipe, missing, folder)
        have = _by_hash(folder)
        _require({p.name: p for p in missing}, folder, have)
    return [have[package.sha256] for package in wanted.values()]


def relock(recipe: Recipe, folder: Path) -> list[str]:
    """Make the lock anew from what Debian has today; what changed, one line per package."""
    before = locks.read(recipe.lock) if recipe.lock.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    with private_apt(recipe) as apt, tempfile.TemporaryDirectory(dir=folder) as scratch:
        into = f"Dir::Cache::archives={scratch}"
        apt.run(
            "apt-get", "install", "-y", "-qq", "--download-only", "-o", into, "?essential", *recipe.packages
        )
        files = sorted(Path(scratch).glob("*.deb"))
        after = {package.name: package for package in map(inspect, files)}
        for file in files:
            file.replace(folder / file.name)
    locks.write(recipe.lock, after.values())
    return locks.difference(before, after)


@contextmanager
def private_apt(recipe: Recipe) -> Iterator[Apt]:
    """apt for the recipe's suite and architecture with today's package lists. Raises PiliteError."""
    if shutil.which("apt-get") is None:
        raise PiliteError(
            "The toolchain's packages are fetched by apt-get: use Debian or Ubuntu, or copy "
            "artifacts/toolchain/archive from a machine that has them."
        )
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in ("state/lists/partial", "cache/archives/partial", "etc"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        (root / "etc" / "sources.list").write_text(
            "".join(f"deb [signed-by={KEYRING}] {mirror}\n" for mirror in recipe.mirrors)
        )
        (root / "apt.conf").write_text(_APT_CONF.format(root=root, arch=recipe.arch))
        apt = Apt(root, {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"})
        apt.run("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")
        yield apt


_APT_CONF = """\
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Dir "{root}";
Dir::Etc "etc";
Dir::State "state";
Dir::State::status "{root}/status";
Dir::Cache "cache";
"""


def _download(recipe: Recipe, packages: Sequence[Package], folder: Path) -> None:
    """Into a folder beside, renamed one by one: a killed download leaves no half file."""
    with private_apt(recipe) as apt, tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            names = [f"{p.name}={p.version}" for p in packages]
            apt.run("apt-get", "-qq", "download", *names, cwd=Path(scratch))
        except PiliteError as problem:
            raise _unavailable(apt, packages, str(problem)) from None
        for file in Path(scratch).glob("*.deb"):
            file.replace(folder / file.name)


def _unavailable(apt: Apt, packages: Sequence[Package], words: str) -> PiliteError:
    """What Debian has instead of the locked versions; apt's own words if that is not the reason."""
    offered = {p.name: _offered(apt, p.name) for p in packages}
    lines = [
        f"  {p.name}: {p.version} is locked, Debian has {', '.join(offered[p.name]) or 'no such package'}"
        for p in packages
        if p.version not in offered[p.name]
    ]
    if not lines or _FULL in words:
        return PiliteError(f"The toolchain's packages cannot be fetched: {words}")
    return CheckFailed(
        "\n".join([f"{len(lines)} locked packages are no longer in Debian's archive:", *lines])
        + "\n`toolchain --relock` makes a new lock; an archive with the locked files builds without network."
    )


def _offered(apt: Apt, name: str) -> list[str]:
    """The versions of a package that the package lists have."""
    rows = apt.run("apt-cache", "madison", name).splitlines()
    return list(dict.fromkeys(row.split("|")[1].strip() for row in rows if row.count("|") == 2))


def _require(wanted: Lock, folder: Path, have: dict[str, Path]) -> None:
    """Raise CheckFailed unless every wanted file is there; say which differ and how."""
    found = {p.name: p for p in map(inspect, have.values()) if p.name in wanted and p.sha256 in have}
    lines = [
        line for line in locks.difference(wanted, found) if wanted[line.split(":")[0]].sha256 not in have
    ]
    if lines:
        raise CheckFailed(
            "\n  ".join([f"{folder} does not hold the locked packages:", *lines])
            + "\nRemove the files that differ, or make a new lock with `toolchain --relock`."
        )


def inspect(file: Path) -> Package:
    """Name and version from inside a .deb, and its sha256. Raises PiliteError if it is damaged."""
    done = subprocess.run(
        ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PiliteError(f"{file} is no Debian package: {tail(done.stderr)}. Remove it and run again.")
    name, version = done.stdout.split()
    return Package(name, version, sha256(file))


def sha256(file: Path) -> str:
    with file.open("rb") as data:
        return (
            hashlib.file_digest(data, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else (hashlib.sha256(data.read()).hexdigest())
        )


def _by_hash(folder: Path) -> dict[str, Path]:
    return {sha256(file): file for file in sorted(folder.glob("*.deb"))}


def stage(files: Sequence[Path], folder: Path) -> None:
    """A package repository in `folder`: the files (linked) and the index that apt asks for."""
    folder.mkdir(parents=True)
    entries = []
    for file in files:
        place = folder / file.name.replace("%3a", "_")  # apt would decode the name of the file
        _link(file, place)
        control = subprocess.run(["dpkg-deb", "-f", str(file)], capture_output=True, text=True, check=True)
        entries.append(
            f"{control.stdout.rstrip()}\nFilename: ./{place.name}\nSize: {file.stat().st_size}\n"
            f"SHA256: {sha256(file)}\n"
        )
    (folder / "Packages").write_text("\n".join(entries), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
