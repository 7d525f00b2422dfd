"""Kernels without a sliding window: addition, tables, conversions, copies, fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import DTYPES, Requant, Scale, ends
from pilite.compiler.kernels.emit import (
    PARALLEL_ELEMENTS,
    Param,
    Share,
    blocks_loop,
    blocks_param,
    constant,
    function,
    is_worth_sharing,
    load,
    loop,
    share,
    split,
    store,
    store_first,
)
from pilite.compiler.kernels.isa import Isa, call, round_half_away
from pilite.compiler.layout import Layout
from pilite.compiler.requantize import requantize
from pilite.compiler.spec import (
    Broadcast,
    DequantizeFloat,
    Fill,
    Move,
    QAdd,
    QuantizeFloat,
    QuantizeFloatEven,
    QWeightedAdd,
)


def spans(*layouts: Layout) -> tuple[int, int, list[Callable[[Any], Any]]]:
    """Equal shapes as (rows, contiguous elements per row, row index -> offset for each layout)."""
    if not any(v.halo for v in layouts):
        n = layouts[0].elements
        rows = next((p for p in (16, 12, 8, 4) if n % (8 * p) == 0), 1) if n >= PARALLEL_ELEMENTS else 1
        return rows, n // rows, [lambda r: r * (n // rows)] * len(layouts)
    batch, height, width, channels = layouts[0].shape

    def offset(v: Layout) -> Callable[[Any], Any]:
        def at(r: Any) -> Any:
            n, h = split(r, (batch, height))
            return v.start + n * v.strides[0] + h * v.strides[1]

        return at

    return batch * height, width * channels, [offset(v) for v in layouts]


def groups(
    layouts: Sequence[Layout],
    blocks: Sequence[Any],
    body: Callable[[list[Any], int], None],
    size: int = 8,
) -> None:
    """body(offset in each layout, count) for every group of `size` elements of values of one shape.

    Rows that are shorter are groups of eight, as are those of a share of blocks. `blocks`: the buffer of
    `blocks_param`, if there is one: then of these groups of every pixel, all full.
    """
    if share() is Share.BLOCKS:
        seen = [v.nhwc for v in layouts]
        *pixels, _ = seen[0].shape
        extents = pixels if any(v.halo for v in seen) else [prod(pixels)]
        with loop(prod(pixels)) as p, blocks_loop(0, dict(zip(("blocks",), blocks, strict=True))) as block:
            at = split(p, extents)
            body([v.start + _dot(at, v.strides[3 - len(at) : 3]) + block * 8 for v in seen], 8)
        return
    rows, length, offset = spans(*layouts)
    with loop(rows, parallel=layouts[0].elements >= PARALLEL_ELEMENTS) as r:
        pieces(length, lambda at, count: body([of(r) + at for of in offset], count), size)


def _dot(coordinates: Sequence[Any], strides: Sequence[int]) -> Any:
    return sum((i * s for i, s in zip(coordinates, strides, strict=True)), 0)


def pieces(length: int, body: Callable[[Any, int], None], size: int = 8) -> None:
    """body(offset, count) for every group of `size`, or eight where there are fewer; the last group overlaps,
    a lone short one has count < 8.
    """
    if length < 8:
        body(0, length)
        return
    size = size if length >= size else 8
    with loop(length // size) as k:
        body(k * size, size)
    if length % size:
        body(length - size, size)


def scale(isa: Isa, x: Any, m: Scale) -> Any:
    """One vector times a constant, with the rounding that the constant is for."""
    values = dict(m.constants)
    if "right" in values:
        values["right"] = isa.encode_right(int(values["right"]))
    requant = Requant(m.rounding, 0, -128, 127, left=m.is_large)
    return requantize(
        isa, x, requant, lambda name: constant(values[name], DTYPES.get(name, "int32"), isa.lanes)
    )


def narrow(isa: Isa, q: Sequence[Any], requant: Requant) -> Any:
    return isa.narrow8(q, requant.zero_point, requant.clamp_min, requant.clamp_max)


def add(name: str, isa: Isa, spec: QAdd, a: Layout, b: Layout, y: Layout) -> tirx.PrimFunc:
    """y = requant(scaled(a) + or - scaled(b)), or of its square; first both move up by `left_shift` bits."""

    def term(buffer: Any, offset: Any, zero_point: int, m: Scale) -> list[Any]:
        wide = isa.widen8(load(buffer, offset, 8))
        centred = [(v - isa.fill(zero_point)) << isa.fill(spec.left_shift) for v in wide]
        return [scale(isa, v, m) for v in centred]

    def body(x0: Any, x1: Any, out: Any, *blocks: Any) -> None:
        def group(at: list[Any], count: int) -> None:
            left = term(x0, at[0], spec.zero_points[0], spec.multipliers[0])
            right = term(x1, at[1], spec.zero_points[1], spec.multipliers[1])
            pairs = zip(left, right, strict=True)
            sums = [p - q if spec.subtract else p + q for p, q in pairs]
            total = [scale(isa, v * v if spec.square else v, spec.output) for v in sums]
            store_first(out, at[2], narrow(isa, total, spec.requant), 8, count)

        groups((a, b, y), blocks, group)

    return function(name, operands(a, b, y), body)


def operands(a: Layout, b: Layout, y: Layout) -> list[Param]:
    """Of a kernel that adds."""
    params = [Param("a", "int8", a.size), Param("b", "int8", b.size), Param("y", "int8", y.size)]
    return [*params, *blocks_param()]


def weighted_add(name: str, isa: Isa, spec: QWeightedAdd, a: Layout, b: Layout, y: Layout) -> tirx.PrimFunc:
    """y = requant(w0 * a + w1 * b + constant, shifted right with ties up)."""
    constant_term = -sum(w * z for w, z in zip(spec.weights, spec.zero_points, strict=True))

    def total(left: Any, right: Any) -> Any:
        first, second = (isa.fill(w) for w in spec.weights)
        acc = left * first + right * second + isa.fill(constant_term)
        return isa.shift_right_ties_up(acc, isa.fill(isa.encode_right(spec.shift)))

    def body(x0: Any, x1: Any, out: Any, *blocks: Any) -> None:
        def group(at: list[Any], count: int) -> None:
            pair = (isa.widen8(load(x, offset, 8)) for x, offset in zip((x0, x1), at, strict=False))
            q = [total(left, right) for left, right in zip(*pair, strict=True)]
            store_first(out, at[2], narrow(isa, q, spec.requant), 8, count)

        groups((a, b, y), blocks, group)

    return function(name, operands(a, b, y), body)


def table(name: str, x: Layout, y: Layout) -> tirx.PrimFunc:
    """y = table[x - the least value of its dtype], element by element."""
    count = 1 << 16 if x.dtype == "int16" else 1 << 8

    def body(source: Any, values: Any, out: Any) -> None:
        rows, length, offset = spans(x, y)
        with loop(rows, parallel=x.elements >= PARALLEL_ELEMENTS) as r, loop(length) as k:
            index = T.Cast("int32", source[offset[0](r) + k]) + T.int32(count // 2)
            store(out, offset[1](r) + k, values[index], 1)

    params = [Param("x", x.dtype, x.size), Param("t", y.dtype, count), Param("y", y.dtype, y.size)]
    return function(name, params, body)


def quantize_float(name: str, spec: QuantizeFloat, x: Layout, y: Layout) -> tirx.PrimFunc:
    """round_half_away(x / scale) + zero_point in float32; the clamp comes before the integer so that it
    cannot overflow.
    """

    def value(v: Any, lanes: int) -> Any:
        whole = round_half_away(v / constant(spec.scale, "float32", lanes), "float32", lanes)
        low, high = (constant(limit - spec.zero_point, "float32", lanes) for limit in ends(y.dtype))
        rounded = tirx.max(tirx.min(whole, high), low)
        wide = T.Cast("int32" if lanes == 1 else f"int32x{lanes}", rounded) + constant(
            spec.zero_point, "int32", lanes
        )
        return T.Cast(y.dtype if lanes == 1 else f"{y.dtype}x{lanes}", wide)

    return _convert(name, x, y, value)


def quantize_float_even(name: str, spec: QuantizeFloatEven, x: Layout, y: Layout) -> tirx.PrimFunc:
    """round_half_even(x * factor) + zero_point in float32, clamped before it becomes an integer."""

    def value(v: Any, lanes: int) -> Any:
        def dtype(base: str) -> str:
            return base if lanes == 1 else f"{base}x{lanes}"

        def const(f: float) -> Any:
            return constant(f, "float32", lanes)

        suffix = "f32" if lanes == 1 else f"v{lanes}f32"
        rounded = call(dtype("float32"), f"llvm.roundeven.{suffix}", v * const(spec.factor))
        low, high = (const(float(limit - spec.zero_point)) for limit in ends(y.dtype))
        limited = tirx.max(tirx.min(rounded, high), low)
        return T.Cast(
            dtype(y.dtype), T.Cast(dtype("int32"), limited) + constant(spec.zero_point, "int32", lanes)
        )

    return _convert(name, x, y, value)


def dequantize_float(name: str, spec: DequantizeFloat, x: Layout, y: Layout) -> tirx.PrimFunc:
    """float32(float64(scale) * (x - zero_point))."""

    def value(v: Any, lanes: int) -> Any:
        def dtype(base: str) -> str:
            return base if lanes == 1 else f"{base}x{lanes}"

        centred = T.Cast(dtype("int32"), v) - constant(spec.zero_point, "int32", lanes)
        factor = constant(spec.scale, "float64", lanes)
        return T.Cast(dtype("float32"), T.Cast(dtype("float64"), centred) * factor)

    return _convert(name, x, y, value)


def _convert(name: str, x: Layout, y: Layout, value: Callable[[Any, int], Any]) -> tirx.PrimFunc:
    """Element-wise, reading and writing exactly `length` elements:
    either side may be the caller's own buffer.
    """

    def body(source: Any, out: Any) -> None:
        rows, length, offset = spans(x, y)
        with loop(rows, parallel=x.elements >= PARALLEL_ELEMENTS) as r:

            def one(at: Any, lanes: int) -> None:
                store(out, offset[1](r) + at, value(load(source, offset[0](r) + at, lanes), lanes), lanes)

            if length < 8:
                with loop(length) as k:
                    one(k, 1)
            else:
                pieces(length, lambda at, _: one(at, 8))

    return function(name, [Param("x", x.dtype, x.size), Param("y", y.dtype, y.size)], body)


# --- copies --------------------------------------------------------------------------------------------


def move(name: str, spec: Move, x: Layout, y: Layout) -> tirx.PrimFunc:
    """Copy x into the box of y at `spec.at`."""
    start = y.start + sum(a * s for a, s in zip(spec.at, y.strides, strict=True))
    dims = list(zip(x.shape, x.strides, y.strides, strict=True))
    return _strided(name, x, y, dims, start, flip=spec.flip)


def broadcast(name: str, spec: Broadcast, x: Layout, y: Layout) -> tirx.PrimFunc:
    """y[...] = x[...] with x's dimensions of extent 1 repeated."""
    dims = [
        (extent, 0 if size == 1 else stride, to)
        for extent, size, stride, to in zip(
            spec.shape, spec.source, _view(x, spec.source), _view(y, spec.shape), strict=True
        )
    ]
    return _strided(name, x, y, dims, y.start, flip=False)


def _view(v: Layout, shape: Sequence[int]) -> list[int]:
    """Strides of `v` seen as `shape`: the same dimensions, or the last one split in two; a borderless
    value as any shape.
    """
    if not v.halo:
        return [prod(shape[i + 1 :]) for i in range(len(shape))]
    assert shape[: len(v.shape) - 1] == v.shape[:-1]
    inner = shape[len(v.shape) - 1 :]
    return [*v.strides[:-1], *(prod(inner[i + 1 :]) for i in range(len(inner)))]


Dim = tuple[int, int, int]  # extent, stride in x, stride in y


def merge(dims: Sequence[Dim]) -> list[Dim]:
    """Fewest dimensions for the same copy; at least one."""
    merged: list[Dim] = []
    for extent, sx, sy in dims:
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * sx and merged[-1][2] == extent * sy:
            merged[-1] = (merged[-1][0] * extent, sx, sy)
        else:
            merged.append((extent, sx, sy))
    return merged or [(1, 1, 1)]


def _strided(
    name: str, x: Layout, y: Layout, dims: Sequence[Dim], start: int, *, flip: bool
) -> tirx.PrimFunc:
    merged = merge(dims)
    contiguous = merged[-1][1:] == (1, 1)
    length = merged[-1][0] if contiguous else 1
    outer = merged[:-1] if contiguous else merged
    extents = [d[0] for d in outer]
    count = prod(extents)

    def body(source: Any, out: Any) -> None:
        with loop(count, parallel=is_worth_sharing(count * length, count)) as index:
            at = split(index, extents) if extents else []
            ox = x.start + sum((i * d[1] for i, d in zip(at, outer, strict=True)), 0)
            oy = start + sum((i * d[2] for i, d in zip(at, outer, strict=True)), 0)
            copy(source, out, ox, oy, length, x.dtype, y.dtype, flip=flip)

    return function(name, [Param("x", x.dtype, x.size), Param("y", y.dtype, y.size)], body)


def copy(source: Any, out: Any, ox: Any, oy: Any, length: int, dtype: str, to: str, *, flip: bool) -> None:
    """`length` contiguous elements, neither read nor written beyond their end; flip = x ^ 0x80 between
    int8 and uint8.
    """

    def piece(at: Any, lanes: int) -> None:
        value = load(source, ox + at, lanes)
        if flip:
            value = value ^ constant(128 if dtype == "uint8" else -128, dtype, lanes)
        if dtype != to:
            value = T.reinterpret(to if lanes == 1 else f"{to}x{lanes}", value)
        store(out, oy + at, value, lanes)

    if length >= 16:
        with loop(length // 16) as k:
            piece(k * 16, 16)
    done = length // 16 * 16
    for lanes in (8, 4, 2, 1):
        if length - done >= lanes:
            piece(done, lanes)
            done += lanes


# --- fills ---------------------------------------------------------------------------------------------


def fill(name: str, spec: Fill, y: Layout) -> tirx.PrimFunc:
    """The whole buffer, or its halo: above, between the rows (right and next left border), below."""

    def body(out: Any) -> None:
        if spec.whole:
            _fill(out, 0, y.size, spec.value)
            return
        n, h, _, _ = y.shape
        image, row, pixel, _ = y.strides
        sides = (y.halo.left + y.halo.right) * pixel
        with loop(n) as batch:
            base = batch * image
            _fill(out, base, y.start, spec.value)
            if sides and h > 1:
                with loop(h - 1) as r:
                    _fill(out, base + y.start + r * row + y.shape[2] * pixel, sides, spec.value)
            last = y.start + (h - 1) * row + y.shape[2] * pixel
            _fill(out, base + last, image - last, spec.value)

    return function(name, [Param("y", y.dtype, y.size)], body)


def _fill(out: Any, offset: Any, length: int, value: float) -> None:
    if length >= 16:
        with loop(length // 16) as k:
            store(out, offset + k * 16, constant(value, out.dtype, 16), 16)
    done = length // 16 * 16
    for lanes in (8, 4, 2, 1):
        if length - done >= lanes:
            store(out, offset + done, constant(value, out.dtype, lanes), lanes)
            done += lanes
