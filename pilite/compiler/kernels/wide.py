"""Sums of int16 values times int8 weights in 64 bits, one output at a time: correct, tuned for no core."""

from __future__ import annotations

from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.emit import PARALLEL_MACS, Param, function, loop, split, store
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QConv16


def conv(name: str, spec: QConv16, x: Layout, y: Layout) -> tirx.PrimFunc:
    """y = clamp((bias + sum x * w) * mantissa / 2**right, ties up), every output channel by itself."""
    n, oh, ow, oc = y.shape
    depth = 1 if spec.multiplier else x.shape[3]
    taps = (*spec.window.kernel, depth)

    def body(source: Any, weight: Any, bias: Any, mantissa: Any, right: Any, out: Any) -> None:
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
            bits = T.Cast("int64", right[c])
            half = T.int64(1) << (bits - T.int64(1))
            scaled = T.Cast("int32", (total[0] * T.Cast("int64", mantissa[c]) + half) >> bits)
            limited = tirx.min(tirx.max(scaled, T.int32(spec.clamp_min)), T.int32(spec.clamp_max))
            place = y.start + batch * y.strides[0] + row * y.strides[1] + column * y.strides[2] + c
            store(out, place, T.Cast("int16", limited), 1)

    params = [
        Param("x", "int16", x.size),
        Param("weight", "int8", oc * prod(taps)),
        Param("bias", "int64", oc),
    ]
    params += [Param("mantissa", "int32", oc), Param("right", "int32", oc), Param("y", "int16", y.size)]
    return function(name, params, body)


def _corner(spec: QConv16, x: Layout, batch: Any, row: Any, column: Any) -> Any:
    """Where the window's first pixel lies; padding is in the border of x."""
    (sy, sx), (top, left) = spec.window.stride, spec.window.before
    start = x.start - top * x.strides[1] - left * x.strides[2]
    return start + batch * x.strides[0] + row * (sy * x.strides[1]) + column * (sx * x.strides[2])
