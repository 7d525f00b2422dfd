"""Artifacts for the loader's tests: fake_model.c compiled by zig and sealed; kept in artifacts/loader."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilite import zig
from pilite.lab.loader import Arch
from pilite.seal import seal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ARTIFACTS = ROOT / "artifacts"
LOADER = ROOT / "loader"
BUILD_ID = "5e" * 32  # digits that fuzz.cc does not write

ADD, FAIL_TASK, FAIL_ENTRY, WAIT, WAIT_ALL, NEST, REMEMBER = range(7)  # input "command"[0] of fake_model.c


@dataclass(frozen=True)
class Fake:
    """A variant of fake_model.c: preprocessor names and their values, strings with their quotes."""

    defines: dict[str, str] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=lambda: {"build_id": BUILD_ID, "model": "fake"})
    options: tuple[str, ...] = ()

    def elf(self, arch: Arch = "x86_64") -> bytes:
        """The shared library; compiled once."""
        command = [*zig.compiler_command("cc", zig.TRIPLES[arch]), *self._arguments()]
        sources = [(HERE / "fake_model.c").read_bytes(), (LOADER / "pilite_abi.h").read_bytes()]
        key = hashlib.sha256(repr((arch, zig.version(), self._arguments(), sources)).encode()).hexdigest()[
            :16
        ]
        kept = ARTIFACTS / "loader" / "fakes" / f"{key}.so"
        if not kept.exists():
            _compile(command, kept)
        return kept.read_bytes()

    def artifact(self, arch: Arch = "x86_64") -> bytes:
        return seal(self.elf(arch), self.manifest)

    def write(self, path: Path, arch: Arch = "x86_64") -> Path:
        path.write_bytes(self.artifact(arch))
        return path

    def _arguments(self) -> list[str]:
        defines = [f"-D{name}={value}" for name, value in self.defines.items()]
        shared = [
            "-O2",
            "-std=gnu11",
            "-fPIC",
            "-shared",
            "-s",
            "-fvisibility=hidden",
            "-Wl,-z,max-page-size=16384",
        ]
        return [*shared, *defines, *self.options]


def _compile(command: list[str], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / "fake.so"
        zig.run_zig([*command, f"-I{LOADER}", "fake_model.c", "-o", str(made)], HERE)
        os.replace(made, output)
