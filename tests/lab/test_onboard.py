"""onboard: the fingerprint first, then facts, then a file that deploys can use."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from pilite.errors import BoardError, PiliteError
from pilite.lab import boardkeys, boards, facts, hostkey, onboard, remarks, ssh, wheels
from pilite.lab import container as virtual
from pilite.lab.connection import Connection
from pilite.lab.onboard import Visitor
from tests.lab.conftest import Bed
from tests.lab.sshd import Doorman, doorman
from tests.lab.stub import ARTIFACTS
from tests.lab.test_facts import recorded

FINGERPRINT = r"SHA256:[A-Za-z0-9+/]{43}"
SCHEMA = Path(onboard.__file__).with_name("schemas") / "facts-1.json"


def visitor(door: Doorman, tmp_path: Path, fingerprint: str = "") -> Visitor:
    keys = boardkeys.make_keys(tmp_path / "keys")
    return Visitor("pi", "127.0.0.1", "pi", keys.client, door.port, fingerprint)


def test_without_a_fingerprint_it_is_shown_and_nothing_is_sent(tmp_path: Path) -> None:
    said: list[str] = []
    with doorman() as door:
        with pytest.raises(BoardError, match=r"nothing was sent yet.*ssh-keygen -lf .*--fingerprint"):
            onboard.meet(visitor(door, tmp_path), said.append, tmp_path)
        assert [hostkey.fingerprint(door.host_key) in line for line in said] == [True]
        assert door.tried == []
    assert not list(tmp_path.glob("*.toml"))


@pytest.mark.fault("wrong fingerprint at onboarding")
def test_another_fingerprint_is_refused_and_nothing_is_sent(tmp_path: Path) -> None:
    wrong = "SHA256:" + "A" * 43
    with doorman() as door:
        with pytest.raises(BoardError, match=rf"shows {FINGERPRINT}, not {wrong}\. Another machine answers"):
            onboard.meet(visitor(door, tmp_path, wrong), lambda text: None, tmp_path)
        assert door.tried == []


def test_the_right_fingerprint_is_pinned_and_a_refused_key_is_named(tmp_path: Path) -> None:
    with doorman() as door:
        right = hostkey.fingerprint(door.host_key)
        assert onboard.pinned(visitor(door, tmp_path, right), lambda text: None) == door.host_key
        assert door.tried == []
        with pytest.raises(BoardError, match=r"the board refuses the key .*client_ed25519"):
            onboard.meet(visitor(door, tmp_path, right), lambda text: None, tmp_path)
        assert door.tried != []  # the doorman does see who knocks


def test_a_fingerprint_is_what_ssh_keygen_prints(tmp_path: Path) -> None:
    key = boardkeys.make_keys(tmp_path).host_public
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=key, capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == hostkey.fingerprint(key)


def test_a_board_that_is_off_and_one_that_speaks_no_ssh(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(BoardError, match=rf"^pi \(127.0.0.1:{port}\): no connection .*Is it on"):
        hostkey.offered("127.0.0.1", port, f"pi (127.0.0.1:{port})")


@pytest.mark.parametrize("name", ["", "../pi", "Pi", "-pi", "a b", "pi/4"])
def test_a_name_that_cannot_name_a_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PiliteError, match=r"--name .*lower-case letters"):
        onboard.check_name(name, tmp_path)


def test_a_board_of_another_kind_is_not_written_over() -> None:
    with pytest.raises(PiliteError, match=r"boards/container.toml is no board of kind ssh"):
        onboard.check_name("container", boards.FOLDER)


def test_an_unknown_board_without_an_address_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"No board 'pi9'; .*A new one needs --host and --user"):
        onboard.known("pi9", tmp_path)


def test_a_fatal_remark_stops_with_its_words() -> None:
    values = facts.parse(recorded("pi4b-32-bit"))
    with pytest.raises(BoardError, match=r"^pi: its userland is 32-bit .* Also, 9 MB are free"):
        onboard.refuse("pi", remarks.remarks(values, 0))


def test_a_written_board_is_read_back_and_keeps_what_its_owner_added(tmp_path: Path) -> None:
    values = facts.parse(recorded("pi5"))
    seen = Visitor("pi5", "10.0.0.5", "lab", Path("/keys/k"), 2222)
    board = onboard.described(seen, "ssh-ed25519 AAAA", "cortex-a76", values)
    path = onboard.write(board, tmp_path)
    assert boards.read("pi5", tmp_path) == board
    assert (board.threads, board.model) == ((1, 4), "Raspberry Pi 5 Model B Rev 1.0")
    path.write_text(path.read_text() + 'groups = ["desk"]\nroot = "/srv/pilite"\n')
    onboard.write(replace(board, host="10.0.0.6"), tmp_path)
    again = boards.read("pi5", tmp_path)
    assert again == replace(board, host="10.0.0.6", groups=("desk",), root="/srv/pilite")
    assert [file.name for file in tmp_path.iterdir()] == ["pi5.toml"]


def test_a_rival_without_a_wheel_becomes_a_remark_that_says_what_still_works(
    local_bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, *rest: object) -> Path:
        raise BoardError(f"{name} has no wheel for Python 3.13 on aarch64")

    monkeypatch.setattr(wheels, "fetch", fetch)
    monkeypatch.setattr(wheels, "site", lambda *rest: "/site")
    (first, second) = onboard.equip(replace(local_bed.board, kind="ssh"), local_bed.connection, ARTIFACTS)
    assert first.text == (
        "tflite: tflite-runtime has no wheel for Python 3.13 on aarch64. bench has no rival there; "
        "deploy and rollback still work."
    )
    assert second.name == "no wheel"


@pytest.mark.docker
@pytest.mark.slow
def test_a_machine_becomes_a_board_and_its_file_is_enough_to_deploy(
    container: Connection, tmp_path: Path
) -> None:
    """The container board, met like a Pi: by its address and its fingerprint."""
    known = boards.load("container", ARTIFACTS)
    keys = boardkeys.make_keys(ARTIFACTS / "board" / "container" / "keys")
    port = virtual.port_of(virtual.client().containers.get(virtual.name_of(known, ARTIFACTS)))
    right = hostkey.fingerprint(keys.host_public)
    login = Visitor("stranger", "127.0.0.1", "bench", keys.client, port, right)
    met = onboard.meet(login, lambda text: None, tmp_path)
    assert (met.board.cpu, met.board.core_part) == ("cortex-a72", "0xd08")
    board = boards.load("stranger", tmp_path, tmp_path)
    assert (board.kind, board.root) == ("ssh", "/home/bench/pilite")
    with boards.connect(board, tmp_path) as connection:
        assert isinstance(connection, ssh.SshConnection)
        looked = onboard.look(board, connection)
    assert not any(remark.fatal for remark in looked.remarks)
    jsonschema.validate(onboard.document([looked]), json.loads(SCHEMA.read_text()))


def test_facts_of_this_machine_fit_their_schema(local_bed: Bed) -> None:
    document = onboard.document([onboard.look(local_bed.board, local_bed.connection)])
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["boards"][0]["name"] == "local"
