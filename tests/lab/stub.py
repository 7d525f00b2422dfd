"""A model made by hand, where `build` would put it: deploys are tested without the compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite import zig
from pilite.lab import artifact, hostcpu, inputs
from pilite.lab.boards import Board
from pilite.seal import seal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ARTIFACTS = ROOT / "artifacts"
LOADER = ROOT / "loader"
MODEL = "stub"
ASIMDDP = 1 << 20  # AT_HWCAP: dot product, which no cortex-a72 has
NO_CPU_HAS = 1 << 62  # no feature has this bit, so that no machine passes


def share(name: str, folder: Path) -> None:
    """folder/name is what all tests keep in artifacts/name: it is the same for everybody."""
    (ARTIFACTS / name).mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(ARTIFACTS / name)


@dataclass(frozen=True)
class Stub:
    """y = x + addend; `cpu_required` are the bits that the loader looks for."""

    addend: int = 1
    cpu_required: int = 0
    trap: bool = False
    page_bytes: int = 16384
    pad: int = 0  # bytes by which it is larger
    code_for: str = ""  # the machine of its code, if it is not the board's

    def elf(self, arch: str) -> bytes:
        """The shared library; compiled once per variant."""
        defines = {
            "ADDEND": self.addend,
            "CPU_REQUIRED": self.cpu_required,
            "TRAP": int(self.trap),
            "PAD": self.pad,
            "BUILD_ID": f'"{self.build_id}"',
            "TARGET": f'"{arch}-linux-gnu stub"',
        }
        linked = ["-fPIC", "-shared", "-s", f"-Wl,-z,max-page-size={self.page_bytes}"]
        words = ["-O1", *linked, *(f"-D{name}={value}" for name, value in defines.items())]
        return compiled(arch, words)

    @property
    def build_id(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def manifest(self, cpu: str, source_sha256: str) -> dict[str, Any]:
        """What the compiler would write."""
        end = {"dtype": "int8", "shape": [1, 8], "bytes": 8, "scale": 0.5, "zero_point": 3}
        return {
            "name": MODEL,
            "cpu": cpu,
            "arch": hostcpu.arch_of(cpu),
            "numerics": "ref",
            "build_id": self.build_id,
            "source_sha256": source_sha256,
            "inputs": [{"name": "x", **end}],
            "outputs": [{"name": "y", **end}],
        }

    def write(self, artifacts: Path, board: Board, source_sha256: str = "0" * 64) -> Path:
        """Put it where `build` puts a model for this board."""
        path = artifact.place(artifacts, MODEL, board.cpu, "ref")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seal(self.elf(self.code_for or board.arch), self.manifest(board.cpu, source_sha256)))
        return path

    def answer(self, board: Board, artifacts: Path, seed: int = 0) -> list[npt.NDArray[Any]]:
        """What the deployed model must compute."""
        built = artifact.read(artifact.place(artifacts, MODEL, board.cpu, "ref"))
        return [(x + np.int8(self.addend)).astype(np.int8) for x in inputs.random_inputs(built.inputs, seed)]


def compiled(arch: str, words: list[str]) -> bytes:
    """stub_model.c as a library, kept in artifacts/."""
    source, header = HERE / "stub_model.c", LOADER / "pilite_abi.h"
    key = hashlib.sha256(repr((arch, words, source.read_bytes(), header.read_bytes())).encode())
    kept = ARTIFACTS / "loader" / "stubs" / f"{key.hexdigest()[:16]}.so"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = zig.compiler_command("cc", zig.TRIPLES[arch])
        zig.run_zig([*command, *words, f"-I{LOADER}", source.name, "-o", f"{kept}.new"], HERE)
        Path(f"{kept}.new").replace(kept)
    return kept.read_bytes()


Builder = Callable[[Stub], Path]
