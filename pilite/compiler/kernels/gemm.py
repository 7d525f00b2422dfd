"""q_conv2d: convolution, bias, requantization, clamp and store in one loop nest, accumulators in registers.

A convolution is a matrix product whose rows of A are gathered from the padded image as *runs* of contiguous
bytes: one run per kernel row (kw * c bytes), or one per tap when the width is dilated. There is no im2col
buffer. A run whose length is no multiple of the K granule is read beyond its end; the weights there are zero.

    rows     output pixels of one image row, MR at a time; the last tile overlaps its neighbour
    columns  output channels, NR at a time; the last block is padded with zero weights and stored partly
    K        runs x granules

What differs between instruction sets is a `Strategy`: multiply primitive, weight order, how sums reach
channel lanes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.cpu import Cpu
from pilite.compiler.fixedpoint import Requant, requantize
from pilite.compiler.kernels.emit import (
    PARALLEL_MACS,
    Param,
    assign,
    function,
    load,
    loop,
    minimum,
    registers,
    split,
    store,
    store_first,
    whole,
)
from pilite.compiler.kernels.isa import Isa, call
from pilite.compiler.kernels.packing import Int, channel_constants, channel_order, channel_params, pick
from pilite.compiler.layout import Layout
from pilite.compiler.spec import Arrays, QConv2D


@dataclass(frozen=True)
class Runs:
    """The contiguous pieces of one row of A: loops (count, step in elements), and the length of a piece."""

    loops: tuple[tuple[int, int], ...]
    length: int

    @property
    def count(self) -> int:
        n = 1
        for extent, _ in self.loops:
            n *= extent
        return n

    @contextmanager
    def walk(self) -> Iterator[tuple[Any, Any]]:
        """Loop over the runs; yields (offset in A, index of the run)."""
        (n0, step0), (n1, step1) = (*self.loops, (1, 0))[:2]
        with loop(n0) as i, loop(n1) as j:
            yield i * step0 + j * step1, i * n1 + j


@dataclass(frozen=True)
class Geometry:
    """Which pixels make a row of tiles, and where they lie. `width` pixels in each of `rows` rows."""

    rows: int
    width: int
    tile: int  # MR, at most the width
    runs: Runs
    row_in: Callable[[Any], Any]  # row index -> offset of the first run of its first pixel
    row_out: Callable[[Any], Any]
    pixel_in: int
    pixel_out: int
    channels: int

    @property
    def tiles(self) -> int:
        return -(-self.width // self.tile)

    @property
    def parallel(self) -> bool:
        """Whether the work is worth a barrier."""
        return self.rows * self.width * self.channels * self.runs.count * self.runs.length >= PARALLEL_MACS

    def column(self, tile: Any) -> Any:
        """First pixel of a tile; the last tile is moved back to stay inside the row."""
        start = tile * self.tile
        return start if self.width % self.tile == 0 else minimum(start, self.width - self.tile)


def geometry(spec: QConv2D, x: Layout, y: Layout, mr: int) -> Geometry:
    """Tiles of `mr` pixels over `y`; a 1x1 convolution between borderless values is one long row."""
    x, y = x.nhwc, y.nhwc
    (kh, kw), (sh, sw), (dh, dw) = spec.window.kernel, spec.window.stride, spec.window.dilation
    image, row, pixel, _ = x.strides
    n, oh, ow, oc = y.shape
    flat = (kh, kw, sh, sw) == (1, 1, 1, 1) and not x.halo and not y.halo
    rows, width = (1, n * oh * ow) if flat else (n * oh, ow)
    origin = x.start - spec.window.before[0] * row - spec.window.before[1] * pixel

    def row_in(r: Any) -> Any:
        batch, line = split(r, (n, oh))
        return origin + batch * image + line * (sh * row)

    def row_out(r: Any) -> Any:
        batch, line = split(r, (n, oh))
        return y.start + batch * y.strides[0] + line * y.strides[1]

    adjacent = dw == 1 or kw == 1
    loops = ((kh, dh * row),) if adjacent else ((kh, dh * row), (kw, dw * pixel))
    runs = Runs(loops, x.shape[3] * (kw if adjacent else 1))
    return Geometry(rows, width, min(mr, width), runs, row_in, row_out, sw * pixel, y.strides[2], oc)


@dataclass(frozen=True)
class Variant:
    """What the weight values decided."""

    offset: int = 0  # subtracted from every weight; the kernel adds offset * (sum of x under the window)
    chain: int = 2  # products added in int16 before widening


@dataclass(frozen=True)
class Tile:
    """Operands of one register tile, as expressions."""

    x: Any
    w: Any
    rows: tuple[Any, ...]  # offset in x of each row's first run
    row_step: int  # between two of them
    w_base: Any  # offset in w of the block
    nr: int
    runs: Runs
    initial: Callable[[int, int], Any]  # (row, vector) -> int32 vector to start from
    variant: Variant


class Strategy(ABC):
    """One way to multiply a tile."""

    granule: ClassVar[int]  # elements of A per K step; runs are padded to it
    weight_dtype: ClassVar[str]
    isa: Isa

    @abstractmethod
    def variant(self, runs: Int) -> Variant:
        """Decide from the true weights, (oc, runs, length)."""

    @abstractmethod
    def order(self, nr: int) -> Sequence[int]:
        """Channel in each packed column of a block; column = vector * lanes + lane once finished."""

    @abstractmethod
    def pack(self, blocks: Int) -> Int:
        """(blocks, nr, runs, padded length) -> weights in the order that `multiply` reads."""

    @abstractmethod
    def multiply(self, tile: Tile) -> list[list[Any]]:
        """Emit all K steps; the finished int32 vectors by row."""

    @abstractmethod
    def narrow(self, rows: Sequence[Sequence[Any]], requant: Requant) -> list[list[tuple[Any, int, int]]]:
        """Per row the (int8 vector, lanes, first lane) pieces that hold its channels in order."""

    def sum16(self, acc: Any, x: Any) -> Any:
        """acc + an int8x16, any split over the lanes. Only strategies with weight offsets need it."""
        raise NotImplementedError

    def padded(self, length: int) -> int:
        return -(-length // self.granule) * self.granule


# --- packing -------------------------------------------------------------------------------------------


def window_runs(spec: QConv2D, weight: Int) -> Int:
    """(oc, kh, kw, ic) -> (oc, runs, length), matching `geometry`."""
    oc, kh, kw, ic = weight.shape
    adjacent = spec.window.dilation[1] == 1 or kw == 1
    return weight.reshape(oc, kh, kw * ic) if adjacent else weight.reshape(oc, kh * kw, ic)


def pack(strategy: Strategy, spec: QConv2D, arrays: Arrays, nr: int) -> tuple[Variant, tuple[Int, ...]]:
    """Constants in parameter order: weights, bias, then the operands of the requantization."""
    runs = window_runs(spec, np.asarray(arrays["weight"], np.int32))
    variant = strategy.variant(runs)
    order = channel_order(strategy.order(nr), runs.shape[0])
    padded = np.zeros((*runs.shape[:2], strategy.padded(runs.shape[2])), np.int32)
    padded[:, :, : runs.shape[2]] = runs - variant.offset
    blocks = pick(padded, order).reshape(-1, nr, *padded.shape[1:])
    weights = np.ascontiguousarray(strategy.pack(blocks).astype(strategy.weight_dtype)).ravel()
    return variant, (weights, *channel_constants(strategy.isa, spec.requant, arrays, order))


# --- code ----------------------------------------------------------------------------------------------


def emit(
    name: str,
    strategy: Strategy,
    spec: QConv2D,
    variant: Variant,
    x: Layout,
    y: Layout,
    cpu: Cpu,
    tile: tuple[int, int],
) -> tirx.PrimFunc:
    """The kernel. Parameters: x, weights, bias, requantization operands, [row sums,] y."""
    geo = geometry(spec, x, y, tile[0])
    nr = tile[1]
    columns = -(-geo.channels // nr) * nr
    block = geo.runs.count * strategy.padded(geo.runs.length) * nr
    params = [
        Param("x", "int8", x.size),
        Param("w", strategy.weight_dtype, block * (columns // nr)),
        *channel_params(spec.requant, columns),
        *([Param("sums", "int32", geo.rows * geo.width)] if variant.offset else []),
        Param("y", "int8", y.size),
    ]

    def body(*buffers: Any) -> None:
        code = _Code(
            strategy,
            spec.requant,
            variant,
            geo,
            nr,
            block,
            dict(zip((p.name for p in params), buffers, strict=True)),
        )
        if variant.offset:
            row_sums(strategy, geo, code.buffers["x"], code.buffers["sums"])
        code.columns_outside() if _columns_outside(
            geo, block * (columns // nr), nr, cpu
        ) else code.rows_outside()

    return function(name, params, body)


def scratch(variant: Variant, y: Layout) -> tuple[int, ...]:
    """Bytes of the scratch parameters: one int32 row sum per output pixel when the weights are offset."""
    pixels = y.elements // y.shape[-1]
    return (4 * pixels,) if variant.offset else ()


def _columns_outside(geo: Geometry, weights: int, nr: int, cpu: Cpu) -> bool:
    """Whether re-reading A for every column block costs less than re-reading W for every tile of rows."""
    activations = geo.rows * geo.width * geo.runs.count * geo.runs.length
    tiles, blocks = geo.rows * geo.tiles, -(-geo.channels // nr)
    budget = cpu.l1_bytes // 2
    reread_w = weights * tiles if weights > budget else 0
    reread_x = activations * blocks if activations > budget else 0
    return reread_x < reread_w


def row_sums(strategy: Strategy, geo: Geometry, x: Any, sums: Any) -> None:
    """sums[pixel] = the sum of x under the window. Exact bytes only:
    no zero weight hides what follows them.
    """
    vectors, rest = divmod(geo.runs.length, 16)
    lanes = strategy.isa.lanes
    with loop(geo.rows, parallel=geo.parallel) as r, loop(geo.width) as column:
        acc, total = registers(lanes, "int32"), T.alloc_buffer((1,), "int32")
        assign(acc, strategy.isa.fill(0), lanes)
        T.buffer_store(total, T.int32(0), [0])
        with geo.runs.walk() as (offset, _):
            base = geo.row_in(r) + column * geo.pixel_in + offset
            if vectors:
                with loop(vectors) as k:
                    assign(acc, strategy.sum16(whole(acc, lanes), load(x, base + k * 16, 16)), lanes)
            if rest >= 8:
                for part in strategy.isa.widen8(load(x, base + vectors * 16, 8)):
                    assign(acc, whole(acc, lanes) + part, lanes)
            for k in range(rest // 8 * 8, rest):
                T.buffer_store(total, total[0] + T.Cast("int32", x[base + vectors * 16 + k]), [0])
        across = call("int32", f"llvm.vector.reduce.add.v{lanes}i32", whole(acc, lanes))
        store(sums, r * geo.width + column, across + total[0], 1)


@dataclass(frozen=True)
class _Code:
    """The loop nest around the register tile."""

    strategy: Strategy
    requant: Requant
    variant: Variant
    geo: Geometry
    nr: int
    block: int  # weights of one column block, in elements
    buffers: dict[str, Any]

    @property
    def full(self) -> int:
        return self.geo.channels // self.nr

    @property
    def rest(self) -> int:
        return self.geo.channels % self.nr

    def rows_outside(self) -> None:
        """Each tile of rows meets all columns: A stays in L1, W is streamed."""
        with loop(self.geo.rows * self.geo.tiles, parallel=self.geo.parallel) as p:
            if self.full:
                with loop(self.full) as b:
                    self.tile(p, b, self.nr)
            if self.rest:
                self.tile(p, self.full, self.rest)

    def columns_outside(self) -> None:
        """Each block of columns meets all rows: W is read once."""
        tiles = self.geo.rows * self.geo.tiles
        if self.full:
            with loop(self.full, parallel=self.geo.parallel) as b, loop(tiles) as p:
                self.tile(p, b, self.nr)
        if self.rest:
            with loop(tiles, parallel=self.geo.parallel) as p:
                self.tile(p, self.full, self.rest)

    def tile(self, position: Any, block: Any, count: int) -> None:
        """One register tile: multiply, requantize, store `count` channels of every row."""
        geo, strategy = self.geo, self.strategy
        r, t = split(position, (geo.rows, geo.tiles))
        column = geo.column(t)
        x_base = geo.row_in(r) + column * geo.pixel_in
        y_base = geo.row_out(r) + column * geo.pixel_out + block * self.nr
        finished = strategy.multiply(
            Tile(
                self.buffers["x"],
                self.buffers["w"],
                tuple(x_base + i * geo.pixel_in for i in range(geo.tile)),
                geo.pixel_in,
                block * self.block,
                self.nr,
                geo.runs,
                lambda i, j: self._initial(block, r * geo.width + column + i, j),
                self.variant,
            )
        )
        q = [[self._requantize(block, j, acc) for j, acc in enumerate(row)] for row in finished]
        for i, pieces in enumerate(strategy.narrow(q, self.requant)):
            for vector, lanes, first in pieces:
                store_first(
                    self.buffers["y"], y_base + i * geo.pixel_out + first, vector, lanes, count - first
                )

    def _vector(self, name: str, block: Any, j: int) -> Any:
        lanes = self.strategy.isa.lanes
        return load(self.buffers[name], block * self.nr + j * lanes, lanes)

    def _initial(self, block: Any, pixel: Any, j: int) -> Any:
        bias = self._vector("bias", block, j)
        if not self.variant.offset:
            return bias
        lanes = self.strategy.isa.lanes
        return bias + T.broadcast(self.buffers["sums"][pixel] * T.int32(self.variant.offset), lanes)

    def _requantize(self, block: Any, j: int, acc: Any) -> Any:
        return requantize(self.strategy.isa, acc, self.requant, lambda name: self._vector(name, block, j))
