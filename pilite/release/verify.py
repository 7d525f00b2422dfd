"""Check a release: signature, sums, nothing more and nothing less; on demand by building it again."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilite.errors import CheckFailed, PiliteError
from pilite.lab import signing
from pilite.release import make
from pilite.release.files import File

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9._+-]*)")
_ARMOR = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----")
_ARMOR_WIDTH = 70


def verify(folder: Path, allowed: Path) -> dict[str, str]:
    """The sha256 of every file of an intact release.

    Raises:
        CheckFailed: names every file that is damaged, missing or foreign.
        PiliteError: there is no release, or nobody to trust.
    """
    if not (folder / make.SUMS).is_file():
        raise PiliteError(f"{folder}: holds no {make.SUMS}. Give the folder of a release.")
    for name in (make.SUMS, make.SIGNATURE):
        if (folder / name).is_symlink():
            raise CheckFailed(f"{name}: is a link, and no file of a release. Download the release again.")
    text = _read(folder / make.SUMS)
    found = _digests(folder)
    check_signature(folder, text, allowed, found)
    wanted = parse(text)
    problems = differences(wanted, found)
    if problems:
        raise CheckFailed("\n  ".join([f"{folder} is not what was released:", *problems]))
    return wanted


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise CheckFailed(f"{path.name}: {problem.strerror}. Download the release again.") from None


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below the folder but for the sums and their signature; "" for what is no file."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    own = (folder / make.SUMS, folder / make.SIGNATURE)
    return {
        str(path.relative_to(folder)): make.sha256(_read(path))
        if path.is_file() and not path.is_symlink()
        else ""
        for path in paths
        if path not in own
    }


def check_signature(folder: Path, text: bytes, allowed: Path, found: Mapping[str, str]) -> None:
    """Raise CheckFailed and say which of the two files is at fault: the sums, or their signature."""
    signature = _read(folder / make.SIGNATURE)
    if not is_canonical(signature):
        raise CheckFailed(
            f"{make.SIGNATURE}: damaged: no signature as ssh-keygen writes it. Download the release again."
        )
    sums_fit = os.fsdecode(text) == make.sums(found)
    what = make.SIGNATURE if sums_fit else make.SUMS
    signing.verify(text, signature.decode("ascii"), allowed, make.PURPOSE, what)


def is_canonical(signature: bytes) -> bool:
    """Whether no other bytes would mean the same: one line width, one alphabet, no spare bits."""
    try:
        lines = signature.decode("ascii").split("\n")
        blob = base64.b64decode("".join(lines[1:-2]), validate=True)
    except (ValueError, binascii.Error):
        return False
    body = base64.b64encode(blob).decode()
    wrapped = [body[i : i + _ARMOR_WIDTH] for i in range(0, len(body), _ARMOR_WIDTH)]
    return lines == [_ARMOR[0], *wrapped, _ARMOR[1], ""]


def parse(text: bytes) -> dict[str, str]:
    """Name -> sha256 of every line. Raises CheckFailed for a line that is none."""
    lines = text.decode("ascii", "replace").splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    for number, match in enumerate(matches, 1):
        if match is None:
            raise CheckFailed(f"{make.SUMS}: line {number} is not 'sha256  name'.")
    return {match[2]: match[1] for match in matches if match}


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """One line per file."""
    lines = []
    for name in sorted({*wanted, *found}):
        shown = name if name.isprintable() else ascii(name)  # a name may be any bytes
        if name not in found:
            lines.append(f"{shown}: is missing")
        elif name not in wanted:
            lines.append(f"{shown}: is no part of the release")
        elif wanted[name] != found[name]:
            lines.append(
                f"{shown}: has other bytes ({found[name][:12] or 'no file'}, not {wanted[name][:12]})"
            )
    return lines


def compare(released: Mapping[str, str], again: Sequence[File]) -> None:
    """Raise CheckFailed naming every file that came out differently when the release was built again."""
    made = {file.name: make.sha256(file.data) for file in again if file.name != make.SUMS}
    problems = differences(released, made)
    if problems:
        raise CheckFailed("\n  ".join(["built again, it has other bytes:", *problems]))
