"""What pilite is raced against: one entry each. `adapter` names a class of worker.py, which runs it."""

from __future__ import annotations

from dataclasses import dataclass

from pilite.errors import BoardError
from pilite.lab import wheels
from pilite.lab.oracle import RUNTIMES

OURS = "pilite"


@dataclass(frozen=True)
class Rival:
    """A runtime from a Python package of requirements.lock.

    `sent` are the wheels that an SSH board gets beside numpy; a runtime without any can be raced only where
    its package is installed.
    """

    name: str
    adapter: str
    package: str
    module: str = ""
    kernels: str = ""
    label: str = ""
    sent: tuple[str, ...] = ()
    extra_percent: float = 0.0  # by which its runs are made to take longer: what `selfcheck` must find

    @property
    def entry(self) -> dict[str, str | float]:
        """What worker.py must know."""
        return {
            "adapter": self.adapter,
            "package": self.package,
            "module": self.module,
            "kernels": self.kernels,
            "extra_percent": self.extra_percent,
        }

    @property
    def locked(self) -> str:
        """The version in requirements.lock, "" if it is not there."""
        try:
            pin, _ = wheels.locked(self.package)
        except BoardError:
            return ""
        return str(pin.specifier).removeprefix("==")


def _interpreter(name: str) -> Rival:
    """A TFLite of oracle.py's table, raced as its users get it."""
    found = RUNTIMES[name]
    return Rival(
        name,
        "interpreter",
        found.package,
        found.module,
        found.kernels,
        f"{found.package}, {found.label}",
        (found.package,),
    )


RIVALS = {
    rival.name: rival
    for rival in (
        _interpreter("tflite"),
        _interpreter("litert"),
        _interpreter("litert-builtin"),
        Rival(
            "tvm-stock", "tvm", "apache-tvm", "tvm", label="apache-tvm, its own importer and virtual machine"
        ),
    )
}
DEFAULT_RIVALS = (RIVALS["tflite"], RIVALS["litert"])
PILITE = Rival(OURS, "pilite", "")
