"""Kernels that sum or compare many elements: pools, mean, plain reductions, softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.elements import KINDS, Numbers
from pilite.compiler.kernels.emit import (
    PARALLEL_ELEMENTS,
    Param,
    assign,
    constant,
    function,
    is_worth_sharing,
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
from pilite.compiler.kernels.pointwise import narrow, pieces, scale
from pilite.compiler.kernels.scalars import divide_pot, divide_pot64, high_mul, saturate
from pilite.compiler.layout import Layout
from pilite.compiler.spec import Pool, QMean, QMeanFloat, Reduce, Softmax, SoftmaxTable


def _channel_groups(channels: int, body: Callable[[Any, int], None]) -> None:
    """body(first channel, count) for groups of eight; the last one overlaps when there is room."""
    groups = -(-channels // 8)
    with loop(groups) as g:
        first = g * 8 if channels % 8 == 0 else minimum(g * 8, max(channels - 8, 0))
        body(first, min(channels, 8))


# --- pools ---------------------------------------------------------------------------------------------


def pool(name: str, isa: Isa, spec: Pool, x: Layout, y: Layout) -> tirx.PrimFunc:
    """AVERAGE or MAX over the part of each window that lies inside the image."""
    n, oh, ow, channels = y.shape
    if y.dtype == "int16":
        return _pool16(name, spec, x, y)

    def body(source: Any, out: Any) -> None:
        with (
            loop(n * oh, parallel=y.elements * prod(spec.window.kernel) >= PARALLEL_ELEMENTS) as r,
            loop(ow) as column,
        ):
            batch, row = split(r, (n, oh))
            (y0, y1), (x0, x1) = (
                _inside(spec, axis, i, x.shape[1 + axis]) for axis, i in enumerate((row, column))
            )

            def group(channel: Any, count: int) -> None:
                acc = [registers(isa.lanes, "int32") for _ in range(8 // isa.lanes)]
                for a in acc:
                    assign(a, isa.fill(-128 if spec.kind == "max" else 0), isa.lanes)
                with T.serial(0, y1 - y0) as dy, T.serial(0, x1 - x0) as dx:
                    at = x.start + batch * x.strides[0] + (y0 + dy) * x.strides[1] + (x0 + dx) * x.strides[2]
                    for a, v in zip(acc, isa.widen8(load(source, at + channel, 8)), strict=True):
                        old = whole(a, isa.lanes)
                        assign(a, tirx.max(old, v) if spec.kind == "max" else old + v, isa.lanes)
                q = [whole(a, isa.lanes) for a in acc]
                if spec.kind == "average":
                    q = [_average(isa, v, (y1 - y0) * (x1 - x0), spec) for v in q]
                at = y.start + batch * y.strides[0] + row * y.strides[1] + column * y.strides[2] + channel
                store_first(out, at, isa.narrow8(q, 0, spec.clamp_min, spec.clamp_max), 8, count)

            _channel_groups(channels, group)

    return function(name, [Param("x", "int8", x.size), Param("y", "int8", y.size)], body)


def _pool16(name: str, spec: Pool, x: Layout, y: Layout) -> tirx.PrimFunc:
    """The same of 16-bit values, one output at a time; averages round ties away from zero."""
    n, oh, ow, channels = y.shape
    shared = y.elements * prod(spec.window.kernel) >= PARALLEL_ELEMENTS

    def body(source: Any, out: Any) -> None:
        with loop(n * oh, parallel=shared) as r, loop(ow) as column, loop(channels) as channel:
            batch, row = split(r, (n, oh))
            (y0, y1), (x0, x1) = (
                _inside(spec, axis, i, x.shape[1 + axis]) for axis, i in enumerate((row, column))
            )
            held = T.alloc_buffer((1,), "int32")
            T.buffer_store(held, T.int32(-(1 << 15) if spec.kind == "max" else 0), [0])
            with T.serial(0, y1 - y0) as dy, T.serial(0, x1 - x0) as dx:
                at = x.start + batch * x.strides[0] + (y0 + dy) * x.strides[1] + (x0 + dx) * x.strides[2]
                v = T.Cast("int32", source[at + channel])
                T.buffer_store(held, tirx.max(held[0], v) if spec.kind == "max" else held[0] + v, [0])
            result: Any = held[0]
            if spec.kind == "average":
                count = (y1 - y0) * (x1 - x0)
                half = tirx.truncdiv(count, T.int32(2))
                result = tirx.truncdiv(result + tirx.Select(result > T.int32(0), half, -half), count)
            limited = tirx.min(tirx.max(result, T.int32(spec.clamp_min)), T.int32(spec.clamp_max))
            at = y.start + batch * y.strides[0] + row * y.strides[1] + column * y.strides[2] + channel
            store(out, at, T.Cast("int16", limited), 1)

    return function(name, [Param("x", "int16", x.size), Param("y", "int16", y.size)], body)


def _inside(spec: Pool, axis: int, index: Any, size: int) -> tuple[Any, Any]:
    """First and past-the-end input coordinate of the window at `index`, cut to the image."""
    window = spec.window
    start = index * window.stride[axis] - window.before[axis]
    stop = start + window.kernel[axis]
    zero, limit = tirx.IntImm("int32", 0), tirx.IntImm("int32", size)
    if isinstance(start, int):
        return tirx.IntImm("int32", max(start, 0)), tirx.IntImm("int32", min(stop, size))
    return tirx.max(start, zero), tirx.min(stop, limit)


def _average(isa: Isa, total: Any, count: Any, spec: Pool) -> Any:
    """sum / count to nearest. Half up for uint8 models, whose sums are 128 * count larger;
    else away from zero.
    """

    def fill(v: Any) -> Any:
        return T.broadcast(v, isa.lanes)

    n, half = fill(count), fill(tirx.truncdiv(count, tirx.IntImm("int32", 2)))
    if spec.round_half_up:
        shift = fill(count * tirx.IntImm("int32", 128))
        return tirx.truncdiv(total + shift + half, n) - isa.fill(128)
    return tirx.truncdiv(tirx.Select(total > isa.fill(0), total + half, total - half), n)


# --- mean ----------------------------------------------------------------------------------------------


def mean(name: str, isa: Isa, spec: QMean, x: Layout, y: Layout) -> tirx.PrimFunc:
    """zero_point + scaled(sum(x) - n * zero_point(x)) over any axes;
    y keeps the reduced axes with extent 1.
    """
    offset = prod(x.shape[i] for i in spec.axes) * spec.input_zero_point

    def narrowed(totals: Sequence[Any]) -> Any:
        return narrow(isa, [scale(isa, t - isa.fill(offset), spec.multiplier) for t in totals], spec.requant)

    return _mean(name, isa, spec.axes, narrowed, x, y)


def mean_float(name: str, isa: Isa, spec: QMeanFloat, x: Layout, y: Layout) -> tirx.PrimFunc:
    """round_half_even(fma(sum(x) + bias, factor, offset)) - shift, likewise."""
    factor, offset = (constant(f, "float32", isa.lanes) for f in (spec.factor, spec.offset))

    def scaled(total: Any) -> Any:
        sum_ = T.Cast(isa.f32, total + isa.fill(spec.bias))
        return isa.round_float32(call(isa.f32, f"llvm.fma.v{isa.lanes}f32", sum_, factor, offset), True)

    def narrowed(totals: Sequence[Any]) -> Any:
        return isa.narrow8([scaled(t) for t in totals], -spec.shift, -128, 127)

    return _mean(name, isa, spec.axes, narrowed, x, y)


def _mean(
    name: str,
    isa: Isa,
    axes: Sequence[int],
    narrowed: Callable[[Sequence[Any]], Any],
    x: Layout,
    y: Layout,
) -> tirx.PrimFunc:
    rank = len(x.shape)
    last = rank - 1
    vector = last not in axes
    kept = [i for i in range(rank) if i not in axes and not (vector and i == last)]
    reduced = list(axes)

    def body(source: Any, out: Any) -> None:
        extents = [x.shape[i] for i in kept]
        with loop(prod(extents), parallel=is_worth_sharing(x.elements, prod(extents))) as index:
            at = split(index, extents) if extents else []
            ox = x.start + sum((i * x.strides[d] for i, d in zip(at, kept, strict=True)), 0)
            oy = y.start + sum((i * y.strides[d] for i, d in zip(at, kept, strict=True)), 0)

            def finish(totals: Sequence[Any], channel: Any, count: int) -> None:
                store_first(out, oy + channel, narrowed(totals), 8, count)

            if vector:
                _channel_groups(
                    x.shape[last], lambda c, n: finish(_vector_sum(isa, source, x, reduced, ox + c), c, n)
                )
            else:
                total = scalar_sum(source, x, reduced, ox)
                finish([T.broadcast(total, isa.lanes)] * (8 // isa.lanes), 0, 1)

    return function(name, [Param("x", "int8", x.size), Param("y", "int8", y.size)], body)


def walk(x: Layout, axes: Sequence[int], index: Any) -> Any:
    """Offset of position `index` in the space of `axes`."""
    extents = [x.shape[i] for i in axes]
    return sum((i * x.strides[d] for i, d in zip(split(index, extents), axes, strict=True)), 0)


def _vector_sum(isa: Isa, source: Any, x: Layout, axes: Sequence[int], base: Any) -> list[Any]:
    acc = [registers(isa.lanes, "int32") for _ in range(8 // isa.lanes)]
    for a in acc:
        assign(a, isa.fill(0), isa.lanes)
    with loop(prod(x.shape[i] for i in axes)) as index:
        for a, v in zip(acc, isa.widen8(load(source, base + walk(x, axes, index), 8)), strict=True):
            assign(a, whole(a, isa.lanes) + v, isa.lanes)
    return [whole(a, isa.lanes) for a in acc]


def scalar_sum(source: Any, x: Layout, axes: Sequence[int], base: Any) -> Any:
    total = T.alloc_buffer((1,), "int32")
    T.buffer_store(total, T.int32(0), [0])
    with loop(prod(x.shape[i] for i in axes)) as index:
        T.buffer_store(total, total[0] + T.Cast("int32", source[base + walk(x, axes, index)]), [0])
    return total[0]


# --- plain numbers -------------------------------------------------------------------------------------


def plain(name: str, spec: Reduce, x: Layout, y: Layout) -> tirx.PrimFunc:
    """One pass along the axes for every other position; eight of a last axis that stays at once."""
    last = len(x.shape) - 1
    vector = bool(x.shape) and last not in spec.axes and x.shape[last] >= 8
    kept = [i for i in range(len(x.shape)) if i not in spec.axes and not (vector and i == last)]
    extents = [x.shape[i] for i in kept]

    def body(source: Any, out: Any) -> None:
        with loop(prod(extents), parallel=is_worth_sharing(x.elements, prod(extents))) as index:
            at = split(index, extents) if extents else []
            ox, oy = (
                v.start + sum((i * v.strides[d] for i, d in zip(at, kept, strict=True)), 0) for v in (x, y)
            )

            def group(offset: Any, lanes: int) -> None:
                store(out, oy + offset, _reduced(spec, source, x, ox + offset, lanes), lanes)

            if vector:
                pieces(x.shape[last], group)
            else:
                group(0, 1)

    return function(name, [Param("x", x.dtype, x.size), Param("y", y.dtype, y.size)], body)


def _reduced(spec: Reduce, source: Any, x: Layout, base: Any, lanes: int) -> Any:
    n = Numbers(x.dtype, lanes)
    held = registers(lanes, x.dtype)
    store(held, 0, n.fill(spec.start), lanes)
    with loop(prod(x.shape[i] for i in spec.axes)) as index:
        value = load(source, base + walk(x, spec.axes, index), lanes)
        store(held, 0, KINDS[spec.kind](n, load(held, 0, lanes), value), lanes)
    return load(held, 0, lanes)


# --- softmax -------------------------------------------------------------------------------------------

SUM_INTEGER_BITS = 12  # the sum of exponentials is Q12.19


def softmax(name: str, spec: Softmax, x: Layout, y: Layout) -> tirx.PrimFunc:
    """Fixed-point softmax of TFLite's reference/softmax.h; exponentials come from a table of 256."""
    depth = x.shape[-1]
    rows = x.elements // depth
    leading = range(len(x.shape) - 1)

    def body(source: Any, table: Any, out: Any) -> None:
        with loop(rows, parallel=is_worth_sharing(x.elements, rows)) as r:
            ox, oy = (v.start + walk(v, leading, r) for v in (x, y))
            best, total = T.alloc_buffer((1,), "int32"), T.alloc_buffer((1,), "int32")
            T.buffer_store(best, T.int32(-128), [0])
            T.buffer_store(total, T.int32(0), [0])
            with loop(depth) as k:
                T.buffer_store(best, tirx.max(best[0], T.Cast("int32", source[ox + k])), [0])

            def exponential(k: Any) -> Any:
                return table[best[0] - T.Cast("int32", source[ox + k])]

            with loop(depth) as k:
                T.buffer_store(total, total[0] + divide_pot(exponential(k), 12), [0])
            zeros = T.alloc_buffer((1,), "int32")
            T.buffer_store(zeros, call("int32", "llvm.ctlz.i32", total[0], T.bool(False)), [0])
            # Normalized to [1, 2); clearing the top bit subtracts 1 (an addition could overflow, which
            # LLVM may exploit).
            factor = _reciprocal((total[0] << zeros[0]) & T.int32((1 << 31) - 1))
            shift = T.int32(SUM_INTEGER_BITS + 31 - 8) - zeros[0]
            with loop(depth) as k:
                value = _divide_pot32(high_mul(factor, exponential(k)), shift) + T.int32(spec.output_min)
                limited = tirx.min(tirx.max(value, T.int32(-128)), T.int32(127))
                store(out, oy + k, T.Cast("int8", limited), 1)

    params = [Param("x", "int8", x.size), Param("exp", "int32", 256), Param("y", "int8", y.size)]
    return function(name, params, body)


def softmax_table(name: str, spec: SoftmaxTable, x: Layout, y: Layout) -> tirx.PrimFunc:
    """y = zero_point + exp * m, where m = 1 / (scale * sum of exp) in float32, as mantissa and exponent.

    The mantissa has 24 bits, so TFLite's QuantizeMultiplier is exact; every term is positive, so ties up and
    ties away from zero are the same.
    """
    depth = x.shape[-1]
    rows = x.elements // depth
    leading = range(len(x.shape) - 1)

    def body(source: Any, table: Any, out: Any) -> None:
        with loop(rows, parallel=is_worth_sharing(x.elements, rows)) as r:
            ox, oy = (v.start + walk(v, leading, r) for v in (x, y))
            best, total = T.alloc_buffer((1,), "int32"), T.alloc_buffer((1,), "int32")
            T.buffer_store(best, T.int32(-128), [0])
            T.buffer_store(total, T.int32(0), [0])
            with loop(depth) as k:
                T.buffer_store(best, tirx.max(best[0], T.Cast("int32", source[ox + k])), [0])

            def exponential(k: Any) -> Any:
                return table[best[0] - T.Cast("int32", source[ox + k])]

            with loop(depth) as k:
                T.buffer_store(total, total[0] + exponential(k), [0])
            scaled = T.Cast("float32", total[0]) * T.float32(spec.output_scale)
            bits = T.alloc_buffer((1,), "int32")
            T.buffer_store(bits, T.reinterpret("int32", T.float32(1.0) / scaled), [0])
            mantissa = ((bits[0] & T.int32(0x7FFFFF)) | T.int32(0x800000)) << T.int32(7)
            shift = T.int32(126) - (bits[0] >> T.int32(23))
            with loop(depth) as k:
                high = T.Cast("int64", high_mul(exponential(k), mantissa))
                value = T.Cast("int32", divide_pot64(high, T.Cast("int64", shift)))
                limited = tirx.min(value + T.int32(spec.output_zero_point), T.int32(127))
                store(out, oy + k, T.Cast("int8", tirx.max(limited, T.int32(-128))), 1)

    params = [Param("x", "int8", x.size), Param("exp", "int32", 256), Param("y", "int8", y.size)]
    return function(name, params, body)


def _divide_pot32(x: Any, bits: Any) -> Any:
    """x / 2**bits for x >= 0 as gemmlowp's int32 code does it on x86-64 and aarch64, bits > 31 included.

    A sum of 512 or more equal exponentials asks for more than 31 bits: the mask is cut to 32 bits, the shift
    count is taken modulo 32. The result is x >> (bits - 32) + 1,
    which the final clamp turns into the maximum.
    """
    mask = T.Cast("int32", (T.int64(1) << T.Cast("int64", bits)) - T.int64(1))
    shifted = x >> (bits & T.int32(31))
    return shifted + tirx.Select((x & mask) > (mask >> T.int32(1)), T.int32(1), T.int32(0))


def _reciprocal(x: Any) -> Any:
    """1 / (1 + x) for x in [0, 1), Q0.31 to Q0.31: three Newton steps from 48/17 - 32/17 * (1 + x) / 2.

    gemmlowp one_over_one_plus_x_for_x_in_0_1.
    """
    held = T.alloc_buffer((1,), "int32")
    half = T.alloc_buffer((1,), "int32")
    total = T.Cast("int64", x) + T.int64((1 << 31) - 1)
    T.buffer_store(half, T.Cast("int32", (total + T.int64(1)) >> T.int64(1)), [0])  # rounding half sum
    T.buffer_store(held, T.int32(1515870810) + high_mul(half[0], T.int32(-1010580540)), [0])
    for _ in range(3):
        error = T.int32(1 << 29) - high_mul(half[0], held[0])
        step = T.Cast("int64", high_mul(held[0], error)) << T.int64(2)
        T.buffer_store(held, held[0] + T.Cast("int32", saturate(step)), [0])
    return T.Cast("int32", saturate(T.Cast("int64", held[0]) << T.int64(1)))
