"""AVX-512 VNNI strategy of q_conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import Requant
from pilite.compiler.kernels.emit import assign, load, loop, registers, whole
from pilite.compiler.kernels.gemm import Strategy, Tile, Variant
from pilite.compiler.kernels.isa_avx512 import Zmm
from pilite.compiler.kernels.packing import Int

LANES = 16


class DotUnsigned(Strategy):
    """vpdpbusd: sums of four unsigned x signed products. The weights are the unsigned side.

    Moved by the variant's offset, the weights of every 8-bit model lie in [0, 255]: zero points outside int8
    cost nothing, and activations stay int8. What the move adds, offset * (sum of x), is known per row.

    acc[i][v]  int32x16: row i, sixteen columns; starts at the bias
    registers  MR x NV accumulators + NV weights + 1 x
    weights    uint8 [block][run][quad][vector][16 columns][4]
    """

    isa = Zmm()
    granule: ClassVar[int] = 4
    weight_dtype = "uint8"

    def variant(self, runs: Int) -> Variant:
        low, high = int(runs.min(initial=0)), int(runs.max(initial=0))
        assert high - low <= 255, f"8-bit weights span more than 256 values: {low}..{high}"
        return Variant(low)

    def order(self, nr: int) -> Sequence[int]:
        return self.isa.order(nr // LANES)

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        return blocks.reshape(nb, nr, runs, length // 4, 4).transpose(0, 2, 3, 1, 4)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        length = self.padded(tile.runs.length)
        acc = [[registers(LANES, "int32") for _ in range(tile.nr // LANES)] for _ in tile.rows]
        for i, row in enumerate(acc):
            for v, a in enumerate(row):
                assign(a, tile.initial(i, v), LANES)
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            with loop(length // 4) as quad:
                self._quad(tile, acc, offset + quad * 4, base + quad * (4 * tile.nr))
        return [[whole(a, LANES) for a in row] for row in acc]

    def _quad(self, tile: Tile, acc: list[list[Any]], offset: Any, w_offset: Any) -> None:
        w = [load(tile.w, w_offset + v * 64, 64) for v in range(tile.nr // LANES)]
        for row, start in zip(acc, tile.rows, strict=True):
            word = T.reinterpret("int32", load(tile.x, start + offset, 4))
            x = T.reinterpret("int8x64", T.broadcast(word, LANES))
            for a, weights in zip(row, w, strict=True):
                assign(a, self.isa.dot(whole(a, LANES), weights, x), LANES)

    def sum_run(self, acc: Any, total: Any, x: Any, base: Any, length: int) -> None:
        """64 elements at a time times one; behind the end, times zero."""
        whole_vectors, rest = divmod(length, 64)

        def add(at: Any, ones: Any) -> None:
            assign(acc, self.isa.dot(whole(acc, LANES), ones, load(x, at, 64)), LANES)

        if whole_vectors:
            with loop(whole_vectors) as k:
                add(base + k * 64, self.isa.ones(64))
        if rest:
            add(base + whole_vectors * 64, self.isa.ones(rest))

    def narrow(self, rows: Sequence[Sequence[Any]], requant: Requant) -> list[list[tuple[Any, int, int]]]:
        zp, low, high = requant.zero_point, requant.clamp_min, requant.clamp_max
        return [[(self.isa.narrow(row, zp, low, high), LANES * len(row), 0)] for row in rows]
