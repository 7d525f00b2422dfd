"""The bytes do not depend on the host: a build as an old x86 CPU sees it, and one on an aarch64 machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import ziglang

from models import resolve
from pilite.lab import emulation, roots, wheels
from pilite.lab.toolchain import recipe
from tests.conftest import ROOT
from tests.few_ops import classifier, made

OLD = "Nehalem"  # 2008: SSE4.2, no AVX
CPUS = ("x86-64-v3", "x86-64-v4", "cortex-a53", "cortex-a76")

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
    for chains in ("auto", "off", "all"):
        pipeline.build(Path(sys.argv[2]), "m", cpu, "ref", Path.cwd() / chains, chains=chains)
"""


@dataclass(frozen=True)
class Host:
    """A machine to build on. `emulator`: what runs Python and zig there; `packages`: for PYTHONPATH."""

    emulator: tuple[str, ...] = ()
    python: str = sys.executable
    packages: str = str(Path(next(iter(ziglang.__path__))).parent)

    def build(self, model: Path, folder: Path, cpus: Sequence[str]) -> bool:
        """Build for CPUs in `folder`; whether the host's CPU showed AVX."""
        folder.mkdir()
        command = [*self.emulator, self.python, "-c", BUILD, str(ROOT), str(model), ",".join(cpus)]
        command += [*self.emulator, f"{self.packages}/ziglang/zig"] if self.emulator else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": self.packages, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip() == "True"


def aarch64() -> Host:
    """Debian's Python 3.11 for arm64 with the wheels that the toolchain image has."""
    emulation.ensure()
    root = roots.rootfs(ROOT / "artifacts")
    packages = roots.site(dict.fromkeys(recipe.read().wheels, wheels.LOCK), ROOT / "artifacts")
    (packages / "ziglang" / "zig").chmod(0o755)
    return Host(("qemu-aarch64", "-L", str(root)), str(root / roots.PYTHON), str(packages))


def assert_same(cpus: Sequence[str], one: Path, other: Path) -> None:
    for cpu in cpus:
        for folder in ("auto/m/{}/ref", "off/m/{}/ref-fuse-off", "all/m/{}/ref-fuse-all"):
            path = f"{folder.format(cpu)}/model.so"
            assert (one / path).read_bytes() == (other / path).read_bytes(), path


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.qemu
@pytest.mark.parametrize("name", ["classifier", "mobilenet_v2_0.35_96_uint8"])
def test_an_aarch64_host_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    if name == "classifier":
        model = tmp_path / "m.tflite"
        model.write_bytes(made(classifier, "int8", 0).model)
    else:
        model = resolve(name, ROOT / "artifacts").path
    Host().build(model, tmp_path / "here", CPUS)
    aarch64().build(model, tmp_path / "there", CPUS)

    assert_same(CPUS, tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
@pytest.mark.long
def test_an_x86_cpu_without_avx_gives_the_same_bytes(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64" or shutil.which("qemu-x86_64") is None:
        pytest.skip("no qemu-x86_64; on x86-64: apt-get install qemu-user")
    model = tmp_path / "m.tflite"
    model.write_bytes(made(classifier, "int8", 0).model)
    here = Host().build(model, tmp_path / "here", CPUS)
    old = Host(("qemu-x86_64", "-cpu", OLD)).build(model, tmp_path / "old", CPUS)

    assert not old
    if not here:
        pytest.skip("hardware: this machine's CPU has no AVX to be without")
    assert_same(CPUS, tmp_path / "here", tmp_path / "old")
