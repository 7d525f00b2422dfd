"""Put a release together: packages of the loader, a tarball per model, statements, sums, signature."""

from __future__ import annotations

import ctypes
import fcntl
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pilite import VERSION
from pilite.errors import PiliteError
from pilite.lab import signing
from pilite.lab.loader import build_loader
from pilite.release import files, loader, statements
from pilite.release.files import File
from pilite.release.statements import Parameters

SUMS, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
PROVENANCE, BILL = "provenance.intoto.json", "sbom.cdx.json"
PURPOSE = "pilite-release"  # the namespace of the signature: it is worth nothing for anything else
_LIBC = ctypes.CDLL(None)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of renameat2(2)
Artifacts = Mapping[tuple[str, str, str], Path]  # (model, cpu, numerics) -> model.so


def contents(parameters: Parameters, built: Artifacts, artifacts: Path) -> list[File]:
    """Every file of the release but for its signature; SHA256SUMS is the last."""
    made = [one for arch in loader.ARCHITECTURES for one in _loader(arch, artifacts)]
    rows = {"/".join((*key, "model.so")): path.read_bytes() for key, path in sorted(built.items())}
    for model in parameters.models:
        own = [File(name, data) for name, data in rows.items() if name.split("/")[0] == model.name]
        made.append(File(f"pilite-model-{model.name}-{VERSION}.tar.gz", files.tar_gz(own)))
    digests = {name: sha256(data) for name, data in rows.items()}
    made.append(File(BILL, statements.bill(parameters.models, digests)))
    made.append(File(PROVENANCE, statements.provenance(parameters, {f.name: sha256(f.data) for f in made})))
    return [*made, File(SUMS, sums({f.name: sha256(f.data) for f in made}).encode())]


def _loader(arch: str, artifacts: Path) -> list[File]:
    return loader.packages(arch, build_loader(arch, artifacts))  # type: ignore[arg-type]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sums(digests: Mapping[str, str]) -> str:
    """The one way to write SHA256SUMS: as sha256sum(1) does, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def write(made: Sequence[File], key: Path, folder: Path) -> None:
    """Sign and write into a folder beside, then put that in the place of the release before.

    Raises PiliteError if it cannot be written or signed; the release before is then unchanged.
    """
    signature = signing.sign(made[-1].data, key, PURPOSE)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder) as scratch:
            new = scratch / "new"
            new.mkdir()
            for file in [*made, File(SIGNATURE, signature.encode())]:
                _put(new / file.name, file.data)
            refuse_foreign(folder)
            _replace(folder, new)
    except OSError as problem:
        raise PiliteError(
            f"{folder}: the release cannot be written: {problem.strerror}. The one before is unchanged."
        ) from None


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write in; another release waits, and what a killed one left is removed."""
    prefix = f".{folder.name}.pilite-"
    descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # the kernel gives it back when its holder dies
        for left in folder.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as scratch:
            yield Path(scratch)
    finally:
        os.close(descriptor)


def _replace(folder: Path, new: Path) -> None:
    """Put `new` in the place of `folder`, in one step: whoever is killed leaves one of the two whole.

    A file system that cannot exchange two folders (NFS) takes two steps.
    """
    if not folder.exists():
        new.rename(folder)
    elif _LIBC.renameat2(_HERE, os.fsencode(new), _HERE, os.fsencode(folder), _EXCHANGE):
        folder.rename(new.with_name("old"))
        new.rename(folder)


def refuse_foreign(folder: Path) -> None:
    """What is no release is not replaced. Raises PiliteError."""
    if folder.exists() and not folder.is_dir():
        raise PiliteError(f"{folder} is a file. Give a folder with --to.")
    if folder.exists() and not (folder / SUMS).is_file() and any(folder.iterdir()):
        raise PiliteError(f"{folder} holds other files and no release. Give another folder with --to.")


def _put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
