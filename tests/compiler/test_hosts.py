"""The bytes do not depend on what the CPU of the host can: a build as an old x86 CPU sees it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.few_ops import classifier, made

OLD = "Nehalem"  # 2008: SSE4.2, no AVX
CPUS = ("x86-64-v3", "x86-64-v4", "cortex-a76")

BUILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy
from pilite import zig
from pilite.compiler import pipeline
if emulator := sys.argv[4:]:  # the kernel would run a child on the real CPU
    zig._ZIG = tuple(emulator)
print(numpy.core._multiarray_umath.__cpu_features__["AVX"])
for cpu in sys.argv[3].split(","):
    pipeline.build(Path(sys.argv[2]), "m", cpu, "ref", Path.cwd())
"""


def build(model: Path, folder: Path, emulator: tuple[str, ...]) -> bool:
    """Build for CPUS in `folder`; whether the host's CPU showed AVX."""
    folder.mkdir()
    zig = importlib.util.find_spec("ziglang")
    assert zig is not None
    assert zig.origin is not None
    program = str(Path(zig.origin).with_name("zig"))
    command = [*emulator, sys.executable, "-c", BUILD, str(ROOT), str(model), ",".join(CPUS)]
    command += [*emulator, program] if emulator else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() == "True"


@pytest.mark.slow
@pytest.mark.long
def test_an_x86_cpu_without_avx_gives_the_same_bytes(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64" or shutil.which("qemu-x86_64") is None:
        pytest.skip("no qemu-x86_64; on x86-64: apt-get install qemu-user")
    model = tmp_path / "m.tflite"
    model.write_bytes(made(classifier, "int8", 0).model)
    here = build(model, tmp_path / "here", ())
    old = build(model, tmp_path / "old", ("qemu-x86_64", "-cpu", OLD))

    assert not old
    if not here:
        pytest.skip("hardware: this machine's CPU has no AVX to be without")
    for cpu in CPUS:
        path = f"m/{cpu}/ref/model.so"
        assert (tmp_path / "old" / path).read_bytes() == (tmp_path / "here" / path).read_bytes(), cpu
