"""pilite/lab/loader.py and pilite/zig.py: what is built, how small, from what, and when again."""

from __future__ import annotations

import importlib.metadata
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilite import zig
from pilite.errors import CompileError
from pilite.lab import loader
from pilite.lab.loader import Arch, LoaderFiles, build_loader
from tests.loader.elf import PF_X, PT_GNU_STACK, PT_LOAD, Elf
from tests.loader.fakes import ARTIFACTS, ROOT

ARCHS: tuple[Arch, ...] = ("aarch64", "x86_64")
LIBC_PARTS = {"libc.so.6", "libpthread.so.0", "libdl.so.2"}  # separate files before glibc 2.34


@pytest.fixture(params=ARCHS)
def built(request: pytest.FixtureRequest) -> LoaderFiles:
    return build_loader(request.param, ARTIFACTS)


def test_library_has_at_most_40_kb(built: LoaderFiles) -> None:
    assert built.library.stat().st_size <= 40 * 1024


def test_library_needs_libc_only(built: LoaderFiles) -> None:
    assert Elf.read(built.library).needed == ["libc.so.6"]


def test_runner_needs_the_c_library_only(built: LoaderFiles) -> None:
    assert set(Elf.read(built.runner).needed) <= LIBC_PARTS


def test_everything_runs_on_glibc_2_28(built: LoaderFiles) -> None:
    for path in (built.library, built.runner):
        assert max(Elf.read(path).glibc_versions) <= (2, 28)


def test_segments_are_aligned_for_pages_of_16_kib(built: LoaderFiles) -> None:
    for path in (built.library, built.runner):
        loads = [s for s in Elf.read(path).segments if s.type == PT_LOAD]
        assert loads
        assert all(s.align >= 0x4000 for s in loads)


def test_stack_is_not_executable(built: LoaderFiles) -> None:
    for path in (built.library, built.runner):
        stacks = [s for s in Elf.read(path).segments if s.type == PT_GNU_STACK]
        assert len(stacks) == 1
        assert not stacks[0].flags & PF_X


def test_no_path_of_this_machine_is_inside(built: LoaderFiles) -> None:
    for path in (built.library, built.runner):
        data = path.read_bytes()
        assert str(ROOT).encode() not in data
        assert b"pilite.cc" not in data


@pytest.mark.slow
def test_two_directories_give_the_same_bytes(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "another-much-longer-name"):
        sources = tmp_path / name / "loader"
        shutil.copytree(loader.SOURCES, sources)
        files = build_loader("aarch64", tmp_path / name / "artifacts", sources)
        outputs.append((files.library.read_bytes(), files.runner.read_bytes()))
    assert outputs[0] == outputs[1]


def test_unchanged_sources_are_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_compilations(monkeypatch)
    sources = tmp_path / "loader"
    shutil.copytree(loader.SOURCES, sources)
    build_loader("aarch64", tmp_path, sources)
    assert len(calls) == 2
    build_loader("aarch64", tmp_path, sources)
    assert len(calls) == 2
    (sources / "xxh64.h").write_text((sources / "xxh64.h").read_text() + "\n")
    build_loader("aarch64", tmp_path, sources)
    assert len(calls) == 4


def test_a_missing_output_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_compilations(monkeypatch)
    files = build_loader("aarch64", tmp_path)
    files.runner.unlink()
    assert build_loader("aarch64", tmp_path).runner.exists()
    assert len(calls) == 4


def count_compilations(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the compiler by one that writes a file; returns the commands it is given."""
    calls: list[list[str]] = []

    def compile_nothing(arguments: list[str], _: Path) -> None:
        calls.append(arguments)
        Path(arguments[-1]).write_bytes(b"compiled")

    monkeypatch.setattr(zig, "run_zig", compile_nothing)
    return calls


@pytest.mark.slow
def test_a_compiler_error_keeps_the_old_output_and_shows_the_line(tmp_path: Path) -> None:
    sources = tmp_path / "loader"
    shutil.copytree(loader.SOURCES, sources)
    before = build_loader("aarch64", tmp_path, sources).library.read_bytes()
    (sources / "pilite.cc").write_text("int broken = undeclared_name;\n")
    with pytest.raises(CompileError, match="undeclared_name"):
        build_loader("aarch64", tmp_path, sources)
    library = tmp_path / "loader" / "aarch64" / "libpilite.so"
    assert library.read_bytes() == before
    assert sorted(path.name for path in library.parent.iterdir()) == ["libpilite.so", "pilite-run"]


def test_zig_takes_no_header_folder_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "from_host.h").write_text("")
    (tmp_path / "a.c").write_text("#include <from_host.h>\n")
    monkeypatch.setenv("CPATH", str(tmp_path))
    with pytest.raises(CompileError, match=r"from_host\.h"):
        zig.run_zig([*zig.compiler_command("cc", zig.AARCH64), "-c", "a.c", "-o", "a.o"], tmp_path)


def test_a_missing_zig_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_package(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", no_package)
    with pytest.raises(CompileError, match="zig is not installed"):
        build_loader("aarch64", tmp_path)


def test_zig_is_not_taken_from_the_folder_it_runs_in(tmp_path: Path) -> None:
    (tmp_path / "ziglang.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(CompileError, match=r"missing\.c"):
        zig.run_zig([*zig.compiler_command("cc", zig.X86_64), "-c", "missing.c"], tmp_path)


def test_zig_names_the_folder_and_the_command_that_failed(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        zig.run_zig([*zig.compiler_command("cc", zig.X86_64), "-c", "missing.c"], tmp_path)
    assert "missing.c" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_threads_that_want_it_at_once_build_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_compilations(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: build_loader("aarch64", tmp_path), range(8)))
    assert all(files == found[0] for files in found)
    assert len(calls) == 2
