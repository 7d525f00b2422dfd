"""Deploys on every kind of board: verified, tried, switched in one step, and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pilite.errors import BoardError, CheckFailed, PiliteError
from pilite.lab import deploy, release
from pilite.lab.connection import LocalConnection
from pilite.lab.deploy import Deployed
from tests.lab.conftest import Bed
from tests.lab.stub import ASIMDDP, MODEL, NO_CPU_HAS, Stub


def put(bed: Bed, stub: Stub, expected: Stub | None = None) -> Deployed:
    """Build a stub and deploy it; `expected` is the stub that it must compute like."""
    stub.write(bed.artifacts, bed.board)
    answer = expected.answer(bed.board, bed.artifacts) if expected else None
    return deploy.deploy(bed.board, bed.connection, MODEL, bed.artifacts, expected=answer)


def link(bed: Bed, name: str) -> str:
    """The release that a link on the board leads to; "" without a link."""
    result = bed.connection.run(["readlink", f"{bed.root}/{MODEL}/{name}"])
    return result.out.strip().removeprefix("releases/")


def releases(bed: Bed) -> list[str]:
    return bed.connection.check(["ls", "-A", f"{bed.root}/{MODEL}/releases"]).split()


def test_a_release_becomes_current_and_its_files_are_whole(bed: Bed) -> None:
    done = put(bed, Stub(), expected=Stub())
    assert (done.state, link(bed, "current"), link(bed, "previous")) == ("deployed", done.release, "")
    folder = f"{bed.root}/{MODEL}/current"
    files = bed.connection.check(["ls", "-A", folder]).split()
    manifest = {"MANIFEST.sha256", "MANIFEST.sha256.sig"}
    assert set(files) == manifest | {"libpilite.so", "model.so", "pilite-run", "pilite.py"}
    bed.connection.check(["sh", "-c", f"cd {folder} && sha256sum --strict -c MANIFEST.sha256"])


def test_the_same_release_again_sends_nothing(local_bed: Bed) -> None:
    first, second = put(local_bed, Stub()), put(local_bed, Stub())
    assert first.sent_bytes > 0
    assert (second.state, second.sent_bytes, second.release) == ("unchanged", 0, first.release)
    assert releases(local_bed) == [first.release]


def test_rollback_goes_back_and_forth(bed: Bed) -> None:
    old, new = put(bed, Stub(1)), put(bed, Stub(2))
    assert (link(bed, "current"), link(bed, "previous")) == (new.release, old.release)
    back = deploy.rollback(bed.board, bed.connection, MODEL, bed.artifacts)
    assert (back.state, back.release) == ("rolled back", old.release)
    assert (link(bed, "current"), link(bed, "previous")) == (old.release, new.release)
    assert deploy.rollback(bed.board, bed.connection, MODEL, bed.artifacts).release == new.release


def test_a_rollback_without_a_previous_release_is_refused(local_bed: Bed) -> None:
    put(local_bed, Stub())
    with pytest.raises(BoardError, match=r"stub has no previous release to go back to"):
        deploy.rollback(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)


@pytest.mark.fault("the new release computes something else")
def test_a_wrong_answer_keeps_the_old_release(bed: Bed) -> None:
    old = put(bed, Stub(1))
    with pytest.raises(
        CheckFailed, match=r"8 of 8 elements differ from the expected ones. The current release"
    ):
        put(bed, Stub(2), expected=Stub(1))
    assert (link(bed, "current"), releases(bed)) == (old.release, [old.release])


@pytest.mark.fault("the new release crashes")
def test_a_crash_keeps_the_old_release(bed: Bed) -> None:
    old = put(bed, Stub(1))
    with pytest.raises(BoardError, match=r"the new release does not run there"):
        put(bed, Stub(1, trap=True))
    assert (link(bed, "current"), releases(bed)) == (old.release, [old.release])


@pytest.mark.fault("artifact for a better CPU (wrong ISA)")
def test_a_model_for_a_better_cpu_is_refused_by_the_loader(bed: Bed) -> None:
    with pytest.raises(BoardError, match=r"exit code 2.*this CPU lacks"):
        put(bed, Stub(cpu_required=ASIMDDP if bed.board.emulated else NO_CPU_HAS))
    assert link(bed, "current") == ""


@pytest.mark.fault("release corrupted on the board")
def test_a_release_damaged_on_the_board_is_sent_again(bed: Bed) -> None:
    first = put(bed, Stub())
    model = f"{bed.root}/{MODEL}/current/model.so"
    bed.connection.check(["sh", "-c", f"printf x | dd of={model} bs=1 seek=100 conv=notrunc status=none"])
    again = put(bed, Stub(), expected=Stub())
    assert (again.state, again.release, releases(bed)) == ("deployed", first.release, [first.release])
    assert put(bed, Stub()).state == "unchanged"


@pytest.mark.fault("rollback to a corrupted release")
def test_a_rollback_to_a_damaged_release_is_refused(local_bed: Bed) -> None:
    old, new = put(local_bed, Stub(1)), put(local_bed, Stub(2))
    local_bed.connection.check(
        ["sh", "-c", f"echo x >> {local_bed.root}/{MODEL}/releases/{old.release}/pilite.py"]
    )
    with pytest.raises(BoardError, match=rf"the previous release {old.release} is damaged"):
        deploy.rollback(local_bed.board, local_bed.connection, MODEL, local_bed.artifacts)
    assert link(local_bed, "current") == new.release


def test_old_releases_are_removed_but_never_the_linked_ones(local_bed: Bed) -> None:
    done = [put(local_bed, Stub(addend)).release for addend in (1, 2, 3, 4, 5)]
    assert (link(local_bed, "current"), link(local_bed, "previous")) == (done[4], done[3])
    assert sorted(releases(local_bed)) == sorted(done[2:])


def test_a_model_that_is_not_built_is_named_with_the_command(local_bed: Bed) -> None:
    with pytest.raises(
        PiliteError, match=r"Build it first: python3 run.py build --model nothing --board local"
    ):
        deploy.deploy(local_bed.board, local_bed.connection, "nothing", local_bed.artifacts)


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "-rf", "a b", "$(x)"])
def test_a_name_that_is_no_folder_is_refused(local_bed: Bed, name: str) -> None:
    with pytest.raises(PiliteError, match=r"cannot name a folder"):
        deploy.place_of(local_bed.board, local_bed.connection, name, local_bed.artifacts)


class Damaging(LocalConnection):
    """A connection that changes a byte of one file on its way."""

    def put(self, source: Path, target: str, **options: Any) -> None:
        super().put(source, target, **options)
        if target.endswith("/model.so"):
            data = bytearray(Path(target).read_bytes())
            data[len(data) // 2] ^= 1
            Path(target).write_bytes(data)


@pytest.mark.fault("upload arrives damaged")
def test_an_upload_that_arrives_damaged_is_refused(local_bed: Bed) -> None:
    old = put(local_bed, Stub(1))
    bad = Bed(local_bed.board, Damaging(), local_bed.artifacts)
    with pytest.raises(BoardError, match=r"the copy on the board is damaged. Deploy again"):
        put(bad, Stub(2))
    assert (link(local_bed, "current"), releases(local_bed)) == (old.release, [old.release])
    assert put(local_bed, Stub(2)).state == "deployed"


class Cut(LocalConnection):
    """A connection that breaks after some files."""

    def __init__(self, files: int) -> None:
        super().__init__()
        self._files = files

    def put(self, source: Path, target: str, **options: Any) -> None:
        if self._files == 0:
            raise BoardError("local: the link is gone")
        self._files -= 1
        super().put(source, target, **options)


@pytest.mark.fault("link breaks between two files")
@pytest.mark.parametrize("files", range(6))
def test_an_upload_that_breaks_off_is_continued(local_bed: Bed, files: int) -> None:
    old = put(local_bed, Stub(1))
    with pytest.raises(BoardError, match=r"the link is gone"):
        put(Bed(local_bed.board, Cut(files), local_bed.artifacts), Stub(2))
    assert (link(local_bed, "current"), releases(local_bed)) == (old.release, [old.release])
    whole = put(local_bed, Stub(3)).sent_bytes
    rest = put(local_bed, Stub(2))
    assert rest.state == "deployed"
    assert (rest.sent_bytes < whole) == (files > 0)


# Every command of release.sh that changes something, with a kill just before it.
STEPS = ("sha256sum", "sync", "mv", "ln", "rm")


def killing_tools(folder: Path, step: str, count: int) -> Path:
    """A folder for the PATH in which the count-th call of one tool kills the shell that called it."""
    folder.mkdir()
    script = (
        f"#!/bin/sh\n"
        f"grep -qE '^(sh|dash|bash|find)$' /proc/$PPID/comm && echo >> {folder}/counter\n"
        f"if [ $(wc -l < {folder}/counter) -eq {count} ]; then kill -9 $PPID; exit 1; fi\n"
        f'exec {shutil.which(step)} "$@"\n'
    )
    (folder / "counter").touch()
    (folder / step).write_text(script)
    (folder / step).chmod(0o755)
    return folder


@pytest.mark.fault("board's shell killed at any step")
@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_leaves_a_whole_release_and_the_next_deploy_works(
    local_bed: Bed, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put(local_bed, Stub(1))
    killed = 0
    for count in range(1, 20):
        path = killing_tools(tmp_path / f"{step}{count}", step, count)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{path}:/usr/bin:/bin")
            try:
                put(local_bed, Stub(1 + count))
            except BoardError:
                killed += 1
        current = link(local_bed, "current")
        place = release.Place(local_bed.connection, f"{local_bed.root}/{MODEL}")
        assert release.look(place, current).intact, f"{step} {count}: {current} is not whole"
        again = put(local_bed, Stub(1 + count), expected=Stub(1 + count))
        assert link(local_bed, "current") == again.release
        assert link(local_bed, "previous") == old.release
        old = again
        if len((path / "counter").read_text()) < count:  # the whole deploy has fewer steps
            break
    assert killed > 0
