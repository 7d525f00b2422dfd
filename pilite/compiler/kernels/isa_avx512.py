"""AVX-512 (F, BW, CD, DQ, VL) with VNNI: what x86-64-v4 adds to the ISA table, at three register widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.emit import IMPORT, assign, constant, registers, shuffle, whole
from pilite.compiler.kernels.isa import X86, call, clamp8

# Names of the saturating packs by int32 lanes: two vectors to one of half the element width, per 128 bits.
PACKS = {
    4: ("llvm.x86.sse2.packssdw.128", "llvm.x86.sse2.packsswb.128"),
    8: ("llvm.x86.avx2.packssdw", "llvm.x86.avx2.packsswb"),
    16: ("llvm.x86.avx512.packssdw.512", "llvm.x86.avx512.packsswb.512"),
}
NEAREST = {4: "llvm.x86.sse2.cvtps2dq", 8: "llvm.x86.avx.cvt.ps2dq.256"}


# Two vectors -> one whose lanes hold sums of two lanes of each: which ones, by level of a tree. Vectors
# are interleaved by single lanes, then by pairs, within 128 bits; then by whole 128 bits.
_TREE = tuple(
    tuple([side + i for i, side in lanes] for lanes in level)
    for level in (
        [[(4 * q + e + h, s) for q in range(4) for e in (0, 1) for s in (0, 16)] for h in (0, 2)],
        [[(4 * q + 2 * h + e, s) for q in range(4) for s in (0, 16) for e in (0, 1)] for h in (0, 1)],
        [[(8 * q + 4 * h + e, s) for s in (0, 16) for q in (0, 1) for e in range(4)] for h in (0, 1)],
        [[(8 * q + 4 * h + e, s) for s in (0, 16) for q in (0, 1) for e in range(4)] for h in (0, 1)],
    )
)

_HALVES = """define linkonce_odr <LANES x i32> @pilite_halvesLANES(i32 %n) alwaysinline nounwind {
  %one = insertelement <LANES x i32> poison, i32 %n, i32 0
  %all = shufflevector <LANES x i32> %one, <LANES x i32> poison, <LANES x i32> zeroinitializer
  %v = call <LANES x i32> asm "", "=v,0"(<LANES x i32> %all)
  ret <LANES x i32> %v
}
"""


class Vnni(X86):
    """One register width; `lanes` int32 values."""

    name = "avx512"

    @property
    def bytes_(self) -> int:
        return 4 * self.lanes

    def _to_nearest(self, x: Any) -> Any:
        return call(self.i32, NEAREST[self.lanes], x)

    def widen8(self, x: Any) -> list[Any]:
        raise NotImplementedError("kernels of eight elements use the AVX2 row of the table")

    def narrow8(self, q: Sequence[Any], zero_point: int, clamp_min: int, clamp_max: int) -> Any:
        raise NotImplementedError("kernels of eight elements use the AVX2 row of the table")

    def dot(self, acc: Any, unsigned: Any, signed: Any) -> Any:
        """acc[i] += the sum of four products uint8 x int8: vpdpbusd (does not saturate)."""
        return call(self.i32, f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}", acc, unsigned, signed)

    def halves(self) -> Any:
        """A register with 128 in every byte: int8 x ^ 128 is x + 128 as an unsigned byte.

        LLVM does not see what it holds. It would move x before it is broadcast, or with another constant
        for every instruction that reads a part of x: more instructions.
        """
        held = registers(self.lanes, "int32")
        text = _HALVES.replace("LANES", str(self.lanes))
        with T.attr(T.int32(0), IMPORT, text):
            halves = T.call_extern(self.i32, f"pilite_halves{self.lanes}", T.int32(-0x7F7F7F80))
            assign(held, halves, self.lanes)
        return whole(held, self.lanes)

    def ones(self, count: int) -> Any:
        """uint8 vector of `count` ones, then zeros."""
        size = self.bytes_
        one, zero = constant(1, "uint8", size), constant(0, "uint8", size)
        if count == size:
            return one
        return shuffle([one, zero], [i if i < count else size for i in range(size)])

    def order(self, vectors: int) -> list[int]:
        """Channel held by (vector, lane) so that `narrow`, then `words`, put rows of `vectors` in order."""
        return [
            4 * vectors * (lane // 4) + 4 * vector + lane % 4
            for vector in range(vectors)
            for lane in range(self.lanes)
        ]

    def quads(self, rows: Sequence[Any]) -> list[Any]:
        """Four int8 vectors -> four that hold (rows[0][c], ..., rows[3][c]) side by side, c by `order(4)`."""
        words = [self._unpack(a, b, high, 8) for a, b in (rows[:2], rows[2:]) for high in (False, True)]
        return [self._unpack(words[i], words[2 + i], high, 16) for i in (0, 1) for high in (False, True)]

    def _unpack(self, a: Any, b: Any, high: bool, bits: int) -> Any:
        """vpunpck{l,h}{bw,wd}: elements of a and b alternate, per 128 bits."""
        count, per_lane = self.bytes_ * 8 // bits, 128 // bits
        first = per_lane // 2 if high else 0
        picked = [
            side + lane + first + i
            for lane in range(0, count, per_lane)
            for i in range(per_lane // 2)
            for side in (0, count)
        ]
        dtype = f"int{bits}x{count}"
        mixed = shuffle([T.reinterpret(dtype, a), T.reinterpret(dtype, b)], picked)
        return T.reinterpret(f"int8x{self.bytes_}", mixed)

    def narrow(self, q: Sequence[Any], zero_point: int, clamp_min: int, clamp_max: int) -> Any:
        """Four int32 vectors -> four times `lanes` int8, zero point added, clamped."""
        to16, to8 = PACKS[self.lanes]
        pairs = (call(f"int16x{2 * self.lanes}", to16, *q[i : i + 2]) for i in (0, 2))
        words = (_add16(pair, zero_point, 2 * self.lanes) for pair in pairs)
        packed = call(f"int8x{4 * self.lanes}", to8, *words)
        return clamp8(packed, clamp_min, clamp_max, 4 * self.lanes)


class Xmm(Vnni):
    lanes = 4


class Ymm(Vnni):
    lanes = 8


class Zmm(Vnni):
    lanes = 16

    def across(self, vectors: Sequence[Any]) -> Any:
        """The sum of each of at most 16 vectors, by lane."""
        level = [*vectors, *[self.fill(0)] * (self.lanes - len(vectors))]
        for low, high in _TREE:
            level = [self._halved(pair, low, high) for pair in zip(level[::2], level[1::2], strict=True)]
        return level[0]

    def _halved(self, pair: Sequence[Any], low: Sequence[int], high: Sequence[int]) -> Any:
        held = registers(self.lanes, "int32")
        assign(held, shuffle(pair, low) + shuffle(pair, high), self.lanes)
        return whole(held, self.lanes)

    def words(self, packed: Any, of_row: int = 1) -> Any:
        """What `narrow` made of four vectors as 16 words of 4 bytes: rows of `of_row` vectors, one by one."""
        held = registers(self.lanes, "int32")
        assign(held, T.reinterpret(self.i32, packed), self.lanes)
        order = [4 * q + row + v for row in range(0, 4, of_row) for q in range(4) for v in range(of_row)]
        return shuffle([whole(held, self.lanes)], order)

    def _to_nearest(self, x: Any) -> Any:
        """With every lane, rounded as the control register says: to nearest, ties to even."""
        every, current = tirx.const(-1, "int16"), T.int32(4)
        return call(self.i32, "llvm.x86.avx512.mask.cvtps2dq.512", x, self.fill(0), every, current)


def _add16(words: Any, value: int, lanes: int) -> Any:
    """words + value on int16, saturated."""
    if not value:
        return words
    return call(f"int16x{lanes}", f"llvm.sadd.sat.v{lanes}i16", words, constant(value, "int16", lanes))
