"""A stage with its kernel: the choice, the packed constants, and the function for a layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx

from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels import Kernel, tuning
from pilite.compiler.kernels.families import Constants
from pilite.compiler.kernels.isa import ISAS
from pilite.compiler.layout import Layout
from pilite.compiler.program import Program, Stage, Value
from pilite.compiler.prove import bounded, cheaper
from pilite.compiler.spec import QConv2D, QDepthwiseConv2D


@dataclass(frozen=True, eq=False)
class Chosen:
    """What one function computes, and with what."""

    stage: Stage
    kernel: Kernel
    cpu: Cpu  # with the tile that was chosen
    variant: Any
    constants: Constants
    xs: tuple[Layout, ...]
    y: Layout

    @property
    def key(self) -> str:
        return repr((self.kernel.name, self.cpu.tiles, self.stage.spec, self.variant, self.xs, self.y))

    @property
    def scratch(self) -> tuple[int, ...]:
        """Bytes of each scratch parameter."""
        return self.kernel.family.scratch(self.variant, self.xs, self.y)

    @property
    def tuned_by(self) -> str:
        """The class of operators that `tune` chooses by; "" where there is nothing to choose."""
        return tuning.class_of(self.stage.spec, self.stage.arrays, self.y)

    def function(self) -> tirx.PrimFunc:
        return self.kernel.family.emit("kernel", self.stage.spec, self.variant, self.xs, self.y, self.cpu)


def layout(value: Value) -> Layout:
    return Layout(value.shape, value.dtype, value.halo)


def choose(program: Program, stage: Stage, cpu: Cpu) -> Chosen:
    """The kernel of `stage` for its whole output."""
    if isinstance(stage.spec, (QConv2D, QDepthwiseConv2D)) and (ISAS[cpu.isa].fuses or cpu.unzips):
        prove = cheaper if ISAS[cpu.isa].fuses else bounded
        spec, arrays = prove(stage.spec, stage.arrays)
        stage = replace(stage, spec=spec, arrays=arrays)
    y = layout(program.values[stage.output])
    kernel, cpu = tuning.choose(stage.spec, stage.arrays, y, cpu)
    variant, constants = kernel.family.prepare(stage.spec, stage.arrays)
    return Chosen(
        stage, kernel, cpu, variant, constants, tuple(layout(program.values[i]) for i in stage.inputs), y
    )
