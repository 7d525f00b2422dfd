"""What every connection promises, on each kind of board."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import boards
from pilite.lab.connection import LocalConnection
from tests.lab.conftest import Bed

ODD = 'it\'s "odd" $HOME `id` \\ *'


def test_words_arrive_as_they_are_and_so_does_the_exit_code(bed: Bed) -> None:
    script = 'printf "%s|%s" "$1" "$COLOUR"; echo no >&2; exit 3'
    result = bed.connection.run(["sh", "-c", script, "sh", ODD], env={"COLOUR": ODD})
    assert (result.code, result.out, result.err) == (3, f"{ODD}|{ODD}", "no\n")


def test_a_failing_command_is_shown_with_its_last_words(bed: Bed) -> None:
    with pytest.raises(BoardError, match=r"`ls /nowhere` ended with 2: .*No such file"):
        bed.connection.check(["ls", "/nowhere"])


def test_a_command_that_takes_too_long_is_killed_with_its_children(bed: Bed) -> None:
    seconds = f"9{time.monotonic_ns() % 10**7}"  # found again among all processes
    with pytest.raises(BoardError, match="was not done after 2 s and was killed"):
        bed.connection.run(["sh", "-c", f"sleep {seconds} & sleep {seconds}"], timeout=2)
    left = bed.connection.run(["pgrep", "-f", f"^sleep {seconds}"])
    assert (left.code, left.out) == (1, "")


def test_files_go_there_and_back_with_their_executable_bit(bed: Bed, tmp_path: Path) -> None:
    bed.connection.check(["mkdir", "-p", bed.root])
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(bytes(range(256)) * 999)
    sent.chmod(0o755)
    bed.connection.put(sent, f"{bed.root}/file")
    bed.connection.check(["test", "-x", f"{bed.root}/file"])
    bed.connection.get(f"{bed.root}/file", got)
    assert got.read_bytes() == sent.read_bytes()


def test_a_missing_file_and_a_missing_folder_are_named(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BoardError, match="/nowhere/file"):
        bed.connection.put(tmp_path / "file", "/nowhere/file")
    with pytest.raises(BoardError, match="/nowhere/file"):
        bed.connection.get("/nowhere/file", tmp_path / "got")


def test_lines_are_heard_while_the_command_runs(bed: Bed) -> None:
    heard: list[tuple[str, float]] = []
    done = bed.connection.run(
        ["sh", "-c", "echo one; sleep 2; printf 'two\nrest'; echo aside >&2; exit 3"],
        heard=lambda line: heard.append((line.strip(), time.monotonic())),
    )
    assert (done.code, done.out, done.err.strip()) == (3, "one\ntwo\nrest", "aside")
    (first, early), (second, late) = heard[:2]
    assert (first, second) == ("one", "two")
    assert late - early > 1


def test_a_command_that_is_heard_is_killed_when_it_takes_too_long() -> None:
    with pytest.raises(BoardError, match=r"was not done after 1 s and was killed"):
        LocalConnection().run(["sh", "-c", "echo; sleep 60 2>/dev/null"], timeout=1, heard=lambda line: None)


def test_a_connection_that_is_cut_ends_its_command_and_takes_no_other(bed: Bed) -> None:
    connection = boards.connect(bed.board, bed.artifacts)
    start, cutting = time.monotonic(), threading.Timer(1, connection.cut)
    cutting.start()
    for command in (["sleep", "60"], ["true"]):
        with pytest.raises(BoardError):
            connection.run(command)
    assert time.monotonic() - start < 30
    cutting.join()


def test_what_a_command_leaves_behind_ends_with_it() -> None:
    seconds = f"9{time.monotonic_ns() % 10**7}"
    connection = LocalConnection()
    assert connection.run(["sh", "-c", f"sleep {seconds} >/dev/null 2>&1 &"]).code == 0
    assert connection.run(["pgrep", "-f", f"^sleep {seconds}"]).code == 1


def test_a_command_that_does_not_exist_is_named() -> None:
    with pytest.raises(BoardError, match="`no-such-tool` cannot start: No such file"):
        LocalConnection().run(["no-such-tool"])
