"""Depthwise convolution by dot product: four neighbouring pixels of a line in every lane of sdot.

Four zips turn four pixels of eight channels into two vectors of four channels x four pixels, a *group*.
A group serves every output pixel and every output line whose window it meets; only the weights differ:
(w0, w1, w2, 0) for the pixel at its left edge, (0, w0, w1, w2) for the next one.

acc[r][c][v]  int32x4: pixel (r, c) of the tile, channels 4v .. 4v+3; starts at the bias
step          one group: ldr d x 4, zip x 4, then 2 sdot for each window row and pixel that meets it
registers     3 x 2 x 2 accumulators + 2 group + 4 pixels; weights come from the first-level cache
weights       [block][step][pattern][vector][4 channels][4 pixels]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.kernels.depthwise import block_starts
from pilite.compiler.kernels.emit import (
    Param,
    Share,
    apart,
    assign,
    blocks_loop,
    blocks_param,
    function,
    is_worth_a_barrier,
    load,
    loop,
    minimum,
    registers,
    reload,
    share,
    shuffle,
    split,
    store_first,
    whole,
)
from pilite.compiler.kernels.isa import Neon
from pilite.compiler.kernels.packing import Int, channel_constants, channel_params, pick
from pilite.compiler.layout import Layout
from pilite.compiler.requantize import requantize
from pilite.compiler.spec import Arrays, QDepthwiseConv2D

BLOCK = 8  # channels
QUAD = 4  # pixels of a group, products of one lane
ROWS = (3, 2, 1)  # output lines that a register tile may have, the best first
ISA = Neon()


@dataclass(frozen=True)
class Pattern:
    """The weights `tap` .. `tap + count - 1` of a window row, from `lane` of a group on."""

    tap: int
    lane: int
    count: int


@dataclass(frozen=True)
class Piece:
    """The part of one output pixel's window row that lies in the group starting at input column `group`."""

    pixel: int
    group: int
    pattern: Pattern


def cover(pixels: int, width: int, stride: int) -> tuple[Piece, ...]:
    """Window rows of `pixels` neighbouring outputs, cut along groups for the fewest instructions."""
    return min((_cover(pixels, width, stride, share) for share in (True, False)), key=_cost)


def _cover(pixels: int, width: int, stride: int, share_parts: bool) -> tuple[Piece, ...]:
    """Every window joins groups that exist where they hold all that is left of it, or any of it."""
    pieces: list[Piece] = []
    for pixel in range(pixels):
        first, at = pixel * stride, pixel * stride
        end = first + width
        while at < end:
            starts = [p.group for p in pieces if p.group <= at < p.group + QUAD]
            group = max((g for g in starts if share_parts or end <= g + QUAD), default=at)
            stop = min(end, group + QUAD)
            pieces.append(Piece(pixel, group, Pattern(at - first, at - group, stop - at)))
            at = stop
    return tuple(pieces)


def _cost(pieces: Sequence[Piece]) -> int:
    """Instructions of one line of a tile: loads and zips of a group, sdots of a piece."""
    return 2 * QUAD * len({p.group for p in pieces}) + 2 * len(pieces)


@dataclass(frozen=True)
class Plan:
    """What decides the code. `rows`: the window row of each packed step, in rising order; a row of weights
    beyond int8 has two.
    """

    rows: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return tuple(dict.fromkeys(p.pattern for p in self.pieces))

    @property
    def pixels(self) -> int:
        return 1 + max(p.pixel for p in self.pieces)

    @property
    def block_bytes(self) -> int:
        return len(self.rows) * len(self.patterns) * BLOCK * QUAD

    def first(self, pixels: int) -> tuple[Piece, ...]:
        """The pieces of the first `pixels` outputs of a tile."""
        return tuple(p for p in self.pieces if p.pixel < pixels)


def wants(spec: QDepthwiseConv2D, arrays: Arrays) -> bool:
    """Neighbouring taps are neighbouring pixels, and the unrolled window is not too long."""
    height, width, _ = arrays["weight"].shape
    return spec.window.dilation[1] == 1 and height * width <= 49


def pack(spec: QDepthwiseConv2D, arrays: Arrays) -> tuple[Plan, tuple[Int, ...]]:
    """Constants in parameter order: weights, bias, then the operands of the requantization."""
    weight = np.asarray(arrays["weight"], np.int32)  # (kh, kw, c)
    steps = _steps(weight)
    width, stride = weight.shape[1], spec.window.stride[1]
    plan = Plan(tuple(row for row, _ in steps), cover(2 if width < QUAD else QUAD, width, stride))
    starts = block_starts(weight.shape[2], BLOCK)
    source = np.add.outer(starts, np.arange(BLOCK))
    source = np.where(source < weight.shape[2], source, -1)
    lanes = np.stack([[_lanes(w, p) for p in plan.patterns] for _, w in steps])  # (steps, patterns, c, 4)
    blocks = np.stack([pick(lanes.transpose(2, 0, 1, 3), row) for row in source])
    packed = blocks.transpose(0, 2, 3, 1, 4).astype(np.int8)
    constants = channel_constants(ISA, spec.requant, arrays, source.ravel())
    return plan, (np.ascontiguousarray(packed).ravel(), *constants)


def _steps(weight: Int) -> list[tuple[int, Int]]:
    """(row, int8 weights) whose sum over equal rows is `weight`: a row again for what int8 could not hold."""
    steps: list[tuple[int, Int]] = []
    for row, rest in enumerate(weight):
        while True:
            steps.append((row, np.clip(rest, -128, 127)))
            rest = rest - steps[-1][1]
            if not rest.any():
                break
    return steps


def _lanes(row: Int, pattern: Pattern) -> Int:
    """(kw, c) -> (c, 4)."""
    lanes = np.zeros((row.shape[1], QUAD), row.dtype)
    taps = slice(pattern.tap, pattern.tap + pattern.count)
    lanes[:, pattern.lane : pattern.lane + pattern.count] = row[taps].T
    return lanes


# --- code ----------------------------------------------------------------------------------------------


def emit(name: str, spec: QDepthwiseConv2D, plan: Plan, x: Layout, y: Layout) -> tirx.PrimFunc:
    """The kernel. Parameters: x, weights, bias, requantization operands, y."""
    blocks = len(block_starts(y.shape[3], BLOCK))
    params = [
        Param("x", "int8", x.size),
        Param("w", "int8", blocks * plan.block_bytes),
        *channel_params(spec.requant, blocks * BLOCK),
        Param("y", "int8", y.size),
        *blocks_param(),
    ]

    def body(*buffers: Any) -> None:
        named = dict(zip((p.name for p in params), buffers, strict=True))
        _Code(spec, plan, x, y, named).loops(blocks)

    return function(name, params, body)


@dataclass(frozen=True)
class _Code:
    """The loop nest around the register tile. What does not fill a tile gets a smaller one."""

    spec: QDepthwiseConv2D
    plan: Plan
    x: Layout
    y: Layout
    buffers: dict[str, Any]

    def loops(self, blocks: int) -> None:
        n, oh, ow, _ = self.y.shape
        height = _rows_of_tile(oh, self.spec)
        parallel = is_worth_a_barrier(prod((n, oh, ow, blocks, BLOCK, *self.spec.window.kernel)))
        for first, lines, tiles in _cut(oh, height):
            with self._tasks((n, tiles, blocks), parallel) as (image, tile, block):
                for left, pixels, count in _cut(ow, self.plan.pixels):
                    with loop(count) as t:
                        batch, down, b, right = map(self._position, (image, tile, block, t))
                        self.tile((batch, first + down * lines), b, left + right * pixels, lines, pixels)

    @contextmanager
    def _tasks(self, extents: tuple[int, int, int], parallel: bool) -> Iterator[list[Any]]:
        """Images x tiles x blocks: one loop for the threads, or two where one thread has rows or blocks."""
        if share() is Share.WHOLE:
            with loop(prod(extents), parallel=parallel) as p:
                yield split(p, extents)
            return
        with loop(prod(extents[:2]), parallel=parallel) as p, blocks_loop(extents[2], self.buffers) as block:
            yield [*split(p, extents[:2]), block]

    def _position(self, index: Any) -> Any:
        """Of 64 bits in rows: LLVM then knows addresses, and spills where a weight takes two steps."""
        wide = share() is Share.ROWS and len(self.plan.rows) <= self.spec.window.kernel[0]
        return T.Cast("int64", index) if wide else index

    def tile(self, row: Sequence[Any], block: Any, column: Any, lines: int, pixels: int) -> None:
        channels, first = self.y.shape[3], block * BLOCK
        channel = first if channels % BLOCK == 0 else minimum(first, max(channels - BLOCK, 0))

        def operand(name: str, part: int) -> Any:
            return load(self.buffers[name], first + part * ISA.lanes, ISA.lanes)

        acc = [[[registers(4, "int32") for _ in range(2)] for _ in range(pixels)] for _ in range(lines)]
        for pixel in (pixel for line in acc for pixel in line):
            for part, a in enumerate(pixel):
                assign(a, self._bias(first + part * ISA.lanes), 4)
        self._window(acc, self._origin(row, column) + channel, block * self.plan.block_bytes)
        requant = self.spec.requant
        at = self.y.start + row[0] * self.y.strides[0] + column * self.y.strides[2] + channel
        at += row[1] * self.y.strides[1]
        for r, line in enumerate(acc):
            below = self._below(r)
            for c, pixel in enumerate(line):
                q = [
                    requantize(
                        ISA,
                        whole(a, 4),
                        requant,
                        lambda name, p=part: operand(name, p),  # type: ignore[misc]
                        shifted=False,
                    )
                    for part, a in enumerate(pixel)
                ]
                narrow = ISA.narrow8(q, *requant.narrowing)
                offset = at + below + c * self.y.strides[2]
                store_first(self.buffers["y"], offset, narrow, BLOCK, min(channels, BLOCK))

    def _below(self, lines: int) -> Any:
        """The distance of a line of y."""
        return apart(lines * self.y.strides[1]) if lines else 0

    def _bias(self, at: Any) -> Any:
        """What a sum starts from. At stride 2 LLVM spills pixels around loads that it must not move."""
        bias = self.buffers["bias"]
        return reload(bias, at) if self.spec.window.stride[1] == 1 else load(bias, at, ISA.lanes)

    def _origin(self, row: Sequence[Any], column: Any) -> Any:
        """Offset of the first tap of the window of the tile's first pixel."""
        window, (image, line, pixel, _) = self.spec.window, self.x.strides
        start = self.x.start - window.before[0] * line - window.before[1] * pixel
        down, right = window.stride
        return start + row[0] * image + row[1] * (down * line) + column * (right * pixel)

    def _window(self, acc: Sequence[Sequence[Sequence[Any]]], origin: Any, base: Any) -> None:
        """Every input line of the tile once: its groups meet all rows of acc that see them."""
        (stride, _), (dilation, _) = self.spec.window.stride, self.spec.window.dilation
        pieces = self.plan.first(len(acc[0]))
        end = max(p.group + p.pattern.lane + p.pattern.count for p in pieces)
        patterns = self.plan.patterns
        seen = [
            (r * stride + k * dilation, r, s) for r in range(len(acc)) for s, k in enumerate(self.plan.rows)
        ]
        for line in sorted({at for at, _, _ in seen}):
            for group in sorted({p.group for p in pieces}):
                quad = self._group(origin + line * self.x.strides[1], group, end)
                for _, r, step in (one for one in seen if one[0] == line):
                    for p in (p for p in pieces if p.group == group):
                        pattern = step * len(patterns) + patterns.index(p.pattern)
                        for v, a in enumerate(acc[r][p.pixel]):
                            w = load(self.buffers["w"], base + (2 * pattern + v) * 16, 16)
                            assign(a, ISA.dot(whole(a, 4), whole(quad[v], 16), w), 4)

    def _group(self, line: Any, start: int, end: int) -> list[Any]:
        """Four pixels as 2 x (4 channels, 4 pixels); instead of one that no window needs, the last needed."""
        columns = [min(start + i, end - 1) for i in range(QUAD)]
        held = {c: registers(8, "int8") for c in columns}
        for c, register in held.items():
            assign(register, load(self.buffers["x"], line + c * self.x.strides[2], BLOCK), BLOCK)
        p = [whole(held[c], BLOCK) for c in columns]
        pairs = [registers(16, "int8") for _ in range(2)]
        for register, a, b in zip(pairs, p[:2], p[2:], strict=True):
            assign(register, _zip(a, b, 8), 16)
        group = [registers(16, "int8") for _ in range(2)]
        for half, register in enumerate(group):
            a, b = (shuffle([whole(pair, 16)], range(8 * half, 8 * half + 8)) for pair in pairs)
            assign(register, _zip(a, b, 8), 16)
        return group


def _zip(a: Any, b: Any, lanes: int) -> Any:
    """a0 b0 a1 b1 ..."""
    return shuffle([a, b], [i for k in range(lanes) for i in (k, lanes + k)])


def _cut(extent: int, size: int) -> list[tuple[int, int, int]]:
    """(first, size, count) of whole tiles and of the rest."""
    whole_tiles, rest = divmod(extent, size)
    return [t for t in ((0, size, whole_tiles), (extent - rest, rest, 1)) if t[1] and t[2]]


def _rows_of_tile(height: int, spec: QDepthwiseConv2D) -> int:
    """Output lines of a tile: fewest input lines to turn around, while the accumulators fit registers."""
    kernel, stride, dilation = spec.window.kernel[0], spec.window.stride[0], spec.window.dilation[0]

    def lines(rows: int) -> int:
        return len({r * stride + k * dilation for r in range(rows) for k in range(kernel)})

    def total(rows: int) -> int:
        return sum(count * lines(size) for _, size, count in _cut(height, rows))

    most = ROWS[0] if spec.window.kernel[1] < QUAD else ROWS[1]
    return min((rows for rows in ROWS if rows <= most), key=total)
