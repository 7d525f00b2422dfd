"""Boards that somebody set up, or spoiled, in ways nobody planned: a deploy works, or says what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from pilite.errors import BoardError
from pilite.lab import boardkeys, boards, deploy, release, ssh
from pilite.lab.ssh import Address, SshConnection
from tests.lab.conftest import Bed
from tests.lab.faultproxy import Faults, proxy
from tests.lab.stub import ARTIFACTS, MODEL, ROOT, Stub
from tests.lab.test_deploy import link, put, releases
from tests.lab.test_faults import converges, deployed_once, is_whole

# The shell and the disk there.

TALKS = """echo "Welcome, it is $(date)"; echo "no terminal" >&2\n"""


@contextmanager
def shell_file(bed: Bed, text: str) -> Iterator[None]:
    """Another ~/.bashrc there, which bash reads for every command that SSH brings."""
    file = bed.artifacts / "bashrc"
    file.write_text(text)
    bed.connection.put(file, ".bashrc")  # by SFTP, which needs no shell
    try:
        yield
    finally:
        file.write_text("")
        bed.connection.put(file, ".bashrc")


@pytest.mark.fault("board's shell prints at login")
def test_a_shell_that_talks_at_login_disturbs_nothing(far_bed: Bed) -> None:
    with shell_file(far_bed, TALKS):
        assert far_bed.connection.check(["echo", "word"]) == "word\n"
        done = put(far_bed, Stub(2), expected=Stub(2))
    assert (link(far_bed, "current"), is_whole(far_bed)) == (done.release, True)


@pytest.mark.fault("board's shell ends at login")
def test_a_shell_that_ends_at_login_is_no_success(far_bed: Bed) -> None:
    """Its exit code 0 is not the command's."""
    old = deployed_once(far_bed)
    with (
        shell_file(far_bed, "echo not today; exit 0\n"),
        pytest.raises(BoardError, match=r"ended with 0 before it came to that; it said: not today\."),
    ):
        put(far_bed, Stub(2))
    converges(far_bed, Stub(2), old)


def test_an_sftp_server_that_talks_is_explained(tmp_path: Path) -> None:
    def garbage() -> None:
        raise paramiko.SFTPError("Garbage packet received")

    talking = SshConnection(None, Address("pi", "10.0.0.4", 22, "pi", tmp_path, ""))
    with pytest.raises(BoardError, match=r"a start-up file of the shell there \(~/.bashrc\) prints"):
        talking._answer(garbage, "a to b")


@pytest.mark.fault("board's folder belongs to another user")
def test_a_folder_that_may_not_be_written_is_named_with_what_to_do(far_bed: Bed) -> None:
    old = deployed_once(far_bed)
    folder = f"{far_bed.root}/{MODEL}"
    far_bed.connection.check(["chmod", "a-w", folder, f"{folder}/.lock"])
    with pytest.raises(BoardError, match=r"Permission denied\. That is not its user's: see `ls -ld` there"):
        put(far_bed, Stub(2))
    far_bed.connection.check(["chmod", "u+w", folder, f"{folder}/.lock"])
    converges(far_bed, Stub(2), old)


@pytest.mark.slow
@pytest.mark.fault("board's disk became read-only")
def test_a_disk_that_became_read_only_is_named_with_what_to_do(vm_bed: Bed) -> None:
    old = deployed_once(vm_bed)
    mount = 'sudo -n mount -o remount,$1 "$(df --output=target "$2" | tail -1)"'
    vm_bed.connection.check(["sh", "-c", mount, "mount", "ro", vm_bed.root])
    try:
        with pytest.raises(BoardError, match=r"Read-only file system\. Its disk takes no writes"):
            put(vm_bed, Stub(2))
    finally:
        vm_bed.connection.check(["sh", "-c", mount, "mount", "rw", vm_bed.root])
    converges(vm_bed, Stub(2), old)


class Filling(SshConnection):
    """A connection on which the disk there becomes full just before the switch."""

    def __init__(self, under: SshConnection, folder: str) -> None:
        super().__init__(under._client, under.address)
        self._folder = folder

    def run(self, command, **options):  # type: ignore[no-untyped-def]
        if list(command[3:5]) == ["release.sh", "switch"]:
            fill = 'cd "$1"; cat /dev/zero >filler 2>/dev/null; sync .'
            super().run(["sh", "-c", fill, "fill", self._folder], timeout=180)
        return super().run(command, **options)


@pytest.mark.slow
@pytest.mark.fault("disk full exactly at the switch")
def test_a_disk_that_is_full_at_the_switch_keeps_the_old_release(vm_bed: Bed) -> None:
    old = deployed_once(vm_bed)
    assert isinstance(vm_bed.connection, SshConnection)
    with pytest.raises(BoardError, match=r"the board's disk is full: .*\. Make room there"):
        put(replace(vm_bed, connection=Filling(vm_bed.connection, vm_bed.root)), Stub(2))
    assert (link(vm_bed, "current"), is_whole(vm_bed)) == (old, True)
    vm_bed.connection.check(["rm", f"{vm_bed.root}/filler"])
    converges(vm_bed, Stub(2), old)


@pytest.mark.fault("board lacks a tool")
@pytest.mark.parametrize("tool", ["flock", "ssh-keygen"])
def test_a_board_without_a_tool_says_which_package_has_it(
    local_bed: Bed, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = deployed_once(local_bed)
    (tmp_path / "bin").mkdir()
    for path in (*Path("/bin").iterdir(), *Path("/usr/bin").iterdir()):
        if path.name != tool and not (tmp_path / "bin" / path.name).exists():
            (tmp_path / "bin" / path.name).symlink_to(path)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"))
        place = release.Place(local_bed.connection, f"{local_bed.root}/{MODEL}")
        with pytest.raises(BoardError, match=rf"there is no {tool} there: apt-get install \w"):
            release.begin(place, "0" * 16)
    converges(local_bed, Stub(2), old)


# Links where folders should be, and folders where links should be.


@pytest.mark.fault("releases are on another disk, behind a link")
def test_releases_behind_a_link_are_releases(local_bed: Bed, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path(local_bed.root, MODEL).mkdir(parents=True)
    Path(local_bed.root, MODEL, "releases").symlink_to(elsewhere)
    old = deployed_once(local_bed)
    converges(local_bed, Stub(2), old)
    assert {path.name for path in elsewhere.iterdir()} == set(releases(local_bed))


@pytest.mark.fault("release or file replaced by a link")
@pytest.mark.parametrize("which", ["release", "file", "nothing"])
def test_a_link_in_place_of_a_release_is_no_release(local_bed: Bed, which: str, tmp_path: Path) -> None:
    """Its target could change after it was verified."""
    old = deployed_once(local_bed)
    path = Path(local_bed.root, MODEL, "releases", old, *(["model.so"] if which == "file" else []))
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / ("moved" if which != "nothing" else "none"))
    again = put(local_bed, Stub(1), expected=Stub(1))
    assert (again.state, again.release, is_whole(local_bed)) == ("deployed", old, True)
    assert not path.is_symlink()


@pytest.mark.fault("something else lies where the upload goes")
@pytest.mark.parametrize("where", ["", "model.so", "other"])
@pytest.mark.parametrize("what", ["folder", "link", "dangling", "file"])
def test_what_lies_where_the_upload_goes_is_removed(
    local_bed: Bed, where: str, what: str, tmp_path: Path
) -> None:
    old = deployed_once(local_bed)
    Stub(2).write(local_bed.artifacts, local_bed.board)
    built = deploy.built_artifact(local_bed.board, MODEL, local_bed.artifacts)
    new = deploy.release_of(built, local_bed.artifacts).id
    there, kept = Path(local_bed.root, MODEL, "incoming", new, where), tmp_path / "kept"
    there.parent.mkdir(parents=True, exist_ok=True)
    (kept / "model.so").mkdir(parents=True)
    lay: dict[str, Callable[[], object]] = {
        "folder": lambda: (there / "deeper").mkdir(parents=True),
        "link": lambda: there.symlink_to(kept),
        "dangling": lambda: there.symlink_to(tmp_path / "none"),
        "file": lambda: there.write_text("not ours"),
    }
    lay[what]()
    if (where, what) == ("other", "file"):  # it is found only when the release is verified, and goes then
        with pytest.raises(BoardError, match=r"the copy on the board is damaged. Deploy again"):
            put(local_bed, Stub(2))
    converges(local_bed, Stub(2), old)
    assert (kept / "model.so").is_dir()


@pytest.mark.fault("current leads elsewhere")
@pytest.mark.parametrize("target", ["/etc", "../..", "releases/../../x", "releases/none", "releases/", "x"])
def test_a_link_that_leads_elsewhere_is_led_back(local_bed: Bed, target: str) -> None:
    deployed_once(local_bed)
    current = Path(local_bed.root, MODEL, "current")
    current.unlink()
    current.symlink_to(target)
    done = put(local_bed, Stub(2), expected=Stub(2))
    assert (link(local_bed, "current"), is_whole(local_bed)) == (done.release, True)
    with pytest.raises(BoardError, match="no previous release to go back to"):
        deploy.rollback(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)


@pytest.mark.fault("a folder in place of current")
def test_a_folder_in_place_of_current_is_not_touched(local_bed: Bed) -> None:
    old = deployed_once(local_bed)
    current = Path(local_bed.root, MODEL, "current")
    current.unlink()
    current.mkdir()
    with pytest.raises(BoardError, match=r"current is no link, so somebody else made it: move it away there"):
        put(local_bed, Stub(2))
    current.rmdir()
    done = put(local_bed, Stub(2), expected=Stub(2))
    assert (link(local_bed, "current"), is_whole(local_bed)) == (done.release, True)
    assert old in releases(local_bed)


# Who is trusted, who deploys, how a board is described.


@pytest.mark.fault("allowed signers altered on the board")
@pytest.mark.parametrize("text", ["", "garbage\n", "pilite ssh-ed25519 AAAA\n", "* \n"])
def test_altered_signers_let_nothing_in_and_keep_the_old_release(local_bed: Bed, text: str) -> None:
    old = deployed_once(local_bed)
    signers = Path(local_bed.root, "allowed_signers")
    right = signers.read_text()
    signers.write_text(text)
    with pytest.raises(BoardError, match=r"not signed by a key in .*; if you trust this checkout, add its"):
        put(local_bed, Stub(2))
    assert (link(local_bed, "current"), releases(local_bed)) == (old, [old])
    signers.write_text(right)
    converges(local_bed, Stub(2), old)


KILLED = """
import os, sys, threading, time
from dataclasses import replace
from pathlib import Path
from pilite.lab import boards, connection, deploy, release, ssh
kind, name, root, artifacts, checkout, when = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), 9)
def some(source, target, start, progress):
    target.write(source.read(20_000))
    die()
def switching(*words, real=release.switch):
    threading.Thread(target=real, args=words).start()
    time.sleep(0.3)
    die()
board = replace(boards.load(kind, Path(checkout)), name=name, root=root)
with boards.connect(board, Path(checkout)) as there:
    connection.copy = ssh.copy = some if when == "upload" else connection.copy
    release.switch = switching
    deploy.deploy(board, there, "stub", Path(artifacts))
"""


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("upload", marks=pytest.mark.fault("client killed during the upload")),
        pytest.param("switch", marks=pytest.mark.fault("client killed at the switch")),
    ],
)
def test_a_client_that_is_killed_leaves_a_whole_release(home_bed: Bed, when: str) -> None:
    old = deployed_once(home_bed)
    Stub(2).write(home_bed.artifacts, home_bed.board)
    board = home_bed.board
    words = [board.kind, board.name, board.root, home_bed.artifacts, ARTIFACTS, when]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert is_whole(home_bed)
    again = put(home_bed, Stub(2), expected=Stub(2))
    assert (link(home_bed, "current"), is_whole(home_bed)) == (again.release, True)
    assert link(home_bed, "previous") == old


@pytest.mark.fault("board's file is cut off")
@pytest.mark.parametrize("spoil", [lambda text: text[:40], lambda text: "\0", lambda text: None])
def test_a_damaged_file_of_a_board_is_named_and_is_no_other_boards_matter(
    tmp_path: Path, spoil: Callable[[str], str | None]
) -> None:
    text = 'kind = "ssh"\ncpu = "cortex-a72"\nhost = "10.0.0.7"\nuser = "pi"\n'
    spoiled = spoil(text)
    (tmp_path / "good.toml").write_text('kind = "local"\ncpu = "best"\n')
    if spoiled is None:
        (tmp_path / "bad.toml").symlink_to("nowhere")
    else:
        (tmp_path / "bad.toml").write_text(spoiled)
    assert [board.name for board in boards.select(["good"], tmp_path, "", tmp_path)] == ["good"]
    for word in ("bad", "all"):
        with pytest.raises(BoardError, match=r"^boards/bad\.toml"):
            boards.select([word], tmp_path, "", tmp_path)


@pytest.mark.docker
@pytest.mark.fault("board has an IPv6 address")
def test_a_board_with_an_ipv6_address_is_a_board(container_bed: Bed) -> None:
    assert isinstance(container_bed.connection, SshConnection)
    address = container_bed.connection.address
    with proxy(address.port, Faults(), "::1") as door:
        other = replace(address, host="::1", port=door.port)
        assert str(other) == f"container (bench@[::1]:{door.port})"
        with ssh.connect(other, 60) as connection:
            assert connection.check(["id", "-un"]) == "bench\n"
        wrong = boardkeys.make_keys(container_bed.artifacts / "other").host_public
        with pytest.raises(BoardError, match=r"another host key than the pinned one"):
            ssh.connect(replace(other, host_key=wrong), 60)


@pytest.mark.parametrize(
    ("passphrase", "spoil", "text"),
    [
        ("a secret", lambda data: data, r"has a passphrase, and pilite asks for none\. Make one without"),
        ("", lambda data: data[:200], r"is no private key that SSH could use"),
        ("", lambda data: b"", r"is no private key that SSH could use"),
    ],
)
@pytest.mark.fault("key that cannot be used")
def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, passphrase: str, spoil: Callable[[bytes], bytes], text: str
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(key)], check=True)
    key.write_bytes(spoil(key.read_bytes()))
    with pytest.raises(BoardError, match=rf"^pi \(pi@127\.0\.0\.1:9\): .*{text}"):
        ssh.connect(Address("pi", "127.0.0.1", 9, "pi", key, ""))
