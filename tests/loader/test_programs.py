"""The loader from C, C++ and under sanitizers: heap, misuse, damaged files, leaks, races."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pilite import zig
from pilite.lab.loader import LoaderFiles
from tests.loader.conftest import NATIVE, Sanitized, run_program
from tests.loader.fakes import LOADER, Fake

DAMAGED = 1000
C99 = ("-std=gnu99", "-rdynamic")
NO_LIBCXX = ("-std=c++17", "-nostdlib++", "-fno-exceptions", "-fno-rtti")
ZigProgram = Callable[[str, Sequence[str]], Path]


@pytest.fixture(scope="session")
def checks(zig_program: ZigProgram) -> Path:
    return zig_program("checks.c", C99)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_run_allocates_nothing(checks: Path, files: LoaderFiles, fake: Path, threads: int) -> None:
    done = run_program([checks, "heap", fake, str(threads)], files.library)
    assert done.stdout == "counts 1, in a new thread 0, in the main thread 0\n"


def test_a_second_caller_gets_busy(checks: Path, files: LoaderFiles, fake: Path) -> None:
    done = run_program([checks, "busy", fake], files.library)
    assert done.stdout.splitlines() == [
        "run 10: fake: is running in another thread",
        "bind 10",
        "first 0, after it 0",
    ]


def test_workers_sleep_as_soon_as_the_run_is_over(checks: Path, files: LoaderFiles, fake: Path) -> None:
    assert run_program([checks, "idle", fake], files.library).stdout == "idle 1\n"


@pytest.mark.parametrize(
    ("variant", "code"), [(Fake(), 0), (Fake(options=("-DREAD_BEHIND",)), -signal.SIGSEGV)]
)
def test_a_model_that_reads_behind_a_bound_buffer_is_caught(
    tmp_path: Path, zig_program: ZigProgram, files: LoaderFiles, variant: Fake, code: int
) -> None:
    model = variant.write(tmp_path / "model.so", NATIVE)
    done = run_program([zig_program("guard.c", C99), model, "2"], files.library)
    assert done.returncode == code


MISUSE = """\
error before: []
no path: 7 pilite_open: path and session must not be NULL
no size: 7 options.size is 0; it must be sizeof(pilite_options), 24
65 threads: 7 65 threads asked for; 1 to 64 are possible
64 threads: 0 open
0 threads: 0 open
unknown flag: 7 options ask for something that this loader does not know; update the loader
no checksum: 0 open
unknown CPU: 7 CPU 4000 is not available to this process; available: {cpus}
negative CPU: 7 CPU -1 is not available to this process; available: {cpus}
later options, zero: 0 open
later options, set: 7 options ask for something that this loader does not know; update the loader
open without result: 7
run NULL: 7, bind NULL: 7
info NULL: 1, buffer NULL: 1
buffer 5: 1
bind 5: 7 there is no tensor 5
bind short: 7 x: needs 1000 bytes, got 999
bind unaligned: 7 x: its buffer is not 64-byte aligned
bind: 0 1
unbind: 0 1
"""


def test_misuse_gives_an_error_and_never_a_crash(checks: Path, files: LoaderFiles, fake: Path) -> None:
    cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    done = run_program([checks, "misuse", fake], files.library)
    assert done.stdout == MISUSE.format(cpus=cpus)
    assert done.returncode == 0


def test_a_thousand_damaged_files_are_refused(
    tmp_path: Path, zig_program: ZigProgram, files: LoaderFiles, fake: Path
) -> None:
    program = zig_program("fuzz.cc", NO_LIBCXX)
    done = run_program([program, fake, tmp_path / "bad.so", str(DAMAGED), "1"], files.library)
    assert (done.returncode, done.stdout) == (0, f"refused {DAMAGED}\n")


def test_a_thousand_damaged_files_are_refused_under_address_sanitizer(
    tmp_path: Path, sanitized: Sanitized, fake: Path
) -> None:
    program = sanitized("fuzz.cc", "address,undefined")
    done = run_program([program, fake, tmp_path / "bad.so", str(DAMAGED), "2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"refused {DAMAGED}\n", "")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second model."""
    return Fake({"ADDEND": "2"}).write(tmp_path / "other.so", NATIVE)


def test_opening_and_closing_leaves_no_heap_behind(sanitized: Sanitized, fake: Path, other: Path) -> None:
    done = run_program([sanitized("cycle.cc", "address,undefined"), fake, other, "40"])
    assert (done.returncode, done.stderr) == (0, "")  # LeakSanitizer would have the last word
    assert done.stdout.startswith("files 0, models 0, ")


def test_opening_and_closing_leaves_no_mapping_behind(
    zig_program: ZigProgram, files: LoaderFiles, fake: Path, other: Path
) -> None:
    done = run_program([zig_program("cycle.cc", NO_LIBCXX), fake, other, "400"], files.library)
    left = re.fullmatch(r"files 0, models 0, KiB (-?\d+)\n", done.stdout)
    assert left
    assert int(left[1]) < 1000  # a session maps 12 KiB, three are opened each time


def test_the_pool_has_no_race(sanitized: Sanitized) -> None:
    done = run_program([sanitized("stress.cc", "thread")])
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("hardware: this kernel randomizes addresses more than ThreadSanitizer can take")
    assert (done.returncode, done.stdout, done.stderr) == (0, "every task ran once\n", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [((), "threads share slots\n"), (("-DPILITE_COUNTED",), "each slot has a thread\n")],
)
def test_only_where_work_is_counted_a_slot_waits_for_its_thread(
    zig_program: ZigProgram, options: tuple[str, ...], words: str
) -> None:
    assert run_program([zig_program("owners.cc", (*NO_LIBCXX, *options))]).stdout == words


WRAPPER = """\
fake 1 100 1
missing: 1 /nowhere/model.so: cannot be opened: No such file or directory
type: 7 x: is not of the element type asked for
index: 7 there is no output 3
cpus: 7 {model}: cpus must be empty or hold one CPU number per thread
"""


def test_the_cpp_wrapper_runs_a_model_and_throws(sanitized: Sanitized, fake: Path) -> None:
    done = run_program([sanitized("wrapper.cc", "address,undefined"), fake])
    assert (done.returncode, done.stdout, done.stderr) == (0, WRAPPER.format(model=fake), "")


def test_the_c_header_is_plain_c99(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text('#include "pilite.h"\nint main(void) { return pilite_api_version() != 0x10000u; }\n')
    command = zig.compiler_command("cc", zig.TRIPLES[NATIVE])
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    zig.run_zig([*command, *strict, f"-I{LOADER}", "-c", "a.c", "-o", "a.o"], tmp_path)
    assert (tmp_path / "a.o").exists()
