"""A real labgrid coordinator and exporter, with boards of this tree as places."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import container, labgrid, lock, ssh
from pilite.lab.boardkeys import make_keys
from pilite.lab.connection import Connection, NoAnswer
from pilite.lab.labgrid import Farm
from tests.lab.conftest import Bed
from tests.lab.stub import ARTIFACTS, ROOT

LOCK = Path(__file__).with_name("labgrid.lock")
TAG = "cpu=cortex-a72"
EXPORTED = """
desk:
  ssh: {{cls: NetworkService, address: 127.0.0.1, username: bench}}
  power: {{cls: NetworkPowerPort, model: simplerest, host: "{plug}/{{index}}/{{value}}", index: 0}}
"""


@pytest.fixture(scope="session")
def tools() -> Path:
    """labgrid's programs, in an environment of their own that is made once."""
    folder = ARTIFACTS / "labgrid" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    with lock.held(ARTIFACTS / "locks" / "labgrid"):
        if not (folder / "made").is_file():
            venv.create(folder, with_pip=True, clear=True)
            words = ["--quiet", "--require-hashes", "--no-deps", "--no-compile", "--only-binary=:all:"]
            command = [str(folder / "bin" / "pip"), "install", *words, "-r", str(LOCK)]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no labgrid: pip could not install {LOCK.name}: {made.stderr[-200:]}")
            (folder / "made").touch()
    return folder / "bin"


class Plug(ThreadingHTTPServer):
    """A switchable socket as labgrid's `simplerest` knows it: what it was told, and who hears of it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Switch)
        self.told: list[str] = []
        self.powered: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Switch(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Plug)
        self.server.told.append(self.path)
        if self.path == "/0/1":
            self.server.powered()
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def plug() -> Iterator[Plug]:
    with Plug() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def there(tools: Path, plug: Plug, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm of one place, the virtual board `container`, with its tag and its power."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "exported.yaml").write_text(EXPORTED.format(plug=plug.address))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    found = Farm(address, str(tools / "labgrid-client"))
    commands: tuple[list[str | Path], ...] = (
        [tools / "labgrid-coordinator", "-l", address],
        [tools / "labgrid-exporter", "-c", address, "-n", "farm", folder / "exported.yaml"],
    )
    with (folder / "log").open("wb") as log:
        servers = []
        for command in commands:
            servers.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
            until(lambda: answers(found))
        try:
            until(lambda: "desk" in found.ask("resources"))
            found.ask("-p", "container", "create")
            found.ask("-p", "container", "add-match", "farm/desk/*")
            found.ask("-p", "container", "set-tags", TAG)
            yield found
        finally:
            for server in reversed(servers):
                server.terminate()
                server.wait()


def answers(found: Farm) -> bool:
    try:
        found.ask("places")
    except BoardError:
        return False
    return True


def until(done: Callable[[], bool]) -> None:
    for _ in range(60):
        if done():
            return
        time.sleep(0.5)
    raise AssertionError("not within half a minute")


def is_free(found: Farm) -> bool:
    shown = found.ask("-p", "container", "show")
    return "acquired: None" in shown and not found.ask("reservations")


@pytest.mark.slow
def test_a_place_is_ours_until_the_end_and_nobody_elses(there: Farm) -> None:
    with labgrid.borrowed(there, [TAG]) as name:
        assert name == "container"
        assert f"acquired: {os.uname().nodename}/" in there.ask("-p", "container", "show")
        with (
            pytest.raises(BoardError, match=r"No place with cpu=cortex-a72 became free; .*reservations"),
            labgrid.borrowed(there, [TAG], patience=3),
        ):
            pass
        assert not is_free(there)
    assert is_free(there)


@pytest.mark.slow
@pytest.mark.fault("bench killed while it has a place of a farm")
def test_a_place_is_given_back_by_one_who_was_killed(there: Farm) -> None:
    code = (
        "import sys, time; from pilite.lab import labgrid\n"
        "with labgrid.borrowed(labgrid.Farm(*sys.argv[1:]), ['cpu=cortex-a72']):\n"
        "    print('ready', flush=True); time.sleep(99)\n"
    )
    command = [sys.executable, "-c", code, there.coordinator, there.client]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert not is_free(there)
        process.kill()
    until(lambda: is_free(there))


@pytest.mark.docker
@pytest.mark.slow
def test_bench_borrows_deploys_measures_and_gives_back(there: Farm, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = f"--tag {TAG} --model mobilenet_v1_0.25_128_uint8 --threads 1 --effort quick --rival tflite"
    command = ["bench", "--labgrid", there.coordinator, *options.split(), "--json", str(result)]
    path = f"{Path(there.client).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, str(ROOT / "tasks.py"), *command],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(result.read_text())["board"]["name"] == "container"
    assert is_free(there)


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.fault("board of a farm hangs")
def test_a_place_that_hangs_is_switched_off_and_on(there: Farm, plug: Plug, container_bed: Bed) -> None:
    """The board stands still until its socket is switched on again; it is met as a Pi, by its address."""
    assert isinstance(container_bed.connection, ssh.SshConnection)
    address = container_bed.connection.address
    machine = container.client().containers.get(container.name_of(container_bed.board, ARTIFACTS))
    other = make_keys(container_bed.artifacts / "other").host_public
    with labgrid.borrowed(there, [TAG]) as place:
        labgrid.awaken(there, place, lambda: ssh.connect(address))
        assert plug.told == []  # it answers
        plug.powered = machine.unpause
        machine.pause()
        labgrid.awaken(there, place, lambda: ssh.connect(address, 3))
        assert plug.told == ["/0/0", "/0/1"]
        with pytest.raises(BoardError, match="another host key than the pinned one"):
            labgrid.awaken(there, place, lambda: ssh.connect(replace(address, host_key=other), 9))
        assert len(plug.told) == 2  # a wrong answer is no reason to cut anybody's power


def test_a_place_without_power_says_so_beside_why(tools: Path) -> None:
    def off() -> Connection:
        raise NoAnswer("pi (pi@10.0.0.4:22): no connection.")

    with pytest.raises(BoardError, match=r"^pi .*no connection\. labgrid could not cycle its power: 127"):
        labgrid.awaken(Farm("127.0.0.1:1", str(tools / "labgrid-client")), "pi", off)


def test_a_coordinator_that_is_off_is_named(tools: Path) -> None:
    off = Farm("127.0.0.1:1", str(tools / "labgrid-client"))
    with (
        pytest.raises(BoardError, match=rf"^127.0.0.1:1: `labgrid-client reserve --shell {TAG}` failed: "),
        labgrid.borrowed(off, [TAG]),
    ):
        pass


def test_without_labgrids_client_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BoardError, match=r"--labgrid farm:20408: there is no labgrid-client here\. Install"):
        labgrid.farm("farm:20408")
