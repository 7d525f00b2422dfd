"""AVX2 strategy of q_conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import Requant
from pilite.compiler.kernels.emit import assign, load, loop, registers, stack, store, whole
from pilite.compiler.kernels.gemm import Strategy, Tile, Variant
from pilite.compiler.kernels.isa import AVX2_ORDER, Avx2
from pilite.compiler.kernels.packing import Int

CHUNK = 96  # elements of K widened at a time: MR * CHUNK * 2 bytes must stay on the stack


class Madd(Strategy):
    """vpmaddwd on int16 pairs (x86-64-v3). Nine-bit weights fit, so weight zero points cost nothing.

    acc[i][v]  int32x8: row i, eight columns; starts at the bias
    chunk      MR rows of x widened to int16 on the stack, then one pair of K broadcast per row and step
    registers  4 x 2 accumulators + 2 w + 1 x
    weights    int16 [block][run][pair][vector][8 columns][2]
    """

    isa = Avx2()
    granule: ClassVar[int] = 4
    weight_dtype = "int16"

    def variant(self, runs: Int) -> Variant:
        return Variant()

    def order(self, nr: int) -> Sequence[int]:
        assert nr == len(AVX2_ORDER)
        return AVX2_ORDER

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        return blocks.reshape(nb, nr, runs, length // 2, 2).transpose(0, 2, 3, 1, 4)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        length = self.padded(tile.runs.length)
        acc = [[registers(8, "int32") for _ in range(tile.nr // 8)] for _ in tile.rows]
        for i, row in enumerate(acc):
            for v, a in enumerate(row):
                assign(a, tile.initial(i, v), 8)
        wide = stack(len(tile.rows) * CHUNK, "int16", 2)
        chunks, rest = divmod(length, CHUNK)
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            if chunks:
                with loop(chunks) as c:
                    self._chunk(tile, acc, wide, offset + c * CHUNK, base + c * (CHUNK * tile.nr), CHUNK)
            if rest:
                self._chunk(tile, acc, wide, offset + chunks * CHUNK, base + chunks * (CHUNK * tile.nr), rest)
        return [[whole(a, 8) for a in row] for row in acc]

    def _chunk(
        self, tile: Tile, acc: list[list[Any]], wide: Any, offset: Any, w_offset: Any, length: int
    ) -> None:
        """Widen `length` elements of every row, then multiply pair by pair."""
        for i, row in enumerate(tile.rows):
            sixteens, rest = divmod(length, 16)
            if sixteens:
                with loop(sixteens) as k:
                    store(
                        wide,
                        i * CHUNK + k * 16,
                        T.Cast("int16x16", load(tile.x, row + offset + k * 16, 16)),
                        16,
                    )
            for k in range(sixteens * 16, sixteens * 16 + rest, 4):
                store(wide, i * CHUNK + k, T.Cast("int16x4", load(tile.x, row + offset + k, 4)), 4)
        with loop(length // 2) as pair:
            self._pair(tile, acc, wide, pair, w_offset + pair * (2 * tile.nr))

    def _pair(self, tile: Tile, acc: list[list[Any]], wide: Any, pair: Any, w_offset: Any) -> None:
        w = [load(tile.w, w_offset + v * 16, 16) for v in range(tile.nr // 8)]
        for i in range(len(tile.rows)):
            word = T.reinterpret("int32", load(wide, i * CHUNK + pair * 2, 2))
            x = T.reinterpret("int16x16", T.broadcast(word, 8))
            for v, a in enumerate(acc[i]):
                assign(a, self.isa.madd(whole(a, 8), x, w[v]), 8)

    def narrow(self, rows: Sequence[Sequence[Any]], requant: Requant) -> list[list[tuple[Any, int, int]]]:
        zp, low, high = requant.zero_point, requant.clamp_min, requant.clamp_max
        return [[(self.isa.narrow16(row, zp, low, high), 16, 0)] for row in rows]
