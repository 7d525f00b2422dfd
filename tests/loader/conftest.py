"""What the loader's tests share: the built loader, hand-made models, programs in C and C++."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import pytest

from loader.pilite import Model
from pilite import zig
from pilite.lab.loader import Arch, LoaderFiles, build_loader
from tests.loader.fakes import ARTIFACTS, HERE, LOADER, Fake

NATIVE = cast(Arch, platform.machine())
FOREIGN: Arch = "aarch64" if NATIVE == "x86_64" else "x86_64"

OpenModel = Callable[..., Model]
Runner = Callable[..., "subprocess.CompletedProcess[str]"]
Sanitized = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def files() -> LoaderFiles:
    """The loader for this machine."""
    return build_loader(NATIVE, ARTIFACTS)


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact artifact for this machine."""
    return Fake().write(tmp_path_factory.mktemp("fake") / "fake.so", NATIVE)


@pytest.fixture
def open_model(files: LoaderFiles) -> Iterator[OpenModel]:
    """Model() with the library that was just built; closed at the end of the test."""
    models: list[Model] = []

    def open_it(path: Path, **options: object) -> Model:
        models.append(Model(path, library=files.library, **options))  # type: ignore[arg-type]
        return models[-1]

    yield open_it
    for model in models:
        model.close()


def run_program(
    command: Sequence[str | Path], library: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it with the loader's folder on the library path; what it prints is checked by the test."""
    environment = dict(os.environ)
    if library:
        environment["LD_LIBRARY_PATH"] = str(library.parent)
    words = [str(word) for word in command]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="session")
def runner(files: LoaderFiles) -> Runner:
    """pilite-run of this machine."""
    return lambda *arguments: run_program([files.runner, *arguments])


@pytest.fixture(scope="session")
def zig_program(files: LoaderFiles) -> Callable[[str, Sequence[str]], Path]:
    """Compile tests/loader/<source> with zig and link it with libpilite.so."""

    def build(source: str, options: Sequence[str]) -> Path:
        kind: Literal["cc", "c++"] = "c++" if source.endswith(".cc") else "cc"
        command = [*zig.compiler_command(kind, zig.TRIPLES[NATIVE]), "-O2", "-Wall", "-Wextra", "-Werror"]
        arguments = [*command, *options, f"-I{LOADER}", source, str(files.library), "-lpthread", "-ldl"]
        return _kept(arguments, lambda words: zig.run_zig(words, HERE))

    return build


@pytest.fixture(scope="session")
def sanitized() -> Sanitized:
    """Compile tests/loader/<source> and the loader with a host compiler and a sanitizer."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler on this machine; apt-get install g++")

    def build(source: str, sanitizer: str) -> Path:
        options = ["-std=c++17", "-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
        arguments = [
            compiler,
            *options,
            f"-I{LOADER}",
            source,
            str(LOADER / "pilite.cc"),
            "-lpthread",
            "-ldl",
        ]
        return _kept(arguments, lambda words: _run_compiler(words))

    return build


def _run_compiler(words: list[str]) -> None:
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _kept(arguments: list[str], compile_it: Callable[[list[str]], None]) -> Path:
    """The program that these arguments make; compiled again only if a source changed."""
    sources = [*sorted(LOADER.glob("*.h*")), *sorted(LOADER.glob("*.cc")), *sorted(HERE.glob("*.c*"))]
    digest = hashlib.sha256(repr(arguments).encode())
    for source in sources:
        digest.update(source.read_bytes())
    program = ARTIFACTS / "loader" / "programs" / digest.hexdigest()[:16]
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            compile_it([*arguments, "-o", f"{folder}/program"])
            os.replace(f"{folder}/program", program)
    return program
