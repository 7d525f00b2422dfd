"""The key pairs of a virtual board, made once per checkout: who we are and who the board is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


@dataclass(frozen=True)
class Keys:
    """Files of the private keys, and their public lines."""

    client: Path
    client_public: str
    host: Path
    host_public: str


def make_keys(folder: Path) -> Keys:
    """Read the board's keys, or make them."""
    pairs = [(folder / name, _key_pair(folder / name)) for name in ("client_ed25519", "host_ed25519")]
    (client_path, client_public), (host_path, host_public) = pairs
    return Keys(client_path, client_public, host_path, host_public)


def _key_pair(path: Path) -> str:
    """Make a private key file if there is none; its public line."""
    public = path.with_suffix(".pub")
    if not public.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return public.read_text().strip()
