"""pilite-run, the command line: on this machine, and for aarch64 under qemu."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path

import numpy as np
import pytest

from loader.pilite import Array
from pilite.lab.loader import LoaderFiles, build_loader
from pilite.seal import MACHINES
from tests.loader.conftest import FOREIGN, NATIVE, Runner, run_program
from tests.loader.fakes import ADD, ARTIFACTS, FAIL_TASK, Fake

ASIMDDP = 1 << 20  # AT_HWCAP of aarch64


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """The --input options of one good run: x = 0, 1, 2 ... and one region with 3 tasks."""
    x = np.arange(1000, dtype=np.int32).astype(np.int8).reshape(1, 1000)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "command.npy", np.array([ADD, 3, 1, 0], np.int32))
    return ["--input", str(tmp_path / "x.npy"), "--input", str(tmp_path / "command.npy")]


def check_outputs(tmp_path: Path) -> None:
    x = np.load(tmp_path / "x.npy")
    y, counts, regions = (np.load(tmp_path / f"result.{i}.npy") for i in range(3))
    np.testing.assert_array_equal(y, x + 1)
    assert (y.dtype, y.shape) == (np.int8, (1, 1000))
    assert counts[:4].tolist() == [1, 1, 1, 0]
    assert (regions.dtype, regions.shape, float(regions)) == (np.float32, (), 1.0)


@pytest.mark.parametrize("threads", [1, 4])
def test_numpy_files_go_in_and_come_out(
    tmp_path: Path, fake: Path, runner: Runner, inputs: list[str], threads: int
) -> None:
    done = runner(fake, *inputs, "--output", tmp_path / "result", "--threads", threads)
    assert (done.returncode, done.stderr) == (0, "")
    check_outputs(tmp_path)


def test_raw_bytes_go_in(tmp_path: Path, fake: Path, runner: Runner, inputs: list[str]) -> None:
    (tmp_path / "x.bin").write_bytes(np.load(tmp_path / "x.npy").tobytes())
    done = runner(fake, "--input", tmp_path / "x.bin", *inputs[2:], "--output", tmp_path / "result")
    assert done.returncode == 0
    check_outputs(tmp_path)


def test_runs_prints_median_and_minimum(fake: Path, runner: Runner, inputs: list[str]) -> None:
    done = runner(fake, *inputs, "--runs", 5)
    found = re.search(
        r"^runs 5: median ([\d.]+) ms, min ([\d.]+) ms, first [\d.]+ ms, load [\d.]+ ms$", done.stdout, re.M
    )
    assert found
    assert float(found[1]) >= float(found[2]) > 0


def test_steps_write_the_outputs_of_each(
    tmp_path: Path, fake: Path, runner: Runner, inputs: list[str]
) -> None:
    done = runner(fake, *inputs, "--steps", 2, "--output", tmp_path / "a")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "a.0.0.npy"), np.load(tmp_path / "a.1.0.npy"))


def test_a_reset_is_one_of_the_steps(fake: Path, runner: Runner, inputs: list[str]) -> None:
    done = runner(fake, *inputs, "--steps", 4, "--reset", 4)

    assert (done.returncode, done.stderr) == (
        2,
        "pilite-run: --reset 4 is no step of --steps 4; steps count from 0\n",
    )


def test_threads_can_be_pinned(fake: Path, runner: Runner, inputs: list[str]) -> None:
    cpu = min(os.sched_getaffinity(0))
    assert runner(fake, *inputs, "--threads", 2, "--cpus", f"{cpu},{cpu}").returncode == 0


@pytest.mark.parametrize("arch", sorted(MACHINES))
def test_info_prints_the_manifest_of_any_architecture(tmp_path: Path, runner: Runner, arch: str) -> None:
    fake = Fake()
    done = runner(fake.write(tmp_path / "model.so", NATIVE if arch == NATIVE else FOREIGN), "--info")
    assert done.returncode == 0
    assert json.loads(done.stdout) == fake.manifest
    assert not done.stdout.endswith(" \n")


def test_info_refuses_a_damaged_file(tmp_path: Path, fake: Path, runner: Runner) -> None:
    damaged = tmp_path / "model.so"
    damaged.write_bytes(fake.read_bytes().replace(b"\x7fELF", b"\x7fELG", 1))
    done = runner(damaged, "--info")
    assert (done.returncode, done.stdout) == (2, "")
    assert "checksum differs" in done.stderr


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path, runner: Runner) -> None:
    """The fake writes x + 1; the first bytes are pinned, because other programs may want the same numbers."""
    model = Fake(options=("-DANY_COMMAND",)).write(tmp_path / "model.so", NATIVE)
    values = []
    for seed in (7, 7, 8):
        done = runner(model, "--random", seed, "--output", tmp_path / "result")
        assert done.returncode == 0, done.stderr
        values.append(np.load(tmp_path / "result.0.npy").ravel())
    np.testing.assert_array_equal(values[0], values[1])
    assert (values[0] != values[2]).any()
    assert len(np.unique(values[0])) > 200
    assert (values[0][:4] - 1).tolist() == splitmix_bytes(7, 4)


def splitmix_bytes(state: int, count: int) -> list[int]:
    """What the help text of --random promises, written again: bits 40 to 47 of splitmix64, as int8."""
    mask, values = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        values.append(((z ^ z >> 31) >> 40 & 255 ^ 128) - 128)
    return values


WRONG_USE = [
    pytest.param([], "no model given", id="no model"),
    pytest.param(["{model}"], "has 2 inputs, 0 given", id="no inputs"),
    pytest.param(["{model}", "--frobnicate", "1"], "--frobnicate", id="an unknown option"),
    pytest.param(["{model}", "--threads", "0"], "--threads", id="0 threads"),
    pytest.param(["{model}", "--threads", "many"], "--threads", id="threads in words"),
    pytest.param(["{model}", "--runs"], "--runs", id="no value"),
    pytest.param(["{model}", "--threads", "2", "--cpus", "0"], "1 CPUs for --threads 2", id="too few CPUs"),
    pytest.param(["{model}", "--cpus", "0;1"], "--cpus", id="CPUs with another separator"),
    pytest.param(["{model}", "--cpus", "999", "--random", "1"], "CPU 999 is not available", id="no such CPU"),
    pytest.param(["{model}", "another.so"], "another.so", id="two models"),
    pytest.param(["/nowhere/model.so", "--random", "1"], "cannot be opened", id="a missing model"),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG_USE)
def test_wrong_use_ends_with_one_line_and_code_2(
    fake: Path, runner: Runner, arguments: list[str], says: str
) -> None:
    done = runner(*(argument.format(model=fake) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pilite-run: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


WRONG_FILES = [
    pytest.param(np.zeros((1, 1000), np.uint8), r"type '|u1' and shape (1,1000)", id="type"),
    pytest.param(np.zeros((1000,), np.int8), "shape (1000,)", id="shape"),
    pytest.param(np.asfortranarray(np.zeros((2, 500), np.int8)), "Fortran order", id="order"),
    pytest.param(b"", "does not hold exactly the 1000 bytes of x", id="empty"),
    pytest.param(bytes(1001), "does not hold exactly", id="too long"),
    pytest.param(b"\x93NUMPY\x01\x00\xff\xff{", "is truncated", id="truncated header"),
    pytest.param(b"\x93NUMPY\x02\x00" + bytes(992), "not an .npy file of format 1.0", id="another format"),
    pytest.param(b"\x93NUMPY\x01\x00\x04\x00{,,}" + bytes(1000), "has type", id="senseless header"),
]


@pytest.mark.parametrize(("content", "says"), WRONG_FILES)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, fake: Path, runner: Runner, inputs: list[str], content: Array | bytes, says: str
) -> None:
    path = tmp_path / "wrong.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    done = runner(fake, "--input", path, *inputs[2:])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_failed_run_ends_with_code_1(tmp_path: Path, fake: Path, runner: Runner, inputs: list[str]) -> None:
    np.save(tmp_path / "command.npy", np.array([FAIL_TASK, 0, 1, 0], np.int32))
    done = runner(fake, *inputs)
    assert done.returncode == 1
    assert "a parallel task of the model failed" in done.stderr


def test_an_output_that_cannot_be_written_ends_with_code_1(
    fake: Path, runner: Runner, inputs: list[str]
) -> None:
    done = runner(fake, *inputs, "--output", "/nowhere/result")
    assert done.returncode == 1
    assert "/nowhere/result.0.npy: cannot be written" in done.stderr


def test_help_names_every_option(runner: Runner) -> None:
    done = runner("--help")
    assert done.returncode == 0
    for option in ("input", "output", "threads", "cpus", "runs", "random", "info"):
        assert f"--{option}" in done.stdout


# ---- aarch64


@pytest.fixture(scope="session")
def aarch64() -> LoaderFiles:
    return build_loader("aarch64", ARTIFACTS)


def emulate(cpu: str, *command: str | Path) -> list[str | Path]:
    """The command as it runs on an aarch64 `cpu`; on an aarch64 machine as it is."""
    prefix = ["qemu-aarch64", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu"]
    return [*(prefix if NATIVE != "aarch64" else []), *command]


@pytest.mark.qemu
@pytest.mark.parametrize("threads", [1, 4])
def test_aarch64_gives_the_same_outputs(
    tmp_path: Path, aarch64: LoaderFiles, inputs: list[str], threads: int
) -> None:
    model = Fake().write(tmp_path / "model.so", "aarch64")
    options = [*inputs, "--output", str(tmp_path / "result"), "--threads", str(threads), "--runs", "20"]
    done = run_program(emulate("cortex-a53", aarch64.runner, model, *options))
    assert (done.returncode, done.stderr) == (0, "")
    check_outputs(tmp_path)


@pytest.mark.qemu
@pytest.mark.skipif(platform.machine() == "aarch64", reason="hardware: the CPU cannot be chosen")
@pytest.mark.parametrize(("cpu", "code"), [("cortex-a53", 2), ("cortex-a72", 2), ("cortex-a76", 0)])
def test_a_cpu_without_dot_product_refuses_a_model_that_needs_it(
    tmp_path: Path, aarch64: LoaderFiles, inputs: list[str], cpu: str, code: int
) -> None:
    model = Fake({"CPU_REQUIRED": f"{ASIMDDP}u"}).write(tmp_path / "model.so", "aarch64")
    done = run_program(emulate(cpu, aarch64.runner, model, *inputs))
    assert done.returncode == code, done.stderr
    assert ("this CPU lacks asimddp (dot product)" in done.stderr) == (code == 2)


@pytest.mark.qemu
def test_aarch64_refuses_an_x86_model(tmp_path: Path, aarch64: LoaderFiles) -> None:
    model = Fake().write(tmp_path / "model.so", "x86_64")
    done = run_program(emulate("max", aarch64.runner, model, "--random", "1"))
    assert done.returncode == 2
    assert "made for x86-64 (ELF machine 62), this computer is aarch64" in done.stderr


def test_bench_prints_one_line_with_its_order_right(
    files: LoaderFiles, fake: Path, inputs: list[str]
) -> None:
    done = run_program([files.runner, fake, "--bench", "--threads", "2", *inputs], files.library)
    line = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"bench: 2 threads, (\d+) runs: median (\S+) ms, min (\S+), p90 (\S+), p99 (\S+); (\S+) runs/s; .*",
        line,
    )

    assert found, line
    runs, median, least, p90, p99 = (float(value) for value in found.groups()[:5])
    assert runs >= 10
    assert least <= median <= p90 <= p99
