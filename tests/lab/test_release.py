"""Releases on the board: who may deploy, whose releases count, what is sent again, what is kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pilite.errors import BoardError, PiliteError
from pilite.lab import deploy, fleet, lock, release, signing
from pilite.lab.connection import LocalConnection, Progress, nothing
from pilite.lab.release import Place
from tests.lab.conftest import Bed
from tests.lab.stub import MODEL, Stub
from tests.lab.test_deploy import link, put, releases

SCHEMA = Path(deploy.__file__).with_name("schemas") / "deploy-1.json"


def place_of(bed: Bed, owner: str = "other@there/1") -> Place:
    return Place(bed.connection, f"{bed.root}/{MODEL}", owner)


# Signatures.


def resign(bed: Bed, folder: str, key: Path, purpose: str = release.PURPOSE) -> None:
    """Sign the manifest on the board anew."""
    manifest = Path(folder, release.MANIFEST)
    Path(folder, release.SIGNATURE).write_text(signing.sign(manifest.read_bytes(), key, purpose))


@pytest.mark.fault("release signed by a stranger")
def test_a_release_of_a_stranger_is_refused_and_the_current_one_stays(local_bed: Bed, tmp_path: Path) -> None:
    old = put(local_bed, Stub(1))
    (local_bed.artifacts / "keys").rename(tmp_path / "lost")  # the next deploy makes another key
    with pytest.raises(
        BoardError, match=r"the copy on the board is not signed by a key in .*allowed_signers"
    ):
        put(local_bed, Stub(2))
    assert (link(local_bed, "current"), releases(local_bed)) == (old.release, [old.release])


@pytest.mark.fault("release and manifest altered on the board")
@pytest.mark.parametrize("how", ["unsigned", "another key", "another purpose"])
def test_an_altered_release_cannot_come_back(local_bed: Bed, how: str, tmp_path: Path) -> None:
    """Whoever changes a file and its manifest on the board still lacks the key."""
    old, new = put(local_bed, Stub(1)), put(local_bed, Stub(2))
    folder = Path(local_bed.root, MODEL, "releases", old.release)
    altered = (folder / "pilite.py").read_bytes() + b"evil()\n"
    before, after = hashlib.sha256((folder / "pilite.py").read_bytes()), hashlib.sha256(altered)
    (folder / "pilite.py").write_bytes(altered)
    manifest = folder / release.MANIFEST
    manifest.write_text(manifest.read_text().replace(before.hexdigest(), after.hexdigest()))
    if how == "another key":
        resign(local_bed, str(folder), signing.own_keys(tmp_path / "strangers").key)
    if how == "another purpose":
        resign(local_bed, str(folder), signing.own_keys(local_bed.artifacts / "keys").key, "pilite-release")
    with pytest.raises(BoardError, match=rf"the previous release {old.release} is not signed by a key"):
        deploy.rollback(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)
    assert link(local_bed, "current") == new.release


def test_a_board_that_was_not_onboarded_trusts_nobody(local_bed: Bed) -> None:
    done = put(local_bed, Stub(1))
    Path(local_bed.root, "allowed_signers").unlink()
    with pytest.raises(BoardError, match=r"which says whose releases count: onboard the board"):
        release.switch(place_of(local_bed), done.release)


def test_who_is_trusted_stays_trusted(local_bed: Bed, tmp_path: Path) -> None:
    first, second = signing.own_keys(tmp_path / "1").allowed, signing.own_keys(tmp_path / "2").allowed
    for allowed in (first, second):
        release.trust(local_bed.connection, local_bed.root, allowed)
    assert Path(local_bed.root, "allowed_signers").read_text() == first.read_text()


# Leases and locks.


def test_a_second_deployer_is_refused_with_the_first_ones_name(local_bed: Bed) -> None:
    old = put(local_bed, Stub(1))
    release.begin(place_of(local_bed), "0" * 16)
    with pytest.raises(
        BoardError, match=r"other@there/1 deploys there and did something \d+ s ago; its turn"
    ):
        put(local_bed, Stub(2))
    with pytest.raises(BoardError, match=r"other@there/1 deploys there"):
        deploy.rollback(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)
    assert link(local_bed, "current") == old.release


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        ("me {boot} {now}", "its own deployer is back"),
        ("other 0000-another-boot {now}", "the board was switched off and on"),
        ("other {boot} {long_ago}", "it was silent for too long"),
        ("", "the disk was full or the power went while it was written"),
        ("other", "half of it was written"),
        ("other {boot} 12ab", "no number: damaged"),
        ("other {boot} 099", "no number of ours: damaged"),
        ("other {boot} 99999999999999999999", "in the future: damaged"),
    ],
)
@pytest.mark.fault("deployer that died holds the lease")
def test_a_lease_ends(local_bed: Bed, lease: str, why: str) -> None:
    put(local_bed, Stub(1))
    now = int(float(Path("/proc/uptime").read_text().split()[0]))
    words = {
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "now": now,
        "long_ago": now - 601,
    }
    text = lease.format(**words).replace("me ", f"{release.owner_of(local_bed.artifacts)} ")
    Path(local_bed.root, MODEL, ".lease").write_text(text + "\n" if text else "")
    assert put(local_bed, Stub(2)).state == "deployed", why


def test_a_deploy_gives_its_lease_back_also_when_it_fails(local_bed: Bed) -> None:
    put(local_bed, Stub(1))
    with pytest.raises(BoardError):
        put(local_bed, Stub(2, trap=True))
    assert not Path(local_bed.root, MODEL, ".lease").exists()


@pytest.mark.fault("two deploys of one checkout")
def test_two_deploys_of_one_checkout_do_not_mix(local_bed: Bed) -> None:
    put(local_bed, Stub(1))
    place = Place(local_bed.connection, f"{local_bed.root}/{MODEL}")
    with (
        release.turn(place, local_bed.artifacts),
        pytest.raises(PiliteError, match=r"another deploy of this checkout runs\. Wait for it"),
    ):
        put(local_bed, Stub(2))
    assert put(local_bed, Stub(2)).state == "deployed"


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            lock.held(tmp_path / "new" / "lock", "busy"),
            pytest.raises(PiliteError, match=r"^busy$"),
            lock.held(tmp_path / "new" / "lock", "busy"),
        ):
            raise AssertionError


# Uploads.


class Breaking(LocalConnection):
    """A connection that breaks after some bytes of model.so, and counts what it carried."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.carried = most, 0

    def put(self, source: Path, target: str, *, start: int = 0, progress: Progress = nothing) -> None:
        data = source.read_bytes()
        if target.endswith("model.so") and len(data) - start > self.most:
            self.carried += self.most
            mode = "r+b" if start else "wb"
            with open(target, mode) as file:
                file.seek(start)
                file.write(data[start : start + self.most])
            raise BoardError("local: the link is gone")
        self.carried += len(data) - start if "/incoming/" in target else 0
        super().put(source, target, start=start, progress=progress)


def broken_off(bed: Bed, most: int) -> Breaking:
    link = Breaking(most)
    with pytest.raises(BoardError, match="the link is gone"):
        put(Bed(bed.board, link, bed.artifacts), Stub(2))
    return link


def uploads(bed: Bed) -> Path:
    (found,) = Path(bed.root, MODEL, "incoming").iterdir()
    return found / "model.so"


@pytest.mark.fault("link breaks inside a file")
@pytest.mark.parametrize("most", [1, 1000])
def test_a_file_that_broke_off_is_continued_where_it_ended(local_bed: Bed, most: int) -> None:
    put(local_bed, Stub(1))
    broken_off(local_bed, most)
    size = len(Stub(2).write(local_bed.artifacts, local_bed.board).read_bytes())
    whole = Breaking(1 << 30)
    done = put(Bed(local_bed.board, whole, local_bed.artifacts), Stub(2), expected=Stub(2))
    assert done.state == "deployed"
    assert whole.carried == done.sent_bytes
    assert size - most <= done.sent_bytes  # the rest of model.so, and the files that came after it


@pytest.mark.fault("half an upload that is not ours")
@pytest.mark.parametrize("damage", ["a wrong byte", "zeros", "longer", "empty"])
def test_a_beginning_that_is_not_ours_is_sent_again(local_bed: Bed, damage: str) -> None:
    put(local_bed, Stub(1))
    broken_off(local_bed, 1000)
    arrived = uploads(local_bed)
    data = arrived.read_bytes()
    arrived.write_bytes(
        {
            "a wrong byte": data[:100] + bytes([data[100] ^ 1]) + data[101:],
            "zeros": bytes(len(data)),
            "longer": data + bytes(1 << 20),
            "empty": b"",
        }[damage]
    )
    assert put(local_bed, Stub(2), expected=Stub(2)).state == "deployed"


def test_a_full_disk_is_told_before_anything_is_sent(local_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    old = put(local_bed, Stub(1))
    monkeypatch.setattr(release, "SPARE", 1 << 60)
    with pytest.raises(
        BoardError, match=r"MB are to be sent and .* MB are free on the board's disk. Make room"
    ):
        put(local_bed, Stub(2))
    assert link(local_bed, "current") == old.release


# What stays, and what is shown.


def test_keep_says_how_many_releases_stay(local_bed: Bed) -> None:
    def deployed(addend: int, keep: int) -> str:
        Stub(addend).write(local_bed.artifacts, local_bed.board)
        options: dict[str, Any] = {"expected": None, "keep": keep}
        return deploy.deploy(
            local_bed.board, local_bed.connection, MODEL, local_bed.artifacts, **options
        ).release

    done = [deployed(addend, 5) for addend in range(1, 6)]
    assert sorted(releases(local_bed)) == sorted(done)
    last = deployed(6, 1)
    assert sorted(releases(local_bed)) == sorted([last, done[-1]])  # the linked ones are never removed


def test_a_dry_run_shows_the_files_and_changes_nothing(local_bed: Bed) -> None:
    Stub(1).write(local_bed.artifacts, local_bed.board)
    first = deploy.preview(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)
    assert {change.change for change in first} == {"new"}
    assert not Path(local_bed.root, MODEL).exists()
    put(local_bed, Stub(1))
    Stub(2).write(local_bed.artifacts, local_bed.board)
    second = deploy.preview(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)
    assert {change.file: change.change for change in second if change.change != "same"} == {
        "model.so": "changed"
    }
    assert len(second) == 4
    assert len(releases(local_bed)) == 1


def test_a_file_that_goes_is_named() -> None:
    assert [deploy.change_of(*pair) for pair in (("a", None), (None, "a"), ("a", "a"), ("a", "b"))] == [
        "gone",
        "new",
        "same",
        "changed",
    ]


def test_the_document_fits_its_schema(local_bed: Bed) -> None:
    done = put(local_bed, Stub(1))
    outcome = fleet.Outcome({"local": [done]}, {"off": BoardError("off: no answer")})
    document = deploy.document(outcome)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert document["rows"][0]["state"] == "deployed"
    assert document["failures"] == [{"board": "off", "exit_code": 2, "text": "off: no answer"}]
