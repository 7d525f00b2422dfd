"""Signatures by `ssh-keygen -Y`: who made these bytes, checked with a tool that every board has.

    keys = signing.own_keys(artifacts / "keys")               # made on first use
    signature = signing.sign(data, keys.key, "pilite-release")
    signing.verify(data, signature, keys.allowed, "pilite-release", "SHA256SUMS")

An ed25519 signature depends on key, purpose and data alone: the same three give the same text on any day.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pilite.errors import CheckFailed, PiliteError

IDENTITY = "pilite"  # the principal of an allowed-signers file that this checkout writes


@dataclass(frozen=True)
class Keys:
    """A key pair and the file that tells others to trust it."""

    key: Path
    allowed: Path  # an allowed-signers file, see ssh-keygen(1)


def own_keys(folder: Path) -> Keys:
    """The key pair in `folder`; made there without a passphrase if the folder is missing.

    Two callers at once get the same one. Raises PiliteError if ssh-keygen is missing or the folder damaged.
    """
    keys = Keys(folder / "signing_ed25519", folder / "allowed_signers")
    if not folder.exists():
        _make(folder)
    for path in (keys.key, keys.allowed):
        if not path.is_file():
            raise PiliteError(f"{path} is missing. Bring it back, or remove {folder} to get a new key.")
    return keys


def allowed_line(public: str, identity: str = IDENTITY) -> str:
    """The line of an allowed-signers file that trusts a public key ("ssh-ed25519 AAAA... comment")."""
    kind, blob = public.split()[:2]
    return f"{identity} {kind} {blob}\n"


def sign(data: bytes, key: Path, purpose: str) -> str:
    """The armored signature of `data`. It is worth nothing for another `purpose` (SSH's namespace).

    `key`: a private key file, or the public half of one that ssh-agent holds. Raises PiliteError.
    """
    done = _ssh_keygen("-q", "-Y", "sign", "-f", str(key), "-n", purpose, stdin=data)
    if done.returncode:
        raise PiliteError(f"{key}: cannot sign: {_words(done)}. Give a private key that ssh-keygen can use.")
    return done.stdout.decode("ascii")


def verify(
    data: bytes, signature: str, allowed: Path, purpose: str, what: str, identity: str = IDENTITY
) -> None:
    """Return if `signature` is one of `data` by a key that `allowed` trusts under this identity.

    `what` names the data in messages. Raises CheckFailed if not, PiliteError if `allowed` cannot be read.
    """
    if not allowed.is_file():
        raise PiliteError(f"{allowed}: no such file. It says whose signatures count (man ssh-keygen).")
    with tempfile.NamedTemporaryFile("w", suffix=".sig", encoding="utf-8") as file:
        file.write(signature)
        file.flush()
        done = _ssh_keygen(
            "-Y", "verify", "-f", str(allowed), "-I", identity, "-n", purpose, "-s", file.name, stdin=data
        )
    if done.returncode:
        raise CheckFailed(
            f"{what}: its signature is wrong or not by a key in {allowed} ({_words(done)}). Do not use it."
        )


def _make(folder: Path) -> None:
    """Make the pair beside `folder` and rename it: half a pair is never seen, the first of two wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        made = Path(scratch) / "keys"
        made.mkdir(mode=0o700)
        key = made / "signing_ed25519"
        done = _ssh_keygen("-q", "-t", "ed25519", "-N", "", "-C", IDENTITY, "-f", str(key))
        if done.returncode:
            raise PiliteError(f"{folder}: no key could be made: {_words(done)}.")
        (made / "allowed_signers").write_text(allowed_line(key.with_suffix(".pub").read_text()))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _ssh_keygen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run it without a terminal, so that it asks nothing."""
    environment = {**os.environ, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=stdin,
            env=environment,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError:
        raise PiliteError("Signatures need ssh-keygen: apt-get install openssh-client.") from None


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace")
    return " ".join(text.split())[-200:].rstrip(".") or f"ssh-keygen gave {done.returncode}"
