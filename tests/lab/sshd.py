"""An SSH server in this process that lets nobody in and remembers who tried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import paramiko
from paramiko.common import AUTH_FAILED


@dataclass
class Doorman(paramiko.ServerInterface):
    """`tried`: every user name and key that was sent to it."""

    key: paramiko.PKey
    port: int = 0
    tried: list[str] = field(default_factory=list)

    @property
    def host_key(self) -> str:
        return f"{self.key.get_name()} {self.key.get_base64()}"

    def get_allowed_auths(self, username: str) -> str:
        self.tried.append(username)
        return "publickey"

    def check_auth_none(self, username: str) -> int:
        self.tried.append(username)
        return int(AUTH_FAILED)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.tried.append(f"{username} {key.get_base64()}")
        return int(AUTH_FAILED)


@contextmanager
def doorman() -> Iterator[Doorman]:
    """A server with a fresh host key on a port of 127.0.0.1."""
    server = Doorman(paramiko.ECDSAKey.generate())
    with socket.create_server(("127.0.0.1", 0)) as door:
        server.port = door.getsockname()[1]
        threading.Thread(target=_serve, args=(door, server), daemon=True).start()
        yield server


def _serve(door: socket.socket, server: Doorman) -> None:
    while True:
        try:
            link, _ = door.accept()
        except OSError:  # closed: the test is over
            return
        transport = paramiko.Transport(link)
        transport.add_server_key(server.key)
        transport.start_server(event=threading.Event(), server=server)
