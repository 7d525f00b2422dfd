"""ELF files before they are sent: the machine, and room for a Pi 5's pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import elf
from tests.lab.stub import Stub


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.so"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("arch", elf.MACHINES)
@pytest.mark.parametrize("page_bytes", [16384, 65536])
def test_room_for_16_kib_pages_is_enough(tmp_path: Path, arch: str, page_bytes: int) -> None:
    path = written(tmp_path, Stub(page_bytes=page_bytes).elf(arch))
    elf.check(path, arch)
    assert path.is_file()


def test_4_kib_alignment_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, Stub(page_bytes=4096).elf("aarch64"))
    with pytest.raises(BoardError, match=r"aligned to 4096 bytes; .*Pi 5.*-z max-page-size=16384"):
        elf.check(path, "aarch64")


@pytest.mark.parametrize(("code", "board"), [("x86_64", "aarch64"), ("aarch64", "x86_64")])
def test_code_for_another_machine_is_refused(tmp_path: Path, code: str, board: str) -> None:
    path = written(tmp_path, Stub().elf(code))
    with pytest.raises(BoardError, match=rf"code for {code}; the board needs {board}\. Build it for"):
        elf.check(path, board)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" * 40, b"\x7fELF\x01\x01" + bytes(80)])
def test_what_is_no_64_bit_elf_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BoardError, match="no 64-bit ELF file"):
        elf.check(written(tmp_path, data), "aarch64")


@pytest.mark.parametrize("cut", [64, 100, 300])
def test_a_file_that_ends_early_is_no_crash(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, Stub().elf("aarch64")[:cut])
    elf.check(path, "aarch64")  # sha256 and the loader judge what is in it
    assert path.stat().st_size == cut
