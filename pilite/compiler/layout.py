"""Where the elements of a value lie: row-major, with an optional border (halo) around height and width.

A convolution reads its padding from the halo instead of testing bounds. The planner gives a value the
largest halo that any consumer asks for; its producer writes the interior, a fill stage writes the border.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod


@dataclass(frozen=True)
class Halo:
    """Border rows and columns of an NHWC value."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def __or__(self, other: Halo) -> Halo:
        """The smallest halo that holds both."""
        return Halo(
            max(self.top, other.top),
            max(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def __bool__(self) -> bool:
        return self != Halo()


NO_HALO = Halo()


@dataclass(frozen=True)
class Layout:
    """Shape, halo and element type of one buffer. Offsets and strides are in elements."""

    shape: tuple[int, ...]
    dtype: str = "int8"
    halo: Halo = NO_HALO

    @cached_property
    def outer(self) -> tuple[int, ...]:
        """The shape with the halo."""
        if not self.halo:
            return self.shape
        n, h, w, c = self.shape
        return (n, h + self.halo.top + self.halo.bottom, w + self.halo.left + self.halo.right, c)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        return tuple(prod(self.outer[i + 1 :]) for i in range(len(self.shape)))

    @cached_property
    def start(self) -> int:
        """Offset of the first interior element."""
        if not self.halo:
            return 0
        _, row, pixel, _ = self.strides
        return self.halo.top * row + self.halo.left * pixel

    @property
    def size(self) -> int:
        """Elements of the buffer, halo included."""
        return prod(self.outer)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nhwc(self) -> Layout:
        """The same buffer seen with four dimensions; leading ones are added, leading dimensions merged."""
        if len(self.shape) == 4:
            return self
        padded = (1,) * (4 - len(self.shape)) + self.shape
        return Layout((prod(padded[:-3]), *padded[-3:]), self.dtype)
