"""Made-up rows of an estimate, for tests of what is done with them."""

from __future__ import annotations

from pilite.lab.estimate.count import Counted
from pilite.lab.estimate.estimate import Layer, Row
from pilite.lab.estimate.models import MODELS


def counted(instructions: int, cycles: float, cpu: str = "cortex-a53") -> Counted:
    return Counted(instructions, {model.name: cycles for model in MODELS[cpu]}, 30, 20, 10)


def row(
    runtime: str = "pilite",
    cycles: float = 100.0,
    *,
    model: str = "net",
    cpu: str = "cortex-a53",
    instructions: int = 1000,
    layers: tuple[Layer, ...] = (),
) -> Row:
    numerics = "ref" if runtime == "pilite" else None
    whole = counted(instructions, cycles, cpu)
    return Row(model, "int8", cpu, numerics, runtime, "1.0", 1, whole, 1.0, layers)
