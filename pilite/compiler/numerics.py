"""Whose rounding an artifact promises, and what that says about one operator.

    ref       BUILTIN_REF of tflite-runtime 2.14, whatever the machine
    xnnpack   ai-edge-litert's default on the artifact's core (for x86-64: on a Pi 4 and 5): XNNPACK where it
              takes an operator, else builtin kernels

An operator asks `sums(x)` for the rounding of its accumulators, or `Builder.delegated(node)` where XNNPACK
has another formula. Roundings are in fixedpoint.py, what XNNPACK takes is in delegation.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilite.compiler.fixedpoint import Nearest, Rounding, nearest_tflite, nearest_xnnpack
from pilite.compiler.graph import Tensor

NUMERICS = ("ref", "xnnpack")
FULLY_CONNECTED = {"q31": Rounding.GEMMLOWP, "f64": Rounding.FLOAT64}
DEPTHWISE_TAPS = 25  # of XNNPACK's largest depthwise kernel


@dataclass(frozen=True)
class Numerics:
    """How operators round where TFLite has more than one answer."""

    name: str = "ref"
    fully_connected: Rounding = Rounding.GEMMLOWP  # of `ref`
    uint8: Rounding = Rounding.RNDNU  # of matrices in `xnnpack`: some cores have other uint8 kernels
    every_sum: Rounding | None = None  # instead of what the name says: a family that explains or breaks

    @property
    def is_xnnpack(self) -> bool:
        return self.name == "xnnpack"

    @property
    def nearest(self) -> Nearest:
        """How the bounds of an activation fused with sums of products are quantized."""
        return nearest_xnnpack if self.is_xnnpack else nearest_tflite

    def sums(self, x: Tensor, *, by_depthwise_kernel: bool = False) -> Rounding:
        """Of convolutions, by the dtype of their input and by which kernels XNNPACK has for them."""
        if self.every_sum is not None:
            return self.every_sum
        if not self.is_xnnpack:
            return Rounding.GEMMLOWP
        if x.dtype != "uint8":
            return Rounding.FLOAT32
        return Rounding.RNDNU if by_depthwise_kernel else self.uint8

    def matrix(self, x: Tensor) -> Rounding:
        """Of FULLY_CONNECTED."""
        return self.sums(x) if self.is_xnnpack or self.every_sum else self.fully_connected


def by_depthwise_kernel(group: tuple[int, int], taps: int) -> bool:
    """Whether XNNPACK convolves by its depthwise kernels, not as matrices: they round alike on every core.

    group: input and output channels of one group. convolution-nhwc.c create_convolution2d_nhwc, which asks
    for no more than one group.
    """
    return group == (1, 1) and taps <= DEPTHWISE_TAPS


# The rounding families that ship under the name TFLite, by what `compare` calls them.
FAMILIES = {
    "gemmlowp": Numerics(every_sum=Rounding.GEMMLOWP),
    "ties-up": Numerics(every_sum=Rounding.TIES_UP),
    "single": Numerics(every_sum=Rounding.SINGLE),
    "float64": Numerics(every_sum=Rounding.FLOAT64),
    "xnnpack-fp32": Numerics("xnnpack", every_sum=Rounding.FLOAT32),
    "xnnpack-rndnu": Numerics("xnnpack", every_sum=Rounding.RNDNU),
    "xnnpack-rndnu16": Numerics("xnnpack", every_sum=Rounding.RNDNU16),
}
