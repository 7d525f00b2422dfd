"""The history in a browser: filters, a run's page, addresses that are not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from pilite.errors import PiliteError
from pilite.lab import store
from pilite.lab.page import serve
from tests.lab.page import browser
from tests.lab.page.runs import run
from tests.lab.results import measured


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server over two runs."""
    for document, samples in ((measured(1, name="pi5"), {}), (run().document, run().samples)):

        def fill(folder: Path, document: object = document, samples: object = samples) -> None:
            (folder / "result.json").write_text(json.dumps(document))
            (folder / "samples.json").write_text(json.dumps(samples))

        store.add(tmp_path / "bench", document, fill)
    with serve.server(tmp_path, 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def fetched(address: str) -> str:
    with urlopen(address, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_rows_are_filtered(address: str) -> None:
    assert "10 rows" in fetched(f"{address}/")
    page = fetched(f"{address}/?board=pi5&runtime=tflite&verdict=")
    assert "1 rows" in page
    assert "2.00 times faster" in page
    assert "0 rows" in fetched(f"{address}/?board=%22%3E%3Cscript%3E")


def test_a_run_has_its_page(address: str) -> None:
    assert "Do it again" in fetched(f"{address}/run/20260301T120000Z-pi4")


@pytest.mark.parametrize("path", ["/other", "/run/none", "/run/../history.sqlite", "/run/%2e%2e/x"])
def test_an_address_that_is_not_there_is_said(address: str, path: str) -> None:
    with pytest.raises(HTTPError) as caught:
        fetched(address + path)
    with caught.value as answer:
        assert answer.code == 404
        assert "Nothing here" in answer.read().decode()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with serve.server(tmp_path, 0) as listening:
        port = listening.server_address[1]
        with pytest.raises(PiliteError, match=rf"--port {port}: .*; choose another one"):
            serve.server(tmp_path, port)


def test_a_port_that_there_is_not_is_said(tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match="--port 99999: there are none above 65535"):
        serve.server(tmp_path, 99999)


@pytest.mark.slow
def test_the_history_is_accessible(address: str) -> None:
    if browser.missing():
        pytest.skip(browser.missing())
    with browser.opened() as driver:
        for look in browser.LOOKS:
            browser.show(driver, f"{address}/", look)
            assert browser.violations(driver) == []
