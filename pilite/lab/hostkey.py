"""Host keys before they are trusted: ask a machine which ones it has, and their fingerprints."""

from __future__ import annotations

import base64
import hashlib
import socket

import paramiko

from pilite.errors import BoardError

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512")  # the best first
SECONDS = 15.0


def offered(host: str, port: int, where: str) -> list[str]:
    """The host keys of a machine as "ssh-ed25519 AAAA...", proved by its signatures.

    Only the key exchange takes place: no user name and no key of ours is sent.
    Raises BoardError if nothing answers, or no SSH server.
    """
    keys, failure = [], ""
    for kind in KINDS:
        try:
            keys.append(_ask(host, port, kind))
        except paramiko.SSHException as problem:
            failure = str(problem)
        except OSError as problem:
            raise BoardError(
                f"{where}: no connection ({problem}). Is it on, and is its address right?"
            ) from None
    if not keys:
        raise BoardError(f"{where}: no SSH server with a key of {', '.join(KINDS)}: {failure}")
    return keys


def _ask(host: str, port: int, kind: str) -> str:
    with socket.create_connection((host, port), timeout=SECONDS) as link:
        transport = paramiko.Transport(link)
        try:
            transport.banner_timeout = transport.handshake_timeout = SECONDS
            transport.get_security_options().key_types = (kind,)
            transport.start_client(timeout=SECONDS)
            key = transport.get_remote_server_key()
            return f"{key.get_name()} {key.get_base64()}"
        except EOFError:
            raise paramiko.SSHException("it closed the connection") from None
        finally:
            transport.close()


def fingerprint(key: str) -> str:
    """ "SHA256:..." of "ssh-ed25519 AAAA...", as ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
