"""Convolution, mean and softmax of int16 values, one output at a time: correct, tuned for no core."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint16 import INT16_MAX, INT16_MIN, STEPS
from pilite.compiler.kernels.elements import scaled64
from pilite.compiler.kernels.emit import (
    PARALLEL_MACS,
    Param,
    function,
    is_worth_sharing,
    loop,
    split,
    store,
)
from pilite.compiler.kernels.isa import call, round_half_away
from pilite.compiler.kernels.reduce import scalar_sum, walk
from pilite.compiler.kernels.scalars import divide_pot64, high_mul
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QConv16
from pilite.compiler.spec16 import QMean16, Softmax16

TABLE = STEPS + 1  # entries


def conv(name: str, spec: QConv16, x: Layout, y: Layout) -> tirx.PrimFunc:
    """y = clamp(scaled(bias + sum x * w)), every output channel by itself."""
    n, oh, ow, oc = y.shape
    depth = 1 if spec.multiplier else x.shape[3]
    taps = (*spec.window.kernel, depth)

    def body(source: Any, weight: Any, bias: Any, *rest: Any) -> None:
        *constants, out = rest
        shared = y.elements * prod(taps) >= PARALLEL_MACS and n * oh >= 4
        with loop(n * oh, parallel=shared) as line, loop(ow) as column, loop(oc) as c:
            batch, row = split(line, (n, oh))
            channel = tirx.floordiv(c, T.int32(spec.multiplier)) if spec.multiplier > 1 else c
            corner = _corner(spec, x, batch, row, column) + (channel if spec.multiplier else 0)
            total = T.alloc_buffer((1,), "int64")
            T.buffer_store(total, bias[c], [0])
            with loop(prod(taps)) as tap:
                i, j, k = split(tap, taps)
                dy, dx = spec.window.dilation
                value = source[corner + i * (dy * x.strides[1]) + j * (dx * x.strides[2]) + k]
                product = T.Cast("int32", value) * T.Cast("int32", weight[c * prod(taps) + tap])
                T.buffer_store(total, total[0] + T.Cast("int64", product), [0])
            scaled = SCALED[spec.scaling](total[0], *(values[c] for values in constants))
            limited = tirx.min(tirx.max(scaled, T.int32(spec.clamp_min)), T.int32(spec.clamp_max))
            place = y.start + batch * y.strides[0] + row * y.strides[1] + column * y.strides[2] + c
            store(out, place, T.Cast("int16", limited), 1)

    params = [
        Param("x", "int16", x.size),
        Param("weight", "int8", oc * prod(taps)),
        Param("bias", "int64", oc),
    ]
    if spec.scaling == "float64":
        params += [Param("scale", "float64", oc)]
    else:
        params += [Param("mantissa", "int32", oc), Param("right", "int32", oc)]
    return function(name, [*params, Param("y", "int16", y.size)], body)


def _reduced(total: Any, mantissa: Any, right: Any) -> Any:
    """(total * mantissa) / 2**right, ties up, of a mantissa of 15 bits."""
    bits = T.Cast("int64", right)
    half = T.int64(1) << (bits - T.int64(1))
    return T.Cast("int32", (total * T.Cast("int64", mantissa) + half) >> bits)


def _gemmlowp(total: Any, mantissa: Any, right: Any) -> Any:
    """Of a sum that wraps to 32 bits, and a mantissa of 31; right < 0 shifts to the left."""
    left = tirx.max(-right, T.int32(0))
    shifted = T.Cast("int32", T.Cast("int64", T.Cast("int32", total)) << T.Cast("int64", left))
    high = T.Cast("int64", high_mul(shifted, mantissa))
    return T.Cast("int32", divide_pot64(high, T.Cast("int64", tirx.max(right, T.int32(0)))))


def _float64(total: Any, scale: Any) -> Any:
    """round_half_away(float64(total) * scale), saturated to 32 bits."""
    product = T.Cast("float64", total) * scale
    product = tirx.max(tirx.min(product, T.float64((1 << 31) - 1)), T.float64(-(1 << 31)))
    return T.Cast("int32", round_half_away(product, "float64", 1))


SCALED: dict[str, Callable[..., Any]] = {"reduced": _reduced, "gemmlowp": _gemmlowp, "float64": _float64}


def _corner(spec: QConv16, x: Layout, batch: Any, row: Any, column: Any) -> Any:
    """Where the window's first pixel lies; padding is in the border of x."""
    (sy, sx), (top, left) = spec.window.stride, spec.window.before
    start = x.start - top * x.strides[1] - left * x.strides[2]
    return start + batch * x.strides[0] + row * (sy * x.strides[1]) + column * (sx * x.strides[2])


def mean(name: str, spec: QMean16, x: Layout, y: Layout) -> tirx.PrimFunc:
    """Sums of 32 bits; y keeps the reduced axes with extent 1."""
    kept = [i for i in range(len(x.shape)) if i not in spec.axes]
    count = prod(x.shape[i] for i in kept)

    def body(source: Any, out: Any) -> None:
        with loop(count, parallel=is_worth_sharing(x.elements, count)) as index:
            ox, oy = (v.start + walk(v, kept, index) for v in (x, y))
            total = T.Cast("int64", scalar_sum(source, x, spec.axes, ox))
            scaled = scaled64(total, spec.multiplier, 1)
            store(out, oy, T.Cast("int16", _clamped(scaled, spec.clamp_min, spec.clamp_max)), 1)

    return function(name, [Param("x", "int16", x.size), Param("y", "int16", y.size)], body)


def softmax(name: str, spec: Softmax16, x: Layout, y: Layout) -> tirx.PrimFunc:
    """reference/softmax.h SoftmaxInt16: exponentials and the reciprocal of their sum from tables.

    The sum is Q16.15; normalized to [1, 2) it is 1 + the place in the second table.
    """
    depth = x.shape[-1]
    rows = x.elements // depth
    leading = range(len(x.shape) - 1)

    def body(source: Any, exp: Any, reciprocal: Any, out: Any) -> None:
        with loop(rows, parallel=is_worth_sharing(x.elements, rows)) as r:
            ox, oy = (v.start + walk(v, leading, r) for v in (x, y))
            best, total = T.alloc_buffer((1,), "int32"), T.alloc_buffer((1,), "int32")
            T.buffer_store(best, T.int32(INT16_MIN), [0])
            T.buffer_store(total, T.int32(0), [0])
            with loop(depth) as k:
                T.buffer_store(best, tirx.max(best[0], T.Cast("int32", source[ox + k])), [0])
            with loop(depth) as k:
                distance = T.Cast("int64", T.Cast("int32", source[ox + k]) - best[0])
                place = scaled64(distance, spec.multiplier, 1) + T.int64(INT16_MAX)
                held = _interpolated(exp, T.Cast("int32", _clamped(place, INT16_MIN, INT16_MAX)))
                store(out, oy + k, T.Cast("int16", held[0]), 1)
                T.buffer_store(total, total[0] + held[0], [0])
            bits = T.alloc_buffer((1,), "int64")
            zeros = T.Cast("int64", call("int32", "llvm.ctlz.i32", total[0], T.bool(False)))
            T.buffer_store(bits, T.int64(31) - zeros, [0])
            sum_ = T.Cast("int64", total[0]) << (T.int64(30) - bits[0])
            place = ((sum_ + T.int64(1 << 13)) >> T.int64(14)) - T.int64((1 << 15) + (1 << 16))
            factor = _interpolated(reciprocal, T.Cast("int32", _clamped(place, INT16_MIN, INT16_MAX)))
            with loop(depth) as k:
                product = T.Cast("int64", out[oy + k]) * T.Cast("int64", factor[0])
                result = (product + (T.int64(1) << (bits[0] - T.int64(1)))) >> bits[0]
                store(out, oy + k, T.Cast("int16", _clamped(result, 0, INT16_MAX)), 1)

    params = [Param("x", "int16", x.size), Param("exp", "int16", TABLE), Param("reciprocal", "int16", TABLE)]
    return function(name, [*params, Param("y", "int16", y.size)], body)


def _clamped(value: Any, low: int, high: int) -> Any:
    """A 64-bit value within these limits."""
    return tirx.max(tirx.min(value, T.int64(high)), T.int64(low))


def _interpolated(table: Any, value: Any) -> Any:
    """A 32-bit buffer with the table at a 16-bit value: 9 bits choose, 7 go between two entries."""
    at, held = T.alloc_buffer((1,), "int32"), T.alloc_buffer((1,), "int32")
    T.buffer_store(at, value, [0])
    index = (at[0] >> T.int32(7)) + T.int32(256)
    first, second = (T.Cast("int32", table[index + i]) for i in (0, 1))
    part = (second - first) * (at[0] & T.int32(127)) + T.int32(64)
    T.buffer_store(held, first + (part >> T.int32(7)), [0])
    return held
