"""The history in a browser on this machine: rows with filters, and every run's page. Reads only."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pilite.errors import PiliteError
from pilite.lab import history
from pilite.lab.page import render

Json = dict[str, Any]
Query = dict[str, list[str]]

FILTERS = ("board", "model", "runtime", "threads", "effort", "verdict")
MOST = 500  # rows of one answer


def server(artifacts: Path, port: int) -> ThreadingHTTPServer:
    """Listens on this machine only. Raises PiliteError if the port is taken."""
    handler = type("Handler", (_Handler,), {"artifacts": artifacts})
    if port > 65535:
        raise PiliteError(f"--port {port}: there are none above 65535.")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as problem:
        raise PiliteError(f"--port {port}: {problem.strerror}; choose another one.") from None


class _Handler(BaseHTTPRequestHandler):
    artifacts: Path

    def do_GET(self) -> None:
        """A page, or a line that says what is wrong."""
        address = urlsplit(self.path)
        try:
            status, text = answer(self.artifacts, unquote(address.path), parse_qs(address.query))
        except PiliteError as problem:
            status, text = 404, error_page(str(problem))
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """A page view is no news."""


def answer(artifacts: Path, path: str, query: Query) -> tuple[int, str]:
    """Status and page. Raises PiliteError for an address that there is not."""
    for prefix, page in PAGES.items():
        if path == prefix or (prefix != "/" and path.startswith(prefix)):
            return 200, page(artifacts, path.removeprefix(prefix), query)
    raise PiliteError(f"{path}: no such page.")


def history_page(artifacts: Path, rest: str, query: Query) -> str:
    """Rows that fit the filters, the newest first."""
    with history.opened(artifacts) as connection:
        every = history.entries(connection)
        wanted = {name: [value for value in query.get(name, []) if value] for name in FILTERS}
        found = history.entries(connection, **wanted)
    choices = {
        name: sorted({str(entry[name]) for entry in every if entry[name] is not None}) for name in FILTERS
    }
    rows = [{**shown, "run": entry["run"]} for shown, entry in zip(history.table(found), found, strict=True)]
    return _render("history.html", rows=rows[::-1][:MOST], count=len(rows), choices=choices, chosen=wanted)


def run_page(artifacts: Path, rest: str, query: Query) -> str:
    """One run; only names of finished runs lead to a file."""
    with history.opened(artifacts) as connection:
        history.document(connection, rest)
    return render.html([render.read(artifacts, rest)])


PAGES: dict[str, Callable[[Path, str, Query], str]] = {"/": history_page, "/run/": run_page}


def error_page(what: str) -> str:
    return _render("error.html", what=what)


def _render(name: str, **values: Any) -> str:
    style = (render.FOLDER / "style.css").read_text(encoding="utf-8")
    text: str = render.environment().get_template(name).render(style=style, **values)
    return text
