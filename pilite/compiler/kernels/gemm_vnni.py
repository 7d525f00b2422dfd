"""AVX-512 VNNI strategy of q_conv2d."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import INT8_MAX, INT8_MIN, Requant
from pilite.compiler.kernels.emit import (
    anew,
    assign,
    load,
    loop,
    powers,
    registers,
    shuffle,
    store,
    whole,
)
from pilite.compiler.kernels.gemm import VECTOR, Strategy, Tile, Variant
from pilite.compiler.kernels.geometry import Geometry
from pilite.compiler.kernels.isa_avx512 import Zmm
from pilite.compiler.kernels.packing import Int

LANES = 16
SHORT = 64  # elements of a row whose sum costs more than a copy: one product, three steps of a tree


class DotUnsigned(Strategy):
    """vpdpbusd: sums of four unsigned x signed products. The weights are the unsigned side.

    Moved by the variant's offset, the weights of every 8-bit model lie in [0, 255]: zero points outside int8
    cost nothing, and activations stay int8. What the move adds, offset * (sum of x), is known per row. These
    sums cost more than a copy of x where windows have several lines or rows are short: weights that fit stay
    int8 there, and the kernel reads a copy that is moved.

    acc[i][v]  int32x16: row i, sixteen columns; starts at the bias
    registers  MR x NV accumulators + NV weights + 1 x
    weights    uint8 (int8 where x is moved) [block][run][quad][vector][16 columns][4]
    """

    isa = Zmm()
    granule: ClassVar[int] = 4
    weight_dtype = "uint8"

    def variant(self, runs: Int) -> Variant:
        low, high = int(runs.min(initial=0)), int(runs.max(initial=0))
        assert high - low <= 255, f"8-bit weights span more than 256 values: {low}..{high}"
        several_or_short = runs.shape[1] > 1 or runs.shape[2] <= SHORT
        if low >= INT8_MIN and high <= INT8_MAX and several_or_short:
            return Variant(moved=128)
        return Variant(low)

    def order(self, nr: int) -> Sequence[int]:
        return self.isa.order(nr // LANES)

    def anew(self, offset: Any) -> Any:
        return anew(offset)

    def scaled(self, rows: Sequence[Sequence[Any]], scale: Callable[[int, Any], Any]) -> list[list[Any]]:
        """A vector of all rows after the other: its constants are in registers once."""
        held = [[registers(LANES, "int32") for _ in row] for row in rows]
        for j in range(len(rows[0])):
            for to, row in zip(held, rows, strict=True):
                assign(to[j], scale(j, row[j]), LANES)
        return [[whole(v, LANES) for v in row] for row in held]

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        return blocks.reshape(nb, nr, runs, length // 4, 4).transpose(0, 2, 3, 1, 4)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        length = self.padded(tile.runs.length)
        acc = [[registers(LANES, "int32") for _ in range(tile.nr // LANES)] for _ in tile.rows]
        for i, row in enumerate(acc):
            for v, a in enumerate(row):
                assign(a, tile.initial(i, v), LANES)
        begin = T.Cast("int64", anew(0))
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            with T.serial(0, anew(length // 4)) as quad:
                self._quad(tile, acc, begin + offset + quad * 4, base + quad * (4 * tile.nr))
        return [[whole(a, LANES) for a in row] for row in acc]

    def _quad(self, tile: Tile, acc: list[list[Any]], offset: Any, w_offset: Any) -> None:
        """One K step. Addresses have 64 bits: LLVM makes those of 32 anew, two instructions a product."""
        w = [load(tile.w, w_offset + v * 64, 64) for v in range(tile.nr // LANES)]
        for row, start in zip(acc, tile.rows, strict=True):
            word = T.reinterpret("int32", load(tile.x, T.Cast("int64", start) + offset, 4))
            x = T.reinterpret("int8x64", T.broadcast(word, LANES))
            for a, weights in zip(row, w, strict=True):
                operands = (x, weights) if tile.variant.moved else (weights, x)
                assign(a, self.isa.dot(whole(a, LANES), *operands), LANES)

    def move(self, x: Any, moved: Any, size: int, *, parallel: bool) -> None:
        """x + 128 as unsigned bytes, by the threads that read them: those of another core cost more."""
        with loop(size // VECTOR, parallel=parallel) as i:
            halves = T.reinterpret("int8x64", self.isa.halves())
            store(moved, i * VECTOR, load(x, i * VECTOR, VECTOR) ^ halves, VECTOR)

    def row_sums(self, geo: Geometry, x: Any, sums: Any, factor: int) -> None:
        """Those of 16 pixels at once: their partial sums go through a tree of additions."""
        tiles = replace(geo, mr=LANES)
        with tiles.walk(parallel=geo.parallel) as position:
            strip, start = tiles.first(position)
            acc = [registers(LANES, "int32") for _ in range(tiles.tile)]
            for a in acc:
                assign(a, self.isa.fill(0), LANES)
            with tiles.runs.walk() as (offset, _):
                self._sum_run(acc, x, [row + offset for row in tiles.offsets(position, tiles.source)], tiles)
            total = registers(LANES, "int32")
            assign(total, self.isa.across([whole(a, LANES) for a in acc]) * self.isa.fill(factor), LANES)
            for first, count in powers(tiles.tile):
                lanes = shuffle([whole(total, LANES)], range(first, first + count))
                store(sums, strip * tiles.strip + start + first, lanes, count)

    def _sum_run(self, acc: Sequence[Any], x: Any, starts: Sequence[Any], geo: Geometry) -> None:
        """64 elements at a time times one; behind the end, times zero."""
        vectors, rest = divmod(geo.runs.length, VECTOR)

        def add(at: Any, ones: Any) -> None:
            for a, start in zip(acc, starts, strict=True):
                assign(a, self.isa.dot(whole(a, LANES), ones, load(x, start + at, VECTOR)), LANES)

        if vectors:
            with loop(vectors) as k:
                add(k * VECTOR, self.isa.ones(VECTOR))
        if rest:
            add(vectors * VECTOR, self.isa.ones(rest))

    def narrow(self, rows: Sequence[Sequence[Any]], requant: Requant) -> list[list[tuple[Any, int, int]]]:
        """Four vectors at a time, of one, two or four rows: see Vnni.narrow."""
        size = LANES * len(rows[0])
        together = VECTOR // size
        found = []
        for first in range(0, len(rows), together):
            group = rows[first : first + together]
            padded = [*group, *[group[-1]] * (together - len(group))]
            vectors = [v for row in padded for v in row]
            packed = self.isa.narrow(vectors, requant.zero_point, requant.clamp_min, requant.clamp_max)
            words = self.isa.words(packed, len(rows[0]))
            for i in range(len(group)):
                row = shuffle([words], range(i * size // 4, (i + 1) * size // 4))
                found.append([(T.reinterpret(f"int8x{size}", row), size, 0)])
        return found
