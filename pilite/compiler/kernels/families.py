"""How kernels pack their constants and become code: one class for each kind of kernel (`Family`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tvm import tirx

from pilite.compiler import spec as s
from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels import depthwise, depthwise_dot, gemm
from pilite.compiler.layout import Layout

Constants = tuple[npt.NDArray[Any], ...]


class Family(Protocol):
    """Packing and code of one kernel. A kernel's parameters are inputs, constants, scratch, output."""

    @property
    def share(self) -> int:
        """Channels of a block, if the kernel can be emitted for some of them (emit.Share); 0 if not."""

    def prepare(self, spec: Any, arrays: s.Arrays) -> tuple[Any, Constants]:
        """(variant, constants): what the values decide about the code (hashable), and the packed arrays."""

    def scratch(self, variant: Any, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        """Bytes of each scratch parameter."""

    def emit(
        self, name: str, spec: Any, variant: Any, xs: Sequence[Layout], y: Layout, cpu: Cpu
    ) -> tirx.PrimFunc:
        """The function for these layouts."""


@dataclass(frozen=True)
class Gemm:
    strategy: gemm.Strategy
    tiles: str  # key of [tiles] in toolchains/<cpu>.toml
    columns: int  # NR, which fixes the packing

    @property
    def share(self) -> int:
        return self.columns

    def prepare(self, spec: s.QConv2D, arrays: s.Arrays) -> tuple[gemm.Variant, Constants]:
        return gemm.pack(self.strategy, spec, arrays, self.columns)

    def scratch(self, variant: gemm.Variant, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        return gemm.scratch(variant, xs[0], y)

    def emit(
        self, name: str, spec: s.QConv2D, variant: gemm.Variant, xs: Sequence[Layout], y: Layout, cpu: Cpu
    ) -> tirx.PrimFunc:
        rows, _ = cpu.tile(self.tiles)
        return gemm.emit(name, self.strategy, spec, variant, xs[0], y, cpu, (rows, self.columns))


@dataclass(frozen=True)
class Depthwise:
    strategy: depthwise.Strategy

    @property
    def share(self) -> int:
        return self.strategy.block

    def prepare(self, spec: s.QDepthwiseConv2D, arrays: s.Arrays) -> tuple[depthwise.Taps, Constants]:
        return depthwise.pack(self.strategy, spec, arrays)

    def scratch(self, variant: depthwise.Taps, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        return ()

    def emit(
        self,
        name: str,
        spec: s.QDepthwiseConv2D,
        variant: depthwise.Taps,
        xs: Sequence[Layout],
        y: Layout,
        cpu: Cpu,
    ) -> tirx.PrimFunc:
        return depthwise.emit(name, self.strategy, spec, variant, xs[0], y, cpu)


@dataclass(frozen=True)
class DepthwiseDot:
    share: int = depthwise_dot.BLOCK

    def prepare(self, spec: s.QDepthwiseConv2D, arrays: s.Arrays) -> tuple[depthwise_dot.Plan, Constants]:
        return depthwise_dot.pack(spec, arrays)

    def scratch(self, variant: depthwise_dot.Plan, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        return ()

    def emit(
        self,
        name: str,
        spec: s.QDepthwiseConv2D,
        variant: depthwise_dot.Plan,
        xs: Sequence[Layout],
        y: Layout,
        cpu: Cpu,
    ) -> tirx.PrimFunc:
        return depthwise_dot.emit(name, spec, variant, xs[0], y)


Code = Callable[[str, Any, Sequence[Layout], Layout, Cpu], tirx.PrimFunc]


@dataclass(frozen=True)
class Plain:
    """A kernel whose code does not depend on values; its constants are named arrays, unpacked."""

    code: Code
    arrays: tuple[str, ...] = ()
    room: Callable[[Layout], tuple[int, ...]] = lambda y: ()  # bytes of scratch
    share: int = 0

    def prepare(self, spec: Any, arrays: s.Arrays) -> tuple[None, Constants]:
        return None, tuple(np.asarray(arrays[name]) for name in self.arrays)

    def scratch(self, variant: None, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        return self.room(y)

    def emit(
        self, name: str, spec: Any, variant: None, xs: Sequence[Layout], y: Layout, cpu: Cpu
    ) -> tirx.PrimFunc:
        return self.code(name, spec, xs, y, cpu)
