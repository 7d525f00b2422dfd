"""AVX-512 VNNI strategy of q_conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import INT8_MAX, INT8_MIN, Requant
from pilite.compiler.kernels.emit import IMPORT, assign, load, loop, registers, whole
from pilite.compiler.kernels.gemm import Strategy, Tile, Variant
from pilite.compiler.kernels.isa_avx512 import Zmm
from pilite.compiler.kernels.packing import Int

LANES = 16
FEW = 4096  # products of a pixel: 64 cycles of a Zen 4, of which a row sum would be a tenth

_HALVES = """define linkonce_odr <16 x i32> @pilite_halves(i32 %n) alwaysinline nounwind {
  %one = insertelement <16 x i32> poison, i32 %n, i32 0
  %all = shufflevector <16 x i32> %one, <16 x i32> poison, <16 x i32> zeroinitializer
  %v = call <16 x i32> asm "", "=v,0"(<16 x i32> %all)
  ret <16 x i32> %v
}
"""


def moved_halves() -> Any:
    """Registers with 128 in every byte: x ^ 128 is x + 128 as an unsigned byte.

    LLVM does not see what they hold; else it moves x before it is broadcast, which is another instruction.
    """
    halves = registers(LANES, "int32")
    with T.attr(T.int32(0), IMPORT, _HALVES):
        assign(halves, T.call_extern(f"int32x{LANES}", "pilite_halves", T.int32(-0x7F7F7F80)), LANES)
    return halves


class DotUnsigned(Strategy):
    """vpdpbusd: sums of four unsigned x signed products. The weights are the unsigned side.

    Moved by the variant's offset, the weights of every 8-bit model lie in [0, 255]: zero points outside int8
    cost nothing, and activations stay int8. What the move adds, offset * (sum of x), is known per row. Where
    these sums are much of the work, weights that fit stay int8, and x is moved in registers, one XOR a word.

    acc[i][v]  int32x16: row i, sixteen columns; starts at the bias
    registers  MR x NV accumulators + NV weights + 1 x [+ 1 that moves x]
    weights    uint8 (int8 where x is moved) [block][run][quad][vector][16 columns][4]
    """

    isa = Zmm()
    granule: ClassVar[int] = 4
    weight_dtype = "uint8"

    def variant(self, runs: Int) -> Variant:
        low, high = int(runs.min(initial=0)), int(runs.max(initial=0))
        assert high - low <= 255, f"8-bit weights span more than 256 values: {low}..{high}"
        if low >= INT8_MIN and high <= INT8_MAX and runs[0].size * runs.shape[0] <= FEW:
            return Variant(moved=128)
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
        halves = moved_halves() if tile.variant.moved else None
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            with loop(length // 4) as quad:
                self._quad(tile, acc, halves, offset + quad * 4, base + quad * (4 * tile.nr))
        return [[whole(a, LANES) for a in row] for row in acc]

    def _quad(self, tile: Tile, acc: list[list[Any]], halves: Any, offset: Any, w_offset: Any) -> None:
        """One K step. Addresses have 64 bits: LLVM makes those of 32 anew, two instructions a product."""
        w = [load(tile.w, w_offset + v * 64, 64) for v in range(tile.nr // LANES)]
        offset = T.Cast("int64", offset)
        for row, start in zip(acc, tile.rows, strict=True):
            word = T.reinterpret("int32", load(tile.x, T.Cast("int64", start) + offset, 4))
            x = T.broadcast(word, LANES)
            if halves is not None:
                x = x ^ whole(halves, LANES)
            x = T.reinterpret("int8x64", x)
            for a, weights in zip(row, w, strict=True):
                operands = (weights, x) if halves is None else (x, weights)
                assign(a, self.isa.dot(whole(a, LANES), *operands), LANES)

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
