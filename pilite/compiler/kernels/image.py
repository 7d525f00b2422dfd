"""Interpolation between pixels, and positions of extremes."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.copy import nested
from pilite.compiler.kernels.emit import (
    Param,
    constant,
    function,
    is_worth_sharing,
    load,
    loop,
    split,
    store,
)
from pilite.compiler.kernels.isa import call
from pilite.compiler.kernels.pointwise import pieces
from pilite.compiler.layout import Layout
from pilite.compiler.spec import ArgExtreme, Bilinear

CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column) in the order of TFLite's sum


def bilinear(name: str, spec: Bilinear, x: Layout, y: Layout) -> tirx.PrimFunc:
    """Eight channels at a time; a pixel's four weights are products of scalars."""
    weight = "float32" if spec.real else "int32"
    blend = _blend_real if spec.real else _blend_fine if spec.fine else _blend_fixed
    blend = _blend_wide if x.dtype == "int16" else blend

    def body(source: Any, rows: Any, row_weights: Any, columns: Any, column_weights: Any, out: Any) -> None:
        with nested(y.shape[:3], y.elements) as (n, row, column):
            corner = [
                x.start
                + n * x.strides[0]
                + rows[2 * row + i] * x.strides[1]
                + columns[2 * column + j] * x.strides[2]
                for i, j in CORNERS
            ]
            weights = [(row_weights[2 * row + i], column_weights[2 * column + j]) for i, j in CORNERS]
            there = y.start + n * y.strides[0] + row * y.strides[1] + column * y.strides[2]

            def group(channel: Any, lanes: int) -> None:
                values = [load(source, at + channel, lanes) for at in corner]
                store(out, there + channel, blend(values, weights, spec.offset, lanes), lanes)

            _channels(y.shape[3], group)

    lines = [Param("rows", "int32", 2 * y.shape[1]), Param("row_weights", weight, 2 * y.shape[1])]
    lines += [Param("columns", "int32", 2 * y.shape[2]), Param("column_weights", weight, 2 * y.shape[2])]
    return function(name, [Param("x", x.dtype, x.size), *lines, Param("y", y.dtype, y.size)], body)


def _channels(count: int, group: Callable[[Any, int], None]) -> None:
    """group(first, lanes), neither reading nor writing beyond the last channel."""
    if count >= 8:
        pieces(count, group)
    else:
        with loop(count) as k:
            group(k, 1)


def _dtype(base: str, lanes: int) -> str:
    return base if lanes == 1 else f"{base}x{lanes}"


def _lanes(scalar: Any, lanes: int) -> Any:
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def _blend_fixed(values: list[Any], weights: list[tuple[Any, Any]], offset: int, lanes: int) -> Any:
    """20 fractional bits fit: weights of a row add up to 1,024 and lie between -512 and 1,536."""
    total = _weighted(values, weights, lanes)
    half = constant(1 << 19, "int32", lanes)
    away = tirx.Select(total > constant(0, "int32", lanes), total + half, total - half)
    return T.Cast(_dtype("int8", lanes), tirx.truncdiv(away, constant(1 << 20, "int32", lanes)))


def _blend_wide(values: list[Any], weights: list[tuple[Any, Any]], offset: int, lanes: int) -> Any:
    """The same of 16-bit values, whose sums need 64 bits."""
    total = _weighted(values, weights, lanes, "int64")
    half = constant(1 << 19, "int64", lanes)
    away = tirx.Select(total > constant(0, "int64", lanes), total + half, total - half)
    return T.Cast(_dtype("int16", lanes), tirx.truncdiv(away, constant(1 << 20, "int64", lanes)))


def _blend_fine(values: list[Any], weights: list[tuple[Any, Any]], offset: int, lanes: int) -> Any:
    """22 fractional bits: weights of a row add up to 2,048 and none is negative, so `offset` cancels."""
    total = _weighted(values, weights, lanes) + constant(1 << 21, "int32", lanes)
    return T.Cast(_dtype("int8", lanes), total >> constant(22, "int32", lanes))


def _weighted(values: list[Any], weights: list[tuple[Any, Any]], lanes: int, dtype: str = "int32") -> Any:
    products = [
        T.Cast(_dtype(dtype, lanes), v) * _lanes(r * c if dtype == "int32" else T.Cast(dtype, r * c), lanes)
        for v, (r, c) in zip(values, weights, strict=True)
    ]
    return products[0] + products[1] + products[2] + products[3]


def _blend_real(values: list[Any], weights: list[tuple[Any, Any]], offset: int, lanes: int) -> Any:
    """(x * row weight) * column weight, added from left to right, each step rounded to float32."""
    terms = []
    for v, (r, c) in zip(values, weights, strict=True):
        whole = T.Cast(_dtype("int32", lanes), v) + constant(offset, "int32", lanes)
        real = T.Cast(_dtype("float32", lanes), whole)
        terms.append(_rounded(_rounded(real * _lanes(r, lanes), lanes) * _lanes(c, lanes), lanes))
    total = terms[0] + terms[1] + terms[2] + terms[3] + constant(0.5, "float32", lanes)
    wide = T.Cast(_dtype("int32", lanes), total) - constant(offset, "int32", lanes)
    return T.Cast(_dtype("int8", lanes), wide)


def _rounded(product: Any, lanes: int) -> Any:
    """The product as a float32 of its own: LLVM would fuse it with the next addition."""
    name = "f32" if lanes == 1 else f"v{lanes}f32"
    return call(_dtype("float32", lanes), f"llvm.arithmetic.fence.{name}", product)


def arg_extreme(name: str, spec: ArgExtreme, x: Layout, y: Layout) -> tirx.PrimFunc:
    """One pass along the axis for every other position; only a strictly better value moves the answer."""
    kept = [axis for axis in range(len(x.shape)) if axis != spec.axis]
    extents = [x.shape[axis] for axis in kept]
    size, stride = x.shape[spec.axis], x.strides[spec.axis]
    count = prod(extents)

    def body(source: Any, out: Any) -> None:
        with loop(count, parallel=is_worth_sharing(x.elements, count)) as index:
            at = split(index, extents) if extents else []
            start = x.start + sum((i * x.strides[axis] for i, axis in zip(at, kept, strict=True)), 0)
            best, place = T.alloc_buffer((1,), x.dtype), T.alloc_buffer((1,), "int32")
            T.buffer_store(best, source[start], [0])
            T.buffer_store(place, T.int32(0), [0])
            if size > 1:
                with T.serial(0, size - 1) as k:
                    value = source[start + (k + 1) * stride]
                    better = value > best[0] if spec.largest else value < best[0]
                    T.buffer_store(place, tirx.Select(better, k + 1, place[0]), [0])
                    T.buffer_store(best, tirx.Select(better, value, best[0]), [0])
            store(out, index, T.Cast(y.dtype, place[0]), 1)

    return function(name, [Param("x", x.dtype, x.size), Param("y", y.dtype, y.size)], body)
