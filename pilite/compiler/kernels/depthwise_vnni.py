"""Depthwise convolution with AVX-512 VNNI: columns of the window as quads of taps.

Of one input column, the rows under the window are loaded for a block of channels, made unsigned (x ^ 0x80)
and interleaved, so that four taps of a channel lie side by side: one vpdpbusd multiplies and adds them. A
column is interleaved once for all output pixels of the tile that read it. Weights beyond int8 are two taps.

    acc       4 vectors a pixel, in the order of `Vnni.order(4)`, for 4 pixels; requantized vector by vector,
              so that the constants of a vector are loaded once a tile
    weights   int8 [block][column][quad][vector][channel][4 taps]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels.depthwise import block_starts
from pilite.compiler.kernels.emit import (
    PARALLEL_MACS,
    Param,
    anew,
    assign,
    function,
    load,
    loop,
    minimum,
    registers,
    split,
    store_first,
    whole,
)
from pilite.compiler.kernels.isa_avx512 import Vnni
from pilite.compiler.kernels.packing import Int, channel_constants, channel_params, pick
from pilite.compiler.layout import Layout
from pilite.compiler.requantize import requantize
from pilite.compiler.spec import Arrays, QDepthwiseConv2D

ROWS = 8  # output rows of a task at most: a block of channels of them stays in L1


@dataclass(frozen=True)
class Columns:
    """For every window column the rows of its taps, a multiple of four; padding repeats row 0 at weight 0."""

    rows: tuple[tuple[int, ...], ...]

    @property
    def quads(self) -> tuple[int, ...]:
        return tuple(len(rows) // 4 for rows in self.rows)


@dataclass(frozen=True)
class DepthwiseVnni:
    """Kernel family for blocks of `4 * isa.lanes` channels."""

    isa: Vnni
    share: int = 0

    @property
    def block(self) -> int:
        return 4 * self.isa.lanes

    def prepare(self, spec: QDepthwiseConv2D, arrays: Arrays) -> tuple[Columns, tuple[Int, ...]]:
        """Weights, bias (moved for unsigned x), then the operands of the requantization."""
        weight = np.asarray(arrays["weight"], np.int32)  # (kh, kw, c)
        columns, taps = columns_of(weight)
        order = np.array(self.isa.order(4))
        source = [
            np.where(order + start < weight.shape[2], order + start, -1)
            for start in block_starts(weight.shape[2], self.block)
        ]
        packed = [self._pack(pick(taps.T, channels)) for channels in source]
        moved = np.asarray(arrays["bias"], np.int64) - 128 * weight.sum((0, 1))
        bias = moved.astype(np.uint64).astype(np.uint32).view(np.int32)
        constants = channel_constants(
            self.isa, spec.requant, {**arrays, "bias": bias}, np.concatenate(source)
        )
        return columns, (np.concatenate(packed).astype(np.int8), *constants)

    def _pack(self, taps: Int) -> Int:
        """(block channels, taps) -> [quad][channel][4]; vectors follow from the order of channels."""
        quads: Int = taps.reshape(self.block, -1, 4).transpose(1, 0, 2)
        return quads.ravel()

    def scratch(self, variant: Columns, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        return ()

    def emit(
        self,
        name: str,
        spec: QDepthwiseConv2D,
        variant: Columns,
        xs: Sequence[Layout],
        y: Layout,
        cpu: Cpu,
    ) -> tirx.PrimFunc:
        """The kernel. Parameters: x, weights, bias, requantization operands, y."""
        blocks = len(block_starts(y.shape[3], self.block))
        params = [
            Param("x", "int8", xs[0].size),
            Param("w", "int8", blocks * self.block * 4 * sum(variant.quads)),
            *channel_params(spec.requant, blocks * self.block),
            Param("y", "int8", y.size),
        ]

        def body(*buffers: Any) -> None:
            named = dict(zip((p.name for p in params), buffers, strict=True))
            width = min(cpu.tile("depthwise")[0], y.shape[2])
            _Code(self.isa, spec, variant, xs[0], y, width, named).loops(blocks)

        return function(name, params, body)


def columns_of(weight: Int) -> tuple[Columns, Int]:
    """The taps of every column and their weights (taps of all columns, c), each in int8."""
    rows, taps = [], []
    for j in range(weight.shape[1]):
        parts: list[Int] = []
        rest = weight[:, j]
        while rest.any() or not parts:
            parts.append(np.clip(rest, -128, 127))
            rest = rest - parts[-1]
        chosen = [(i, p) for k, p in enumerate(parts) for i in range(len(p)) if k == 0 or p[i].any()]
        padding = -len(chosen) % 4
        rows.append((*(i for i, _ in chosen), *(0,) * padding))
        taps += [p[i] for i, p in chosen] + [np.zeros_like(weight[0, 0])] * padding
    return Columns(tuple(rows)), np.stack(taps)


@dataclass(frozen=True)
class _Code:
    """The loop nest around the tile of `width` output pixels."""

    isa: Vnni
    spec: QDepthwiseConv2D
    columns: Columns
    x: Layout
    y: Layout
    width: int
    buffers: dict[str, Any]

    @property
    def block(self) -> int:
        return 4 * self.isa.lanes

    def loops(self, blocks: int) -> None:
        """Tasks are (rows, block of channels); a task walks its rows, and a row its tiles."""
        n, oh, ow, channels = self.y.shape
        together = next(rows for rows in range(ROWS, 0, -1) if n * oh % rows == 0)
        tasks = (n * oh // together, blocks)
        work = self.y.elements * prod(self.spec.window.kernel)
        with loop(prod(tasks), parallel=work >= PARALLEL_MACS) as task:
            chunk, block = split(task, tasks)
            first = block * self.block
            channel = minimum(first, max(channels - self.block, 0)) if channels % self.block else first
            with loop(together) as r:
                row = split(chunk * together + r, (n, oh))
                with loop(ow // self.width) as t:
                    self.tile(row, anew(block), channel, t * self.width, self.width)
                if ow % self.width:
                    self.tile(row, anew(block), channel, ow // self.width * self.width, ow % self.width)

    def tile(self, row: Sequence[Any], block: Any, channel: Any, column: Any, width: int) -> None:
        """Input columns from left to right; each feeds every one of `width` output pixels that reads it."""
        step, dilation = self.spec.window.stride[1], self.spec.window.dilation[1]
        origin = self._origin(row, column) + channel
        acc: dict[int, list[Any]] = {}
        readers: dict[tuple[int, tuple[int, ...]], list[tuple[int, int]]] = {}
        for pixel in range(width):
            for j, rows in enumerate(self.columns.rows):
                readers.setdefault((pixel * step + j * dilation, rows), []).append((pixel, j))
        halves = T.reinterpret(f"int8x{self.isa.bytes_}", self.isa.halves())
        for (at, rows), readings in sorted(readers.items()):
            quads = self._quads(origin + at * self.x.strides[2], rows, halves)
            for pixel, j in readings:
                if pixel not in acc:
                    acc[pixel] = [self._start(block, v) for v in range(4)]
                self._multiply(acc[pixel], quads, block, j)
        self._requantize(acc.values(), block)
        for pixel, vectors in acc.items():
            self._store(vectors, row, channel, column + pixel)

    def _origin(self, row: Sequence[Any], column: Any) -> Any:
        """Offset of the window's first tap for the pixel at `column`."""
        window, (image, line, pixel, _) = self.spec.window, self.x.strides
        start = self.x.start - window.before[0] * line - window.before[1] * pixel
        down = row[0] * image + row[1] * (window.stride[0] * line)
        return start + down + column * (window.stride[1] * pixel)

    def _quads(self, origin: Any, rows: tuple[int, ...], halves: Any) -> list[list[Any]]:
        """One input column, interleaved; held in registers because several pixels read it."""
        line, size = self.x.strides[1] * self.spec.window.dilation[0], self.isa.bytes_
        unsigned = {
            i: self._held(load(self.buffers["x"], origin + i * line, size) ^ halves)
            for i in dict.fromkeys(rows)
        }
        taps = [[whole(unsigned[i], size) for i in rows[k : k + 4]] for k in range(0, len(rows), 4)]
        return [[self._held(v) for v in self.isa.quads(four)] for four in taps]

    def _held(self, value: Any) -> Any:
        held = registers(self.isa.bytes_, "int8")
        assign(held, value, self.isa.bytes_)
        return held

    def _start(self, block: Any, v: int) -> Any:
        acc = registers(self.isa.lanes, "int32")
        assign(acc, self._operand("bias", block, v), self.isa.lanes)
        return acc

    def _operand(self, name: str, block: Any, v: int) -> Any:
        return load(self.buffers[name], block * self.block + v * self.isa.lanes, self.isa.lanes)

    def _multiply(self, acc: Sequence[Any], quads: Sequence[Sequence[Any]], block: Any, j: int) -> None:
        size, lanes = self.isa.bytes_, self.isa.lanes
        before = sum(self.columns.quads[:j])
        base = (block * sum(self.columns.quads) + before) * (4 * self.block)
        for q, quad in enumerate(quads):
            for v, a in enumerate(acc):
                w = load(self.buffers["w"], base + q * (4 * self.block) + v * size, size)
                assign(a, self.isa.dot(whole(a, lanes), whole(quad[v], size), w), lanes)

    def _requantize(self, sums: Iterable[Sequence[Any]], block: Any) -> None:
        lanes = self.isa.lanes
        for v, vector in enumerate(zip(*sums, strict=True)):
            for acc in vector:
                q = requantize(
                    self.isa,
                    whole(acc, lanes),
                    self.spec.requant,
                    lambda name, v=v: self._operand(name, block, v),  # type: ignore[misc]
                )
                assign(acc, q, lanes)

    def _store(self, vectors: Sequence[Any], row: Sequence[Any], channel: Any, column: Any) -> None:
        requant, lanes = self.spec.requant, self.isa.lanes
        q = [whole(v, lanes) for v in vectors]
        narrow = self.isa.narrow(q, requant.zero_point, requant.clamp_min, requant.clamp_max)
        image, line, pixel, _ = self.y.strides
        at = self.y.start + row[0] * image + row[1] * line + column * pixel + channel
        store_first(self.buffers["y"], at, narrow, self.block, min(self.y.shape[3], self.block))
