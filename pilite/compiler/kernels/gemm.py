"""q_conv2d: convolution, bias, requantization, clamp and store in one loop nest, accumulators in registers.

A convolution is a matrix product whose rows of A are gathered from the padded image as *runs* of contiguous
bytes: one run per kernel row (kw * c bytes), or one per tap when the width is dilated. There is no im2col
buffer. A run whose length is no multiple of the K granule is read beyond its end; the weights there are zero.

    rows     output pixels, MR at a time (geometry.py); the last tile overlaps its neighbour
    columns  output channels, NR at a time; the last block is padded with zero weights and stored partly
    K        runs x granules

What differs between instruction sets is a `Strategy`: multiply primitive, weight order, how sums reach
channel lanes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.cpu import Cpu
from pilite.compiler.fixedpoint import Requant
from pilite.compiler.kernels.emit import (
    Param,
    Share,
    assign,
    blocks_loop,
    blocks_param,
    divides_well,
    function,
    load,
    loop,
    registers,
    share,
    split,
    store,
    store_first,
    whole,
)
from pilite.compiler.kernels.geometry import Geometry, Position, Runs, geometry
from pilite.compiler.kernels.isa import Isa, call
from pilite.compiler.kernels.packing import Int, channel_constants, channel_order, channel_params, pick
from pilite.compiler.layout import Layout
from pilite.compiler.requantize import requantize
from pilite.compiler.spec import Arrays, QConv2D

VECTOR = 64  # bytes of the widest vector


@dataclass(frozen=True)
class Variant:
    """What the weight values decided."""

    offset: int = 0  # subtracted from every weight; the kernel adds offset * (sum of x under the window)
    chain: int = 2  # products added in int16 before widening
    chains: tuple[int, ...] = ()  # the same where it differs along K: one chain after the other
    moved: int = 0  # added to every x in a copy that becomes unsigned; the bias takes it back


@dataclass(frozen=True)
class Tile:
    """Operands of one register tile, as expressions."""

    x: Any
    w: Any
    rows: tuple[Any, ...]  # offset in x of each row's first run
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

    def nests(self, variant: Variant) -> bool:
        """Whether a tile gains where the tiles of rows are a loop in a loop over lines."""
        return True

    def is_wide(self, variant: Variant) -> bool:
        """Whether a tile of rows gains from positions of 64 bits: see Geometry.walk."""
        return False

    def anew(self, offset: Any) -> Any:
        """`offset`, where the constants of a tile begin: see emit.anew."""
        return offset

    def scaled(self, rows: Sequence[Sequence[Any]], scale: Callable[[int, Any], Any]) -> list[list[Any]]:
        """scale(vector, sums) of all sums, by row."""
        return [[scale(j, sums) for j, sums in enumerate(row)] for row in rows]

    def bias(self, buffer: Any, offset: Any) -> Any:
        """The vector that a sum starts from."""
        return load(buffer, offset, self.isa.lanes)

    def sum16(self, acc: Any, x: Any) -> Any:
        """acc + an int8x16, any split over the lanes. Only strategies with weight offsets need it."""
        raise NotImplementedError

    def sum_run(self, acc: Any, total: Any, x: Any, base: Any, length: int) -> None:
        """acc or total += the `length` elements of x from `base`, and nothing behind them."""
        lanes = self.isa.lanes
        vectors, rest = divmod(length, 16)
        if vectors:
            with loop(vectors) as k:
                assign(acc, self.sum16(whole(acc, lanes), load(x, base + k * 16, 16)), lanes)
        if rest >= 8:
            for part in self.isa.widen8(load(x, base + vectors * 16, 8)):
                assign(acc, whole(acc, lanes) + part, lanes)
        for k in range(rest // 8 * 8, rest):
            T.buffer_store(total, total[0] + T.Cast("int32", x[base + vectors * 16 + k]), [0])

    def row_sums(self, geo: Geometry, x: Any, sums: Any, factor: int) -> None:
        """sums[pixel] = factor * the sum of x under the window. Exact bytes only:
        no zero weight hides what follows them.
        """
        lanes = self.isa.lanes
        lines = geo.images * geo.lines
        with loop(lines, parallel=geo.parallel) as r, loop(geo.width) as column:
            image, line = split(r, (geo.images, geo.lines))
            acc, total = registers(lanes, "int32"), T.alloc_buffer((1,), "int32")
            assign(acc, self.isa.fill(0), lanes)
            T.buffer_store(total, T.int32(0), [0])
            with geo.runs.walk() as (offset, _):
                self.sum_run(acc, total, x, geo.source.at(image, line, column) + offset, geo.runs.length)
            across = call("int32", f"llvm.vector.reduce.add.v{lanes}i32", whole(acc, lanes))
            store(sums, r * geo.width + column, (across + total[0]) * T.int32(factor), 1)

    def move(self, x: Any, moved: Any, size: int, *, parallel: bool) -> None:
        """moved = `size` elements of x, each as its variant says. Only strategies that ask for it need it."""
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
    if variant.moved:
        sums = runs.sum((1, 2), np.int32)
        arrays = {**arrays, "bias": np.asarray(arrays["bias"], np.int32) - np.int32(variant.moved) * sums}
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
    """The kernel. Parameters: x, weights, bias, requantization operands, [row sums or moved x,] y."""
    geo = geometry(spec, x, y, tile[0])
    nr = tile[1]
    columns = -(-geo.channels // nr) * nr
    block = geo.runs.count * strategy.padded(geo.runs.length) * nr
    params = [
        Param("x", "int8", x.size),
        Param("w", strategy.weight_dtype, block * (columns // nr)),
        *channel_params(spec.requant, columns),
        *([Param("sums", "int32", geo.pixels)] if variant.offset else []),
        *([Param("moved", "int8", _moved_bytes(x))] if variant.moved else []),
        Param("y", "int8", y.size),
        *blocks_param(),
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
            strategy.row_sums(geo, code.buffers["x"], code.buffers["sums"], variant.offset)
        if variant.moved:
            strategy.move(code.buffers["x"], code.buffers["moved"], _moved_bytes(x), parallel=geo.parallel)
        code.columns_outside() if _columns_outside(
            geo, block * (columns // nr), nr, cpu
        ) else code.rows_outside()

    return function(name, params, body)


def scratch(variant: Variant, x: Layout, y: Layout) -> tuple[int, ...]:
    """Bytes of the scratch parameters: int32 row sums by pixel where weights are offset, or x where moved."""
    if variant.moved:
        return (_moved_bytes(x),)
    pixels = y.elements // y.shape[-1]
    return (4 * pixels,) if variant.offset else ()


def _moved_bytes(x: Layout) -> int:
    """Of a copy of x, in whole vectors. Behind it may be read what may be behind x."""
    return (x.size // VECTOR + 1) * VECTOR


def _columns_outside(geo: Geometry, weights: int, nr: int, cpu: Cpu) -> bool:
    """Whether re-reading A for every column block costs less than re-reading W for every tile of rows."""
    activations = geo.pixels * geo.runs.count * geo.runs.length
    blocks = -(-geo.channels // nr)
    budget = cpu.l1_bytes // 2
    reread_w = weights * geo.tiles if weights > budget else 0
    reread_x = activations * blocks if activations > budget else 0
    return reread_x < reread_w


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
        with self._tiles() as p:
            if self.full:
                with blocks_loop(self.full, self.buffers) as b:
                    self.tile(p, b, self.nr)
            if self.rest:
                self.tile(p, self.full, self.rest)

    def columns_outside(self) -> None:
        """Each block of columns meets all rows: W is read once."""
        if self.full:
            with self._blocks_of_tiles() as (b, p):
                self.tile(p, b, self.nr)
        if self.rest:
            with self._tiles() as p:
                self.tile(p, self.full, self.rest)

    @contextmanager
    def _blocks_of_tiles(self) -> Iterator[tuple[Any, Position]]:
        """The tiles of a block, then of the next. Threads share blocks; their tiles where blocks are few."""
        if share() is Share.WHOLE and self.geo.parallel and not divides_well(self.full):
            with loop(self.full * self.geo.tiles, parallel=True) as i:
                block, tile = split(i, (self.full, self.geo.tiles))
                yield block, self.geo.position(tile)
            return
        blocks = blocks_loop(self.full, self.buffers, parallel=self.geo.parallel)
        with blocks as b, self.geo.walk() as p:
            yield b, p

    def _tiles(self) -> AbstractContextManager[Position]:
        """The tiles of rows, which threads share."""
        nested, wide = (of(self.variant) for of in (self.strategy.nests, self.strategy.is_wide))
        return self.geo.walk(parallel=self.geo.parallel, nested=nested, wide=wide)

    def tile(self, position: Any, block: Any, count: int) -> None:
        """One register tile: multiply, requantize, store `count` channels of every row."""
        geo, strategy = self.geo, self.strategy
        strip, start = geo.first(position)
        pixel = strip * geo.strip + start
        block = strategy.anew(block)
        finished = strategy.multiply(
            Tile(
                self.buffers["moved" if self.variant.moved else "x"],
                self.buffers["w"],
                geo.offsets(position, geo.source),
                block * self.block,
                self.nr,
                geo.runs,
                lambda i, j: self._initial(block, pixel + i, j),
                self.variant,
            )
        )
        q = strategy.scaled(finished, lambda j, acc: self._requantize(block, j, acc))
        rows = zip(geo.offsets(position, geo.target), strategy.narrow(q, self.requant), strict=True)
        for offset, pieces in rows:
            y = offset + block * self.nr
            for vector, lanes, first in pieces:
                store_first(self.buffers["y"], y + first, vector, lanes, count - first)

    def _vector(self, name: str, block: Any, j: int) -> Any:
        lanes = self.strategy.isa.lanes
        return load(self.buffers[name], block * self.nr + j * lanes, lanes)

    def _initial(self, block: Any, pixel: Any, j: int) -> Any:
        if not self.variant.offset:
            return self.strategy.bias(self.buffers["bias"], block * self.nr + j * self.strategy.isa.lanes)
        bias = self._vector("bias", block, j)
        return bias + T.broadcast(self.buffers["sums"][pixel], self.strategy.isa.lanes)

    def _requantize(self, block: Any, j: int, acc: Any) -> Any:
        isa = self.strategy.isa
        return requantize(
            isa, acc, self.requant, lambda name: self._vector(name, block, j), shifted=not isa.narrow_shifts
        )
