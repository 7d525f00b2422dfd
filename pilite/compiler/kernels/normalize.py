"""L2 normalization: a sum of squares per row, its inverse root in fixed point, a product per element."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.emit import Param, function, is_worth_sharing, loop, store
from pilite.compiler.kernels.isa import call
from pilite.compiler.kernels.reduce import walk
from pilite.compiler.kernels.scalars import high_mul, saturate
from pilite.compiler.layout import Layout
from pilite.compiler.spec import L2Norm

OUTPUT_BITS = 7
ONE, THREE_HALVES = 1 << 28, (1 << 28) + (1 << 27)  # with 3 integer bits
HALF_ROOT_2 = 1518500250  # Q0.31
INT32_MAX = (1 << 31) - 1


def l2(name: str, spec: L2Norm, x: Layout, y: Layout) -> tirx.PrimFunc:
    """y = x * 2**(7 + exponent) * multiplier / 2**31 along the last axis."""
    depth = x.shape[-1]
    rows = x.elements // depth
    leading = range(len(x.shape) - 1)

    def body(source: Any, out: Any) -> None:
        with loop(rows, parallel=is_worth_sharing(x.elements, rows)) as r:
            ox, oy = (v.start + walk(v, leading, r) for v in (x, y))

            def centred(k: Any) -> Any:
                return T.Cast("int32", source[ox + k]) - T.int32(spec.zero_point)

            total = T.alloc_buffer((1,), "int32")
            T.buffer_store(total, T.int32(0), [0])
            with loop(depth) as k:
                T.buffer_store(total, total[0] + centred(k) * centred(k), [0])
            multiplier, exponent = inverse_root(total[0])
            exponent += T.int32(OUTPUT_BITS - spec.first_shift)
            left, right = (tirx.max(n, T.int32(0)) for n in (exponent, -exponent))
            with loop(depth) as k:
                shifted = (centred(k) << T.int32(spec.first_shift)) << left
                scaled = _divided(high_mul(shifted, multiplier), right)
                limited = tirx.min(tirx.max(scaled, T.int32(-128)), T.int32(127))
                store(out, oy + k, T.Cast("int8", limited), 1)

    return function(name, [Param("x", "int8", x.size), Param("y", "int8", y.size)], body)


def inverse_root(total: Any) -> tuple[Any, Any]:
    """(multiplier, exponent) with multiplier * 2**(exponent - 31) = 1 / sqrt(total), 0 as 1.

    Newton steps from 1 on total moved to [2**27, 2**29): GetInvSqrtQuantizedMultiplierExp of TFLite's
    internal/common.h.
    """
    value, shift = T.alloc_buffer((1,), "int32"), T.alloc_buffer((1,), "int32")
    big = total >= T.int32(1 << 29)
    T.buffer_store(value, tirx.Select(big, total >> T.int32(2), tirx.max(total, T.int32(2))), [0])
    zeros = call("int32", "llvm.ctlz.i32", value[0], T.bool(False))
    pairs = ((zeros - T.int32(1)) >> T.int32(1)) - T.int32(1)
    T.buffer_store(shift, tirx.Select(big, T.int32(12), T.int32(11)) - pairs, [0])
    T.buffer_store(value, value[0] << (pairs << T.int32(1)), [0])
    half = ((value[0] >> T.int32(1)) + T.int32(1)) >> T.int32(1)  # of a positive value, ties up
    x = T.alloc_buffer((1,), "int32")
    T.buffer_store(x, T.int32(ONE), [0])
    for _ in range(5):
        cube = _moved(high_mul(high_mul(x[0], x[0]), x[0]), 6)
        step = high_mul(T.int32(THREE_HALVES), x[0]) - high_mul(half, cube)
        T.buffer_store(x, _moved(step, 3), [0])
    left = tirx.max(-shift[0], T.int32(0))
    T.buffer_store(x, high_mul(x[0], T.int32(HALF_ROOT_2)) << left, [0])
    small = total <= T.int32(1)
    exponent = tirx.Select(small, T.int32(0), -tirx.max(shift[0], T.int32(0)))
    return _held(tirx.Select(small, T.int32(INT32_MAX), x[0])), _held(exponent)


def _divided(x: Any, bits: Any) -> Any:
    """x / 2**bits, ties away from zero, for at most 30 bits."""
    mask = (T.int32(1) << bits) - T.int32(1)
    threshold = (mask >> T.int32(1)) + tirx.Select(x < T.int32(0), T.int32(1), T.int32(0))
    return (x >> bits) + tirx.Select((x & mask) > threshold, T.int32(1), T.int32(0))


def _moved(x: Any, bits: int) -> Any:
    """x * 2**bits, saturated."""
    return T.Cast("int32", saturate(T.Cast("int64", x) << T.int64(bits)))


def _held(value: Any) -> Any:
    """`value` computed once."""
    held = T.alloc_buffer((1,), "int32")
    T.buffer_store(held, value, [0])
    return held[0]
