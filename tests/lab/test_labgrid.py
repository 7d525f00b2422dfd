"""A real labgrid coordinator and exporter, with boards of this tree as places."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import labgrid, lock
from pilite.lab.labgrid import Farm
from tests.lab.stub import ARTIFACTS, ROOT

LOCK = Path(__file__).with_name("labgrid.lock")
EXPORTED = "desk: {ssh: {cls: NetworkService, address: 127.0.0.1, username: nobody}}\n"


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


@pytest.fixture(scope="module")
def there(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A farm of one place, called `local`, with the tag cpu=any."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "exported.yaml").write_text(EXPORTED)
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
            found.ask("-p", "local", "create")
            found.ask("-p", "local", "add-match", "farm/desk/*")
            found.ask("-p", "local", "set-tags", "cpu=any")
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
    shown = found.ask("-p", "local", "show")
    return "acquired: None" in shown and not found.ask("reservations")


@pytest.mark.slow
def test_a_place_is_ours_until_the_end_and_nobody_elses(there: Farm) -> None:
    with labgrid.borrowed(there, ["cpu=any"]) as name:
        assert name == "local"
        assert f"acquired: {os.uname().nodename}/" in there.ask("-p", "local", "show")
        with (
            pytest.raises(BoardError, match=r"No place with cpu=any became free; .*reservations"),
            labgrid.borrowed(there, ["cpu=any"], patience=3),
        ):
            pass
        assert not is_free(there)
    assert is_free(there)


@pytest.mark.slow
@pytest.mark.fault("bench killed while it has a place of a farm")
def test_a_place_is_given_back_by_one_who_was_killed(there: Farm) -> None:
    code = (
        "import sys, time; from pilite.lab import labgrid\n"
        "with labgrid.borrowed(labgrid.Farm(*sys.argv[1:]), ['cpu=any']):\n"
        "    print('ready', flush=True); time.sleep(99)\n"
    )
    command = [sys.executable, "-c", code, there.coordinator, there.client]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert not is_free(there)
        process.kill()
    until(lambda: is_free(there))


@pytest.mark.slow
def test_bench_borrows_deploys_measures_and_gives_back(there: Farm, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = "--tag cpu=any --model mobilenet_v1_0.25_128_uint8 --threads 1 --effort quick --rival tflite"
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
    assert json.loads(result.read_text())["board"]["name"] == "local"
    assert is_free(there)


def test_a_coordinator_that_is_off_is_named(tools: Path) -> None:
    off = Farm("127.0.0.1:1", str(tools / "labgrid-client"))
    with (
        pytest.raises(BoardError, match=r"^127.0.0.1:1: `labgrid-client reserve --shell cpu=any` failed: "),
        labgrid.borrowed(off, ["cpu=any"]),
    ):
        pass


def test_without_labgrids_client_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BoardError, match=r"--labgrid farm:20408: there is no labgrid-client here\. Install"):
        labgrid.farm("farm:20408")
