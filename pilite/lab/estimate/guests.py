"""The programs that are profiled: our artifacts and, from their aarch64 wheels, the rivals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilite.lab import execute, roots, wheels
from pilite.lab.estimate import rival as rival_program
from pilite.lab.estimate.plugin import Guest
from pilite.lab.loader import build_counted, build_loader

SYSROOT = Path("/usr/aarch64-linux-gnu")  # Debian: libc6-arm64-cross


@dataclass(frozen=True)
class Rival:
    """A runtime of wheels.RIVALS, and whether its default delegate is left out."""

    runtime: str
    builtin: bool = False

    @property
    def package(self) -> str:
        return wheels.RIVALS[self.runtime]

    @property
    def version(self) -> str:
        """As locked, such as "2.14.0"."""
        return str(wheels.locked(self.package)[0].specifier).removeprefix("==")


RIVALS = {
    "tflite": Rival("tflite"),
    "litert": Rival("litert"),
    "litert-builtin": Rival("litert", builtin=True),
}


def pilite(artifact: Path, cpu: str, artifacts: Path, threads: int = 1) -> Guest:
    """Our runner with one artifact, seeded random inputs, one warm-up run and one run between the marks.

    One thread is counted in the very program that is deployed. Several are counted where none takes another's
    work: that would depend on how this machine schedules QEMU's threads.
    """
    runner = build_loader("aarch64", artifacts).runner if threads == 1 else build_counted(artifacts)
    settings = ("--random", "0", "--markers", "--threads", str(threads))
    return Guest(
        cpu=cpu,
        root=SYSROOT,
        command=(str(runner), str(artifact), "--random", "0", "--markers", *execute.placed(threads)),
        environment={},
        settings=("pilite", *settings),
        files=(runner, artifact),
    )


def rival(name: str, model: Path, cpu: str, artifacts: Path, threads: int = 1) -> Guest:
    """A rival's Python with one model, used in the same way.

    Raises:
        PiliteError: its root cannot be made.
        BoardError: it has no wheel for arm64.
    """
    chosen = RIVALS[name]
    root = roots.view(cpu, artifacts)
    site = roots.site(dict.fromkeys((wheels.NUMPY, chosen.package), wheels.LOCK), artifacts)
    program = Path(rival_program.__file__).resolve()
    settings = (chosen.runtime, "--threads", str(threads), *(("--builtin",) if chosen.builtin else ()))
    return Guest(
        cpu=cpu,
        root=root,
        command=(str(root / roots.PYTHON), str(program), str(model.resolve()), *settings),
        environment={"PYTHONPATH": str(site), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        settings=(name, site.name, *settings),
        files=(program, model),
    )
