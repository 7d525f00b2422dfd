"""The ISA table: what the kernels may ask of an instruction set. Geometry and packing never appear here.

Vectors hold `lanes` int32 values. All 8-bit storage is signed. They implement
requantize.Primitives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import SPACED_BY_ONE, Requant
from pilite.compiler.kernels.emit import constant, shuffle


def call(dtype: str, intrinsic: str, *arguments: Any) -> Any:
    """One LLVM intrinsic by its full name."""
    return T.call_llvm_pure_intrin(dtype, intrinsic, *arguments)


def round_half_away(x: Any, real: str, lanes: int) -> Any:
    """A float32 or float64 value as a whole one: truncated, and one more where a half or more is left."""
    size = real.removeprefix("float")
    dtype, suffix = (real, f"f{size}") if lanes == 1 else (f"{real}x{lanes}", f"v{lanes}f{size}")
    zero, half, one = (constant(value, real, lanes) for value in (0.0, 0.5, 1.0))
    whole = call(dtype, f"llvm.trunc.{suffix}", x)
    rest = x - whole
    up = tirx.Select(rest >= half, one, zero)
    down = tirx.Select(rest <= constant(-0.5, real, lanes), one, zero)
    return whole + up - down


class Isa(ABC):
    """One row of the table."""

    name: ClassVar[str]
    lanes: ClassVar[int]  # int32 values in a register
    narrow_shifts: ClassVar[bool] = False  # narrow8 can shift by a constant at no cost
    fuses: ClassVar[bool] = False  # a float32 requantization, where proved, costs less than the integer one

    @property
    def i32(self) -> str:
        return f"int32x{self.lanes}"

    @property
    def f64(self) -> str:
        return f"float64x{self.lanes}"

    def fill(self, value: int) -> Any:
        return constant(value, "int32", self.lanes)

    def shift_left(self, x: Any, n: Any) -> Any:
        return x << n

    def less_if_negative(self, x: Any) -> Any:
        return x + (x >> self.fill(31))

    def right(self, bits: int) -> Any:
        return self.fill(self.encode_right(bits))

    def scale_float64(self, x: Any, scale: Any) -> Any:
        """round_half_away(x * scale)."""
        return T.Cast(self.i32, round_half_away(T.Cast(self.f64, x) * scale, "float64", self.lanes))

    @property
    def f32(self) -> str:
        return f"float32x{self.lanes}"

    def scale_fused(self, x: Any, factor: Any, addend: Any, signed: bool) -> Any:
        if signed:
            sign = x & self.fill(-(2**31))
            addend = T.reinterpret(self.f32, T.reinterpret(self.i32, addend) ^ sign)
        return T.Cast(
            self.i32, call(self.f32, f"llvm.fma.v{self.lanes}f32", T.Cast(self.f32, x), factor, addend)
        )

    def mend(self, y: Any, x: Any, at: Any, by: Any) -> Any:
        return tirx.Select(x == at, y + by, y)

    @staticmethod
    @abstractmethod
    def encode_right(bits: int) -> int:
        """A right shift as the constant that the shift primitives read."""

    @abstractmethod
    def mul_high_round(self, x: Any, m: Any) -> Any: ...

    @abstractmethod
    def mul_high(self, x: Any, m: Any) -> Any: ...

    @abstractmethod
    def shift_left_saturating(self, x: Any, n: Any) -> Any: ...

    def scale_float32(self, x: Any, factor: Any, requant: Requant) -> Any:
        return self.round_float32(T.Cast(self.f32, x) * factor, requant.left)

    @abstractmethod
    def round_float32(self, x: Any, guard: bool) -> Any:
        """round_half_even(x) as int32; `guard`: x may leave int32, then any number beyond 16 bits will do."""

    @abstractmethod
    def shift_right_ties_up(self, x: Any, n: Any) -> Any: ...

    @abstractmethod
    def shift_right_ties_away(self, x: Any, n: Any) -> Any: ...

    @abstractmethod
    def widen8(self, x: Any) -> list[Any]:
        """int8x8 -> the int32 vectors that hold its elements in order."""

    @abstractmethod
    def narrow8(self, q: Sequence[Any], zero_point: int, clamp_min: int, clamp_max: int) -> Any:
        """The inverse of widen8 with zero point and clamp: clamp(q + zero_point) as int8x8."""


class Neon(Isa):
    """Armv8.0 Advanced SIMD."""

    name = "neon"
    lanes = 4
    narrow_shifts = True

    @staticmethod
    def neon(dtype: str, operation: str, *arguments: Any) -> Any:
        return call(dtype, f"llvm.aarch64.neon.{operation}", *arguments)

    @staticmethod
    def encode_right(bits: int) -> int:
        return -bits  # srshl shifts right by negative amounts

    def mul_high_round(self, x: Any, m: Any) -> Any:
        return self.neon("int32x4", "sqrdmulh.v4i32", x, m)

    def mul_high(self, x: Any, m: Any) -> Any:
        return self.neon("int32x4", "sqdmulh.v4i32", x, m)

    def shift_left_saturating(self, x: Any, n: Any) -> Any:
        return self.neon("int32x4", "sqshl.v4i32", x, n)

    def round_float32(self, x: Any, guard: bool) -> Any:
        """fcvtns saturates."""
        return self.neon("int32x4", "fcvtns.v4i32.v4f32", x)

    def scale_float32(self, x: Any, factor: Any, requant: Requant) -> Any:
        """Where it is proved that they may, additions convert to float32 and round: both vector pipes of
        an A76 take them, only one takes scvtf and fcvtns.
        """
        spaced_by_one = T.broadcast(T.float32(SPACED_BY_ONE), self.lanes)
        real = T.reinterpret(self.f32, x) - spaced_by_one if requant.raised else T.Cast(self.f32, x)
        if not requant.fits16:
            return self.round_float32(real * factor, requant.left)
        product = call(self.f32, f"llvm.arithmetic.fence.v{self.lanes}f32", real * factor)  # not fused with +
        return T.reinterpret(self.i32, product + spaced_by_one)

    def shift_right_ties_up(self, x: Any, n: Any) -> Any:
        return self.neon("int32x4", "srshl.v4i32", x, n)

    def shift_right_ties_away(self, x: Any, n: Any) -> Any:
        """A negative x is moved down by one before srshl:
        x & n has the sign bit iff x < 0 and a shift follows.
        """
        fix = T.shift_right(T.bitwise_and(x, n), self.fill(31))
        return self.shift_right_ties_up(self.neon("int32x4", "sqadd.v4i32", x, fix), n)

    def widen8(self, x: Any) -> list[Any]:
        wide = T.Cast("int16x8", x)
        return [T.Cast("int32x4", shuffle([wide], range(i, i + 4))) for i in (0, 4)]

    def narrow8(
        self,
        q: Sequence[Any],
        zero_point: int,
        clamp_min: int,
        clamp_max: int,
        right: int = 0,
        fits16: bool = False,
    ) -> Any:
        """`right`: bits to shift first, ties up, in the same instruction (sqrshrn).

        `fits16`: the values do, so half as many instructions take their lower halves (uzp1).
        """
        if fits16 and not right:
            both = shuffle([T.reinterpret("int16x8", v) for v in q], range(0, 16, 2))
        else:
            both = shuffle([self._narrow16(v, right) for v in q], range(8))
        if zero_point:
            both = self.neon("int16x8", "sqadd.v8i16", both, constant(zero_point, "int16", 8))
        return clamp8(self.neon("int8x8", "sqxtn.v8i8", both), clamp_min, clamp_max, 8)

    def _narrow16(self, x: Any, right: int) -> Any:
        if right:
            return self.neon("int16x4", "sqrshrn.v4i16", x, T.int32(right))
        return self.neon("int16x4", "sqxtn.v4i16", x)

    def smull(self, a: Any, b: Any) -> Any:
        """int8x8 * int8x8 -> int16x8."""
        return self.neon("int16x8", "smull.v8i16", a, b)

    def add_pairs(self, acc: Any, x: Any) -> Any:
        """acc + sums of neighbours of an int16x8: sadalp."""
        return acc + self.neon("int32x4", "saddlp.v4i32.v8i16", x)

    def horizontal(self, v: Sequence[Any]) -> Any:
        """Four int32x4 -> the int32x4 of their sums."""

        def pair(a: Any, b: Any) -> Any:
            return self.neon("int32x4", "addp.v4i32", a, b)

        return pair(pair(v[0], v[1]), pair(v[2], v[3]))

    def dot(self, acc: Any, a: Any, b: Any) -> Any:
        """acc[i] += the sum of four int8 products: sdot (needs dotprod)."""
        return self.neon("int32x4", "sdot.v4i32.v16i8", acc, a, b)


class X86(Isa):
    """What x86-64-v3 and v4 share, at any width."""

    fuses = True

    @staticmethod
    def encode_right(bits: int) -> int:
        return bits

    def mul_high_round(self, x: Any, m: Any) -> Any:
        return self._bits_31_to_62(x, m, 1 << 30)

    def mul_high(self, x: Any, m: Any) -> Any:
        return self._bits_31_to_62(x, m, 0)

    def _bits_31_to_62(self, x: Any, m: Any, nudge: int) -> Any:
        """Of x * m + nudge: even and odd lanes as 64-bit products (vpmuldq)."""
        even, odd = (self._product(x, m, high) + self._i64(nudge) for high in (False, True))
        low = T.reinterpret(self.i32, self._shift_right_logical(even, 31))
        top = T.reinterpret(self.i32, odd << self._i64(1))
        return shuffle([low, top], [i if i % 2 == 0 else self.lanes + i for i in range(self.lanes)])

    def _i64(self, value: int) -> Any:
        return T.broadcast(T.int64(value), self.lanes // 2)

    def _shift_right_logical(self, x: Any, n: int) -> Any:
        unsigned = T.reinterpret(f"uint64x{self.lanes // 2}", x)
        return unsigned >> T.broadcast(T.uint64(n), self.lanes // 2)

    def _product(self, x: Any, m: Any, high: bool) -> Any:
        def half(v: Any) -> Any:
            wide = T.reinterpret(f"int64x{self.lanes // 2}", v)
            if high:
                wide = T.reinterpret(f"int64x{self.lanes // 2}", self._shift_right_logical(wide, 32))
            return (wide << self._i64(32)) >> self._i64(32)

        return half(x) * half(m)

    def shift_left_saturating(self, x: Any, n: Any) -> Any:
        high, low = self.fill(2**31 - 1) >> n, self.fill(-(2**31)) >> n
        return tirx.max(tirx.min(x, high), low) << n

    def round_float32(self, x: Any, guard: bool) -> Any:
        """vcvtps2dq is to even by default, and makes -2**31 of what is too large."""
        if guard:
            x = tirx.min(x, T.broadcast(T.float32(32768.0), self.lanes))
        return self._to_nearest(x)

    @abstractmethod
    def _to_nearest(self, x: Any) -> Any:
        """vcvtps2dq."""

    def shift_right_ties_up(self, x: Any, n: Any) -> Any:
        """floor((x + 2**(n-1)) / 2**n) without overflow: the last bit shifted out is the carry."""
        carry = ((x << self.fill(1)) >> n) & self.fill(1)
        return (x >> n) + carry

    def shift_right_ties_away(self, x: Any, n: Any) -> Any:
        """gemmlowp's RoundingDivideByPOT, compare and subtract."""
        mask = (self.fill(1) << n) - self.fill(1)
        threshold = (mask >> self.fill(1)) - (x >> self.fill(31))
        up = tirx.Select((x & mask) > threshold, self.fill(1), self.fill(0))
        return (x >> n) + up


class Avx2(X86):
    """x86-64-v3."""

    name = "avx2"
    lanes = 8

    def _to_nearest(self, x: Any) -> Any:
        return call(self.i32, "llvm.x86.avx.cvt.ps2dq.256", x)

    def widen8(self, x: Any) -> list[Any]:
        return [T.Cast("int32x8", x)]

    def narrow8(self, q: Sequence[Any], zero_point: int, clamp_min: int, clamp_max: int) -> Any:
        narrow = call(
            "int16x8", "llvm.x86.sse2.packssdw.128", *(shuffle([q[0]], range(i, i + 4)) for i in (0, 4))
        )
        if zero_point:
            narrow = call("int16x8", "llvm.sadd.sat.v8i16", narrow, constant(zero_point, "int16", 8))
        bytes_ = call("int8x16", "llvm.x86.sse2.packsswb.128", narrow, narrow)
        return clamp8(shuffle([bytes_], range(8)), clamp_min, clamp_max, 8)

    def madd(self, acc: Any, a: Any, b: Any) -> Any:
        """acc[i] += a[2i]*b[2i] + a[2i+1]*b[2i+1] on int16x16: vpmaddwd, vpaddd."""
        return acc + call("int32x8", "llvm.x86.avx2.pmadd.wd", a, b)

    def narrow16(self, q: Sequence[Any], zero_point: int, clamp_min: int, clamp_max: int) -> Any:
        """Two int32x8 -> int8x16. Lanes interleave per 128 bits: see `interleaved_order`."""
        both = call("int16x16", "llvm.x86.avx2.packssdw", q[0], q[1])
        if zero_point:
            both = call("int16x16", "llvm.sadd.sat.v16i16", both, constant(zero_point, "int16", 16))
        halves = (shuffle([both], range(i, i + 8)) for i in (0, 8))
        return clamp8(call("int8x16", "llvm.x86.sse2.packsswb.128", *halves), clamp_min, clamp_max, 16)


def clamp8(x: Any, low: int, high: int, lanes: int) -> Any:
    if low > -128:
        x = tirx.max(x, constant(low, "int8", lanes))
    if high < 127:
        x = tirx.min(x, constant(high, "int8", lanes))
    return x


# Channel held by (vector, lane) of a block of 16 so that vpackssdw puts the 16 results in order.
AVX2_ORDER: tuple[int, ...] = tuple(
    8 * (lane // 4) + 4 * vector + lane % 4 for vector in range(2) for lane in range(8)
)

# AVX-512 brings nothing to kernels of eight elements; those with its dot product name an `Isa` of their own.
ISAS: dict[str, Isa] = {"neon": Neon(), "avx2": Avx2(), "avx512": Avx2()}
