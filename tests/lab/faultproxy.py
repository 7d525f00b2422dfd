"""A TCP proxy that does what bad links do: resets, silence, wrong bits, delay. It needs no rights."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 1 << 14


@dataclass
class Faults:
    """What happens to the bytes that go to the board; positions count from the start of the connection."""

    reset_at: int | None = None
    silent_at: int | None = None
    flip_at: int | None = None
    delay: float = 0.0  # seconds before each piece
    port: int = 0
    sent: int = 0
    sockets: list[socket.socket] = field(default_factory=list)


@contextmanager
def proxy(port: int, faults: Faults, host: str = "127.0.0.1") -> Iterator[Faults]:
    """Listen on `faults.port` of `host` and pass everything on to `port` of 127.0.0.1, with faults."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as door:
        faults.port = door.getsockname()[1]
        threading.Thread(target=_accept, args=(door, port, faults), daemon=True).start()
        yield faults
        for link in faults.sockets:
            link.close()


def _accept(door: socket.socket, port: int, faults: Faults) -> None:
    while True:
        try:
            near, _ = door.accept()
            far = socket.create_connection(("127.0.0.1", port))
        except OSError:
            return
        faults.sockets += [near, far]
        for pair in ((near, far, faults), (far, near, Faults())):
            threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, faults: Faults) -> None:
    with suppress(OSError):
        while data := source.recv(PIECE):
            start, faults.sent = faults.sent, faults.sent + len(data)
            if _within(faults.silent_at, start, data):
                time.sleep(3600)
            if _within(faults.reset_at, start, data):
                for link in (source, target):
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    link.close()
                return
            if faults.flip_at is not None and _within(faults.flip_at, start, data):
                changed = bytearray(data)
                changed[faults.flip_at - start] ^= 1
                data = bytes(changed)
            time.sleep(faults.delay)
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _within(position: int | None, start: int, data: bytes) -> bool:
    return position is not None and start <= position < start + len(data)
