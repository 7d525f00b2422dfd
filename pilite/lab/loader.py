"""Build the loader, the part of pilite that runs on a board: libpilite.so and pilite-run."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pilite import zig

Arch = Literal["aarch64", "x86_64"]

SOURCES = Path(__file__).resolve().parents[2] / "loader"
_STAMP = "sources.sha256"
_BUILDING = threading.Lock()  # boards are deployed to at once, and all want it

_COMMON = (
    "-std=c++17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-nostdlib++",
    "-Wl,--gc-sections",
    "-Wl,-z,max-page-size=16384",  # the Pi 5's kernel has 16 KiB pages
    "-Wl,-z,now",
    "-Wl,-z,relro",
    "-Wl,--build-id=none",
    "-s",
)
# nodelete: its thread keys are made once per process, so the library stays mapped after dlclose.
_LIBRARY = (
    "-DPILITE_WEAK_LIBC",
    "-fPIC",
    "-shared",
    "-Wl,-soname,libpilite.so",
    "-Wl,-z,nodelete",
    "pilite.cc",
)
_RUNNER = ("-fPIE", "-pie", "pilite_run.cc", "pilite.cc")
_COUNTED = ("-DPILITE_COUNTED", *_RUNNER)


@dataclass(frozen=True)
class LoaderFiles:
    """What a board needs to run artifacts from C, C++, Python (`library`) or the shell (`runner`).

    `counted`: the runner for `estimate`, each thread of which does its own part of the work and no other.
    """

    library: Path
    runner: Path
    counted: Path

    @property
    def outputs(self) -> tuple[tuple[Path, tuple[str, ...]], ...]:
        return ((self.library, _LIBRARY), (self.runner, _RUNNER), (self.counted, _COUNTED))


def build_loader(arch: Arch, artifacts: Path, sources: Path = SOURCES) -> LoaderFiles:
    """Compile the loader for `arch` into artifacts/loader/<arch>/, unless its sources are unchanged.

    Raises CompileError if zig is missing or refuses the sources.
    """
    folder = artifacts.resolve() / "loader" / arch
    files = LoaderFiles(*(folder / name for name in ("libpilite.so", "pilite-run", "pilite-run-counted")))
    stamp, key = folder / _STAMP, _key(arch, sources)
    with _BUILDING:
        if _is_current(files, stamp, key):
            return files
        folder.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        for path, arguments in files.outputs:
            _compile(arch, arguments, path, sources)
        _replace(stamp, key.encode())
    return files


def _key(arch: Arch, sources: Path) -> str:
    """A hash of everything that decides the bytes of the outputs."""
    digest = hashlib.sha256(repr((arch, zig.version(), _COMMON, _LIBRARY, _RUNNER, _COUNTED)).encode())
    for path in _source_files(sources):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _source_files(sources: Path) -> Iterator[Path]:
    yield from sorted(path for path in sources.iterdir() if path.suffix in {".cc", ".h"})


def _is_current(files: LoaderFiles, stamp: Path, key: str) -> bool:
    exist = all(path.is_file() for path, _ in files.outputs)
    return exist and stamp.is_file() and stamp.read_text() == key


def _compile(arch: Arch, arguments: tuple[str, ...], output: Path, sources: Path) -> None:
    """Link beside `output` and rename: another process never sees half a file."""
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / output.name
        command = zig.compiler_command("c++", zig.TRIPLES[arch])
        zig.run_zig([*command, *_COMMON, *arguments, "-o", str(made)], sources)
        os.replace(made, output)


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    os.replace(beside, path)
