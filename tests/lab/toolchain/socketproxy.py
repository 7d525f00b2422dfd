"""A Unix socket that leads to the Docker engine until it is cut: an engine that dies, without ending one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENGINE = Path("/var/run/docker.sock")


@contextmanager
def proxy(place: Path) -> Iterator[Callable[[], None]]:
    """Listen on `place`; what it gives cuts all connections, and no new one is taken."""
    links: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place))
        door.listen()

        def cut() -> None:
            place.unlink(missing_ok=True)
            for link in links:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=_accept, args=(door, links), daemon=True).start()
        yield cut
        cut()


def _accept(door: socket.socket, links: list[socket.socket]) -> None:
    while True:
        try:
            near, _ = door.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(ENGINE))
        links += [near, far]
        for pair in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
