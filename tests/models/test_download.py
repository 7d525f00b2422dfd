"""Published files come from a server on this machine: whole, in parts, cut off, wrong, not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import models
from models import download, registry, store
from models.registry import Entry
from pilite.errors import ModelError, PiliteError

BYTES = bytes(range(256)) * 4000  # a published file of a megabyte
NAME = "published"


@dataclass
class Behaviour:
    """What the server does; `asked` are the Range headers it saw."""

    content: bytes = BYTES
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes sent before the connection is cut, per request
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = Behaviour()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{NAME}.tflite"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        b = self.server.behaviour
        asked = self.headers.get("Range")
        b.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and b.ranges else 0
        if b.status != 200 or start > len(b.content) or (start and start == len(b.content)):
            self.send_error(b.status if b.status != 200 else 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(b.content) - start))
        self.end_headers()
        end = start + b.cuts.pop(0) if b.cuts else len(b.content)
        self.wfile.write(b.content[start:end])

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose file is the entry `published` of the table."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        digest = sha256(BYTES).hexdigest()
        entry = Entry(NAME, "file", "", "", source="a test", url=running.url, sha256=digest)
        monkeypatch.setattr(registry, "entries", lambda: {NAME: entry})
        yield running
        running.shutdown()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / f"{NAME}.tflite"


def get(artifacts: Path, folder: Path | None = None) -> models.Source:
    return models.resolve(NAME, artifacts, folder, say=lambda line: None)


def test_a_published_file_is_downloaded_once(server: Server, tmp_path: Path, target: Path) -> None:
    assert get(tmp_path) == get(tmp_path) == models.Source(NAME, target, "file")

    assert target.read_bytes() == BYTES
    assert server.behaviour.asked == [None]
    assert not target.with_name(f"{NAME}.tflite.part").exists()


def test_a_part_is_continued_where_it_ends(server: Server, tmp_path: Path, target: Path) -> None:
    target.with_name(f"{target.name}.part").write_bytes(BYTES[:300_000])

    get(tmp_path)

    assert target.read_bytes() == BYTES
    assert server.behaviour.asked == ["bytes=300000-"]


def test_a_part_that_was_complete_is_installed(server: Server, tmp_path: Path, target: Path) -> None:
    target.with_name(f"{target.name}.part").write_bytes(BYTES)

    get(tmp_path)

    assert target.read_bytes() == BYTES


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path, target: Path) -> None:
    target.with_name(f"{target.name}.part").write_bytes(BYTES[:300_000])
    server.behaviour.ranges = False

    get(tmp_path)

    assert target.read_bytes() == BYTES


def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path, target: Path) -> None:
    target.with_name(f"{target.name}.part").write_bytes(b"?" * 300_000)

    get(tmp_path)

    assert target.read_bytes() == BYTES
    assert server.behaviour.asked == ["bytes=300000-", None]


def test_a_cut_connection_is_continued(server: Server, tmp_path: Path, target: Path) -> None:
    server.behaviour.cuts = [100_000, 200_000]

    get(tmp_path)

    assert target.read_bytes() == BYTES
    assert server.behaviour.asked == [None, "bytes=100000-", "bytes=300000-"]


def test_a_connection_that_is_always_cut_keeps_what_arrived(
    server: Server, tmp_path: Path, target: Path
) -> None:
    server.behaviour.cuts = [1000] * download.ATTEMPTS

    with pytest.raises(PiliteError, match=r"the connection was cut 4 times\. What arrived is kept"):
        get(tmp_path)

    assert not target.exists()
    assert target.with_name(f"{target.name}.part").stat().st_size == 1000 * download.ATTEMPTS
    get(tmp_path)
    assert target.read_bytes() == BYTES


def test_other_bytes_than_promised_are_discarded(server: Server, tmp_path: Path, target: Path) -> None:
    server.behaviour.content = b"<html>sign in to this network</html>"

    with pytest.raises(ModelError, match="its digest differs, so it was discarded"):
        get(tmp_path)

    assert [path for path in target.parent.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_is_told_with_its_status_and_what_to_do(
    status: int, server: Server, tmp_path: Path, target: Path
) -> None:
    server.behaviour.status = status

    with pytest.raises(PiliteError, match=rf"(?s)the server answers {status} .*PILITE_MODELS"):
        get(tmp_path)


def test_without_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    entry = Entry(NAME, "file", "", "", source="a test", url=url, sha256="0" * 64)
    monkeypatch.setattr(registry, "entries", lambda: {NAME: entry})

    with pytest.raises(PiliteError, match=r"(?s)cannot download .*refused.*Without network: put the file"):
        get(tmp_path)


def test_a_damaged_download_is_replaced(server: Server, tmp_path: Path, target: Path) -> None:
    target.write_bytes(b"damaged")

    get(tmp_path)

    assert target.read_bytes() == BYTES


def test_a_file_in_the_folder_is_used_where_it_is(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{NAME}.tflite").write_bytes(BYTES)

    assert get(tmp_path, folder).path == folder / f"{NAME}.tflite"
    assert server.behaviour.asked == []


def test_a_wrong_file_in_the_folder_is_an_error(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{NAME}.tflite").write_bytes(b"something else")

    with pytest.raises(ModelError, match=f"is not the published {NAME}"):
        get(tmp_path, folder)


def test_a_folder_without_the_file_leads_to_the_download(
    server: Server, tmp_path: Path, target: Path
) -> None:
    assert get(tmp_path, tmp_path / "no such folder").path == target


def test_an_entry_without_an_address_says_where_the_file_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(NAME, "file", "", "", source="the archive", sha256="0" * 64)
    monkeypatch.setattr(registry, "entries", lambda: {NAME: entry})

    with pytest.raises(
        PiliteError, match=r"Its source is the archive: put published\.tflite into the folder"
    ):
        get(tmp_path)


def test_a_git_blob_identifies_a_download_too(
    server: Server, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "same").write_bytes(BYTES)
    blob = store.git_blob(tmp_path / "same")
    assert blob is not None
    entry = replace(registry.entries()[NAME], sha256="", git_blob=blob)
    monkeypatch.setattr(registry, "entries", lambda: {NAME: entry})

    assert get(tmp_path).path == target
