"""Which pixels of a convolution make a register tile, where their rows of A begin and where results go.

A row of A is the window of one output pixel: *runs* of contiguous bytes of the padded image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from tvm import tirx

from pilite.compiler.kernels.emit import HIDDEN, Share, is_worth_a_barrier, loop, minimum, share, split
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QConv2D

ADDRESS_COST = (
    1.04  # work of a tile whose pixels lie on two lines, to that of one on a line: about MR compares
)
Position: TypeAlias = tuple[Any, Any]  # of a tile: its strip, and its number there


@dataclass(frozen=True)
class Runs:
    """The contiguous pieces of one row of A: loops (count, step in elements), and the length of a piece."""

    loops: tuple[tuple[int, int], ...]
    length: int

    @property
    def count(self) -> int:
        return prod(extent for extent, _ in self.loops)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where every run begins, from the first one."""
        (n0, step0), (n1, step1) = (*self.loops, (1, 0))[:2]
        return tuple(i * step0 + j * step1 for i in range(n0) for j in range(n1))

    @contextmanager
    def walk(self) -> Iterator[tuple[Any, Any]]:
        """Loop over the runs; yields (offset in A, index of the run)."""
        (n0, step0), (n1, step1) = (*self.loops, (1, 0))[:2]
        with loop(n0) as i, loop(n1) as j:
            yield i * step0 + j * step1, i * n1 + j


@dataclass(frozen=True)
class Grid:
    """Where the pixels of an image lie: at start + image * images + line * lines + column * pixels."""

    start: int
    images: int
    lines: int
    pixels: int

    def at(self, image: Any, line: Any, column: Any) -> Any:
        return self.start + image * self.images + line * self.lines + column * self.pixels


@dataclass(frozen=True)
class Geometry:
    """Tiles of at most `mr` output pixels, none across two strips.

    A strip is one line of an image where the lines fill their tiles; else a whole image, whose lines
    continue in each other, so that only one tile of an image overlaps its neighbour.
    """

    images: int
    lines: int
    width: int
    mr: int
    runs: Runs
    source: Grid
    target: Grid
    channels: int

    @property
    def pixels(self) -> int:
        return self.images * self.lines * self.width

    @property
    def whole_images(self) -> bool:
        """Whether strips are images: fewer tiles save more than addresses across lines cost."""
        across, within = -(-self.lines * self.width // self.mr), self.lines * -(-self.width // self.mr)
        return across * ADDRESS_COST <= within

    @property
    def strip(self) -> int:
        """Pixels of a strip."""
        return self.lines * self.width if self.whole_images else self.width

    @property
    def tile(self) -> int:
        """Pixels of a tile."""
        return min(self.mr, self.strip)

    @property
    def tiles(self) -> int:
        """Tiles of all strips."""
        return self.pixels // self.strip * -(-self.strip // self.tile)

    @property
    def parallel(self) -> bool:
        """Whether the work is worth a barrier."""
        return is_worth_a_barrier(self.pixels * self.channels * self.runs.count * self.runs.length)

    @contextmanager
    def walk(self, *, parallel: bool = False, nested: bool = True, wide: bool = False) -> Iterator[Position]:
        """Loop over the tiles: one that threads can share; for rows one in another, which divides less.

        For rows that are not `nested`, LLVM makes of a tile what it makes where threads share the loop.
        `wide`: positions in rows are int64. An int32 may wrap: LLVM extends each sum before it is an address.
        """
        if share() is not Share.ROWS or not nested:
            with loop(self.tiles, parallel=parallel, start=HIDDEN) as tile:
                yield self.position(tile)
            return
        strips, tiles = self._extents
        with loop(strips) as strip, loop(tiles, parallel=parallel) as t:
            yield (tirx.Cast("int64", strip), tirx.Cast("int64", t)) if wide else (strip, t)

    @property
    def _extents(self) -> tuple[int, int]:
        """Strips, and tiles of each."""
        return self.pixels // self.strip, -(-self.strip // self.tile)

    def position(self, tile: Any) -> Position:
        """That of a tile of all strips."""
        strip, t = split(tile, self._extents)
        return strip, t

    def first(self, position: Position) -> tuple[Any, Any]:
        """(strip, first pixel in it) of a tile; the last tile of a strip is moved back to stay inside."""
        strip, t = position
        start = t * self.tile
        return strip, start if self.strip % self.tile == 0 else minimum(start, self.strip - self.tile)

    def offsets(self, position: Position, grid: Grid) -> tuple[Any, ...]:
        """Where each pixel of a tile lies."""
        strip, start = self.first(position)
        if not self.whole_images:
            image, line = split(strip, (self.images, self.lines))
            base = grid.at(image, line, start)
            return tuple(base + i * grid.pixels for i in range(self.tile))
        line, column = split(start, (self.lines, self.width))
        base = grid.at(strip, line, column)
        gap = grid.lines - self.width * grid.pixels  # from behind a line to the next
        wraps = [self._wraps(column, i) * gap if gap else 0 for i in range(self.tile)]
        return tuple(base + i * grid.pixels + wraps[i] for i in range(self.tile))

    def _wraps(self, column: Any, i: int) -> Any:
        """Ends of lines between `column` and the i-th pixel after it."""
        if isinstance(column, int):
            return (column + i) // self.width
        if i > self.width:
            return tirx.floordiv(column + i, self.width)
        return tirx.Cast("int32", column >= self.width - i) if i else 0


def geometry(spec: QConv2D, x: Layout, y: Layout, mr: int) -> Geometry:
    """Tiles of `mr` pixels over `y`; a 1x1 convolution between borderless values is one long line."""
    x, y = x.nhwc, y.nhwc
    (kh, kw), (sh, sw), (dh, dw) = spec.window.kernel, spec.window.stride, spec.window.dilation
    image, row, pixel, _ = x.strides
    n, oh, ow, oc = y.shape
    if (kh, kw, sh, sw) == (1, 1, 1, 1) and not x.halo and not y.halo:
        n, oh, ow = 1, 1, n * oh * ow
    origin = x.start - spec.window.before[0] * row - spec.window.before[1] * pixel
    adjacent = dw == 1 or kw == 1
    loops = ((kh, dh * row),) if adjacent else ((kh, dh * row), (kw, dw * pixel))
    return Geometry(
        n,
        oh,
        ow,
        mr,
        Runs(loops, x.shape[3] * (kw if adjacent else 1)),
        Grid(origin, image, sh * row, sw * pixel),
        Grid(y.start, *y.strides[:3]),
        oc,
    )
