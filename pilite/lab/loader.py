"""Build the loader, the part of pilite that runs on a board: libpilite.so and pilite-run."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pilite import zig

Arch = Literal["aarch64", "x86_64"]
Outputs = Mapping[Path, tuple[str, ...]]  # what is compiled, and the compiler's arguments

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
    """What a board needs to run artifacts from C, C++, Python (`library`) or the shell (`runner`)."""

    library: Path
    runner: Path


def build_loader(arch: Arch, artifacts: Path, sources: Path = SOURCES) -> LoaderFiles:
    """Compile the loader for `arch` into artifacts/loader/<arch>/, unless its sources are unchanged.

    Raises CompileError if zig is missing or refuses the sources.
    """
    folder = artifacts.resolve() / "loader" / arch
    files = LoaderFiles(folder / "libpilite.so", folder / "pilite-run")
    _build(arch, {files.library: _LIBRARY, files.runner: _RUNNER}, folder, sources)
    return files


def build_counted(artifacts: Path) -> Path:
    """The runner for `estimate`: each of its threads does its own part of the work and no other.

    Raises CompileError as `build_loader`.
    """
    folder = artifacts.resolve() / "loader" / "counted"
    runner = folder / "pilite-run-counted"
    _build("aarch64", {runner: _COUNTED}, folder, SOURCES)
    return runner


def _build(arch: Arch, outputs: Outputs, folder: Path, sources: Path) -> None:
    """Compile all outputs in `folder`, unless they are there and nothing that decides their bytes changed."""
    stamp, key = folder / _STAMP, _key(arch, outputs, sources)
    with _BUILDING:
        if _is_current(outputs, stamp, key):
            return
        folder.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        for path, arguments in outputs.items():
            _compile(arch, arguments, path, sources)
        _replace(stamp, key.encode())


def _key(arch: Arch, outputs: Outputs, sources: Path) -> str:
    """A hash of everything that decides the bytes of the outputs."""
    digest = hashlib.sha256(repr((arch, zig.version(), _COMMON, *outputs.values())).encode())
    for path in _source_files(sources):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _source_files(sources: Path) -> Iterator[Path]:
    yield from sorted(path for path in sources.iterdir() if path.suffix in {".cc", ".h"})


def _is_current(outputs: Outputs, stamp: Path, key: str) -> bool:
    exist = all(path.is_file() for path in outputs)
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
