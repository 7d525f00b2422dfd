"""Whether the kernel hands aarch64 programs to QEMU, and what happens if not."""

from __future__ import annotations

import platform
import struct
import sys
from pathlib import Path

import pytest

from pilite.errors import BoardError
from pilite.lab import emulation


def rule_file(folder: Path, flags: str, state: str = "enabled", magic: str = emulation.MAGIC) -> None:
    lines = [state, "interpreter /usr/bin/qemu", f"flags: {flags}", "offset 0", f"magic {magic}"]
    (folder / "qemu-aarch64").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("flags", "state", "magic", "usable"),
    [
        ("PF", "enabled", emulation.MAGIC, True),
        ("OCF", "enabled", emulation.MAGIC, True),
        ("P", "enabled", emulation.MAGIC, False),  # containers would need a copy of the emulator
        ("PF", "disabled", emulation.MAGIC, False),
        ("PF", "enabled", emulation.MAGIC.replace("b7", "f3"), False),  # RISC-V
    ],
)
def test_only_an_enabled_rule_that_works_in_containers_counts(
    tmp_path: Path, flags: str, state: str, magic: str, usable: bool
) -> None:
    rule_file(tmp_path, flags, state, magic)
    (tmp_path / "status").write_text("enabled\n")
    assert emulation.registered(tmp_path) == usable


def test_registering_writes_one_line_for_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "register").touch()
    emulation.register(Path("/usr/bin/qemu"), tmp_path)
    text = (tmp_path / "register").read_text()
    assert text.startswith(r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00")
    assert text.endswith(r"\xfe\xff\xff\xff:/usr/bin/qemu:PF")


def elf(*kinds: int) -> bytes:
    """An ELF header and program headers of these types."""
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds)


@pytest.mark.parametrize(
    ("data", "static"), [(elf(1, 2), True), (elf(1, 3, 2), False), (b"#!/bin/sh\n", False)]
)
def test_an_emulator_is_static_if_it_asks_for_no_interpreter(
    tmp_path: Path, data: bytes, static: bool
) -> None:
    (tmp_path / "qemu").write_bytes(data)
    assert emulation.is_static(tmp_path / "qemu") == static


def test_this_python_needs_an_interpreter() -> None:
    assert not emulation.is_static(Path(sys.executable).resolve())


def test_without_an_emulator_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(emulation, "static_emulator", lambda: None)
    with pytest.raises(BoardError, match="apt-get install qemu-user-static"):
        emulation.ensure(tmp_path)


def test_without_root_the_commands_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(emulator: Path, binfmt: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(emulation, "static_emulator", lambda: Path("/usr/bin/qemu"))
    monkeypatch.setattr(emulation, "register", refused)
    with pytest.raises(BoardError, match=r"As root: mount -t binfmt_misc .*/register$"):
        emulation.ensure(tmp_path)


def test_an_arm_machine_needs_no_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    emulation.ensure(tmp_path)
    assert list(tmp_path.iterdir()) == []
