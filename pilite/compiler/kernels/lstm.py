"""An integer LSTM: for every step four gates, then the cells, then the output.

    gate[g, c] = function(sat16(scaled(Wx . x) + sat16(scaled(Wr . h))))     int16, in scratch
    cell[c]    = sat16(cell * forget / 2**15 + input * new / 2**shift)        int16, state
    h[c]       = clamp8(scaled(output * tanh(cell)) + zero point)            int8, state and output

The states are zero at first: h is stored xor its zero point. Functions are tables of all int16 values.

A sum adds its products in 32 bits, with `paired` two by two in 16 bits first: as many as fill such blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import Multiplier
from pilite.compiler.kernels.emit import Param, function, loop
from pilite.compiler.layout import Layout
from pilite.compiler.spec import QLstm

INPUT, FORGET, CELL, OUTPUT = range(4)
VALUES = 1 << 16


@dataclass(frozen=True)
class Buffers:
    """The kernel's parameters."""

    x: Any
    hidden: Any
    cell: Any
    input_weight: Any
    recurrent_weight: Any
    input_bias: Any
    recurrent_bias: Any
    sigmoid: Any
    gate_tanh: Any
    cell_tanh: Any
    gates: Any
    y: Any


@dataclass(frozen=True)
class Products:
    """(x ^ flip) * w of `count` elements, from these places on."""

    x: Any
    x_at: Any
    w: Any
    w_at: Any
    count: int
    flip: Any

    def at(self, k: Any) -> Any:
        return _wide(self.x[self.x_at + k] ^ self.flip) * _wide(self.w[self.w_at + k])


def scratch(y: Layout) -> tuple[int, ...]:
    """Four gates of int16."""
    return (4 * 2 * y.shape[-1],)


def emit(name: str, spec: QLstm, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    first, second, inputs = xs[0].shape
    cells = y.shape[-1]
    steps, batch = (first, second) if spec.time_major else (second, first)

    def body(*parameters: Any) -> None:
        b = Buffers(*parameters)
        with loop(batch) as n, loop(steps) as t:
            row = t * batch + n if spec.time_major else n * steps + t
            for g in range(4):
                with loop(cells) as c:
                    _gate(b, spec, g, c, (row * inputs, n * cells), (inputs, cells))
            with loop(cells) as c:
                _cell(b, spec, c, n * cells + c, cells)
                _output(b, spec, c, n * cells + c, row * cells + c, cells)

    state = batch * cells
    params = [Param("x", "int8", xs[0].size), Param("h", "int8", state), Param("cell", "int16", state)]
    params += [Param("wx", "int8", 4 * cells * inputs), Param("wr", "int8", 4 * cells * cells)]
    params += [Param("bx", "int32", 4 * cells), Param("br", "int32", 4 * cells)]
    params += [Param(table, "int16", VALUES) for table in ("sigmoid", "gate_tanh", "cell_tanh")]
    return function(name, [*params, Param("gates", "int16", 4 * cells), Param("y", "int8", y.size)], body)


def _gate(b: Buffers, spec: QLstm, g: int, c: Any, at: tuple[Any, Any], sizes: tuple[int, int]) -> None:
    inputs, cells = sizes
    row = g * cells + c
    new = Products(b.x, at[0], b.input_weight, row * inputs, inputs, T.int8(0))
    total = _sum(new, b.input_bias[row], spec.paired)
    kept = T.alloc_buffer((1,), "int32")
    T.buffer_store(kept, _saturated(_scaled(total, spec.gates[g].input), 16), [0])
    old = Products(b.hidden, at[1], b.recurrent_weight, row * cells, cells, T.int8(spec.state_zero_point))
    total = _sum(old, b.recurrent_bias[row], spec.paired)
    value = _saturated(_scaled(total, spec.gates[g].recurrent) + kept[0], 16)
    table = b.gate_tanh if g == CELL else b.sigmoid
    T.buffer_store(b.gates, table[value + T.int32(VALUES // 2)], [row])


def _sum(products: Products, bias: Any, paired: int) -> Any:
    """bias + the sum of all products."""
    total = T.alloc_buffer((1,), "int32")
    T.buffer_store(total, bias, [0])
    blocks = products.count // (2 * paired) if paired else 0
    if blocks:
        with loop(blocks) as block, loop(paired) as lane:
            k = block * (2 * paired) + lane
            pair = T.Cast("int16", products.at(k) + products.at(k + paired))
            T.buffer_store(total, total[0] + _wide(pair), [0])
    with loop(products.count - blocks * 2 * paired) as k:
        T.buffer_store(total, total[0] + products.at(k + blocks * 2 * paired), [0])
    return total[0]


def _cell(b: Buffers, spec: QLstm, c: Any, at: Any, cells: int) -> None:
    old = _shifted(_wide(b.gates[FORGET * cells + c]) * _wide(b.cell[at]), 15)
    new = _shifted(_wide(b.gates[INPUT * cells + c]) * _wide(b.gates[CELL * cells + c]), spec.cell_shift)
    # TFLite stores both products as int16 before it adds them.
    total = _saturated(_wide(T.Cast("int16", old)) + _wide(T.Cast("int16", new)), 16)
    if spec.cell_clip:
        total = tirx.min(tirx.max(total, T.int32(-spec.cell_clip)), T.int32(spec.cell_clip))
    T.buffer_store(b.cell, T.Cast("int16", total), [at])


def _output(b: Buffers, spec: QLstm, c: Any, at: Any, there: Any, cells: int) -> None:
    activated = _wide(b.cell_tanh[_wide(b.cell[at]) + T.int32(VALUES // 2)])
    scaled = _scaled(_wide(b.gates[OUTPUT * cells + c]) * activated, spec.hidden)
    value = T.Cast("int8", _saturated(scaled + T.int32(spec.hidden_zero_point), 8))
    T.buffer_store(b.y, value, [there])
    T.buffer_store(b.hidden, b.y[there] ^ T.int8(spec.state_zero_point), [at])


def _wide(x: Any) -> Any:
    return T.Cast("int32", x)


def _saturated(x: Any, bits: int) -> Any:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return tirx.min(tirx.max(x, T.int32(low)), T.int32(high))


def _scaled(x: Any, m: Multiplier) -> Any:
    """MultiplyByQuantizedMultiplier of one int32."""
    shifted = x << T.int32(m.left) if m.left else x
    product = T.Cast("int64", shifted) * T.int64(m.mantissa) + T.int64(1 << 30)
    return _shifted(T.Cast("int32", product >> T.int64(31)), m.right)


def _shifted(x: Any, bits: int) -> Any:
    """x / 2**bits, ties away from zero."""
    if not bits:
        return x
    mask, zero, one = (1 << bits) - 1, T.int32(0), T.int32(1)
    threshold = T.int32(mask >> 1) + tirx.Select(x < zero, one, zero)
    return (x >> T.int32(bits)) + tirx.Select((x & T.int32(mask)) > threshold, one, zero)
