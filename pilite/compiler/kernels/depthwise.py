"""Depthwise convolution, fused like q_conv2d: a few pixels of a row times a block of channels per tile.

The window is a list of taps (row, column), cut into chains: products that are added before they are widened.
A window of more than UNROLL taps becomes a loop over its rows. The last channel block overlaps its neighbour.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, ClassVar

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.cpu import Cpu
from pilite.compiler.fixedpoint import Requant
from pilite.compiler.kernels.emit import (
    Param,
    Share,
    assign,
    blocks_loop,
    blocks_param,
    function,
    is_worth_a_barrier,
    load,
    loop,
    minimum,
    registers,
    share,
    shuffle,
    split,
    store_first,
    whole,
)
from pilite.compiler.kernels.isa import AVX2_ORDER, Avx2, Isa, Neon
from pilite.compiler.kernels.packing import Int, channel_constants, channel_params, pick
from pilite.compiler.layout import Layout
from pilite.compiler.requantize import requantize
from pilite.compiler.spec import Arrays, QDepthwiseConv2D

UNROLL = 32
ROWS_PARALLEL = 16  # below this many output rows the channel blocks are the better tasks


@dataclass(frozen=True)
class Taps:
    """The window as code sees it: `rows` iterations of the taps in `steps`, each (row, column).

    `chains`: how many neighbouring steps are added before they are widened, chain after chain.
    """

    rows: int
    steps: tuple[tuple[int, int], ...]
    chains: tuple[int, ...] = ()


class Strategy(ABC):
    """One multiply primitive for a block of `block` channels."""

    isa: Isa
    block: ClassVar[int]
    weight_dtype: ClassVar[str]

    @abstractmethod
    def layers(self, weight: Int) -> list[Int]:
        """Arrays that add up to `weight`, each in the range of the primitive."""

    @abstractmethod
    def chains(self, weight: Int) -> list[list[int]]:
        """(rows, steps, c) -> the steps, cut into chains that may be added before they are widened."""

    @abstractmethod
    def order(self) -> Sequence[int]:
        """Channel in each (vector, lane) of a block."""

    @abstractmethod
    def pack(self, weight: Int) -> Int:
        """(blocks, rows, steps, block) in channel order -> the order that `chain` reads."""

    @abstractmethod
    def chain(self, acc: Sequence[Any], x: Sequence[Any], w: Any, w_offset: Any) -> None:
        """acc += x[0] * w0 + x[1] * w1 + ...; `x` holds one vector of 8-bit values for each step."""

    @abstractmethod
    def narrow(self, q: Sequence[Any], requant: Requant) -> Any:
        """One block of int8 results in channel order."""


class Mull8(Strategy):
    """smull, smlal, smlal ... in int16, then saddw. A weight beyond 127 is split in two taps.

    acc[i][v]  int32x4: pixel i, channels 4v .. 4v+3; starts at the bias
    chain      taps whose weights sum to at most LIMIT in every channel: smull, smlal ..., saddw, saddw2
    registers  4 x 2 accumulators + products + pixels; 9 weights and 6 constants as far as they fit
    weights    [block][row][step][8 channels], chain after chain
    """

    isa = Neon()
    block = 8
    weight_dtype = "int8"
    LIMIT: ClassVar[int] = 255  # |x| <= 128: 128 * 255 < 2**15

    def layers(self, weight: Int) -> list[Int]:
        parts: list[Int] = []
        while weight.any() or not parts:
            parts.append(np.clip(weight, -127, 127))
            weight = weight - parts[-1]
        return parts

    def chains(self, weight: Int) -> list[list[int]]:
        """The fewest bins that first fit finds, heaviest tap first by its largest weight or by its sum."""
        sizes = np.abs(weight).transpose(1, 0, 2).reshape(weight.shape[1], -1)
        orders = (
            np.argsort(-heaviness, kind="stable") for heaviness in (sizes.max(axis=1), sizes.sum(axis=1))
        )
        found = min((_first_fit(sizes, order, self.LIMIT) for order in orders), key=len)
        return sorted(sorted(chain) for chain in found)

    def order(self) -> Sequence[int]:
        return range(8)

    def pack(self, weight: Int) -> Int:
        return weight

    def chain(self, acc: Sequence[Any], x: Sequence[Any], w: Any, w_offset: Any) -> None:
        products = [self.isa.smull(v, load(w, w_offset + 8 * i, 8)) for i, v in enumerate(x)]
        total = registers(8, "int16")
        assign(total, sum(products[1:], products[0]), 8)
        for part, a in enumerate(acc):
            assign(a, whole(a, 4) + T.Cast("int32x4", total[T.ramp(4 * part, 1, 4)]), 4)

    def narrow(self, q: Sequence[Any], requant: Requant) -> Any:
        return self.isa.narrow8(q, *requant.narrowing)


def _first_fit(sizes: Int, order: Iterable[int], limit: int) -> list[list[int]]:
    """Bins of rows of `sizes` whose sum is at most `limit` in every column."""
    bins: list[list[int]] = []
    for item in order:
        fits = (chosen for chosen in bins if int(sizes[[*chosen, item]].sum(axis=0).max()) <= limit)
        found = next(fits, None)
        if found is None:
            bins.append([int(item)])
        else:
            found.append(int(item))
    return bins


class Madd16(Strategy):
    """vpmaddwd on interleaved int16 pairs: nine-bit weights fit, results come out in AVX2_ORDER."""

    isa = Avx2()
    block = 16
    weight_dtype = "int16"

    def layers(self, weight: Int) -> list[Int]:
        return [weight]

    def chains(self, weight: Int) -> list[list[int]]:
        steps = list(range(weight.shape[1]))
        return [steps[i : i + 2] for i in steps[::2]]

    def order(self) -> Sequence[int]:
        return AVX2_ORDER

    def pack(self, weight: Int) -> Int:
        """Pairs side by side: (blocks, rows, pairs, vector, channel, 2)."""
        blocks, rows, steps, block = weight.shape
        even = np.zeros((blocks, rows, steps + steps % 2, block), weight.dtype)
        even[:, :, :steps] = weight
        ordered = even[..., list(AVX2_ORDER)]
        return ordered.reshape(blocks, rows, -1, 2, block).transpose(0, 1, 2, 4, 3)

    def chain(self, acc: Sequence[Any], x: Sequence[Any], w: Any, w_offset: Any) -> None:
        first = T.Cast("int16x16", x[0])
        second = T.Cast("int16x16", x[-1])  # a lone tap meets a zero weight
        for part, a in enumerate(acc):
            lanes = [i for lane in range(2) for c in range(4) for i in _both(8 * lane + 4 * part + c)]
            weights = load(w, w_offset + 16 * part, 16)
            assign(a, self.isa.madd(whole(a, 8), shuffle([first, second], lanes), weights), 8)

    def narrow(self, q: Sequence[Any], requant: Requant) -> Any:
        return self.isa.narrow16(q, requant.zero_point, requant.clamp_min, requant.clamp_max)


def _both(channel: int) -> tuple[int, int]:
    return channel, 16 + channel


# --- packing -------------------------------------------------------------------------------------------


def block_starts(channels: int, block: int) -> list[int]:
    """First channel of every block; the last one overlaps when `channels` is no multiple."""
    return [min(c, max(channels - block, 0)) for c in range(0, channels, block)]


def pack(strategy: Strategy, spec: QDepthwiseConv2D, arrays: Arrays) -> tuple[Taps, tuple[Int, ...]]:
    """Constants in parameter order: weights, bias, then the operands of the requantization."""
    weight = np.asarray(arrays["weight"], np.int32)  # (kh, kw, c)
    taps, steps = _chained(strategy, *_taps(strategy.layers(weight)))
    starts = block_starts(weight.shape[2], strategy.block)
    source = np.add.outer(starts, np.arange(strategy.block))
    source = np.where(source < weight.shape[2], source, -1)
    blocks = np.stack([pick(steps.transpose(2, 0, 1), row) for row in source])  # (blocks, lanes, rows, steps)
    packed = strategy.pack(blocks.transpose(0, 2, 3, 1)).astype(strategy.weight_dtype)
    channels = source[:, list(strategy.order())].ravel()
    constants = channel_constants(strategy.isa, spec.requant, arrays, channels)
    return taps, (np.ascontiguousarray(packed).ravel(), *constants)


def _chained(strategy: Strategy, taps: Taps, weights: Int) -> tuple[Taps, Int]:
    """Steps in the order of the strategy's chains."""
    chains = strategy.chains(weights)
    order = [step for chain in chains for step in chain]
    lengths = tuple(len(chain) for chain in chains)
    return Taps(taps.rows, tuple(taps.steps[step] for step in order), lengths), weights[:, order]


def _taps(layers: Sequence[Int]) -> tuple[Taps, Int]:
    """The taps and their weights (rows, steps, c): all of the first layer,
    later layers only where they are not zero.
    """
    kh, kw, channels = layers[0].shape
    if kh * kw > UNROLL:
        columns = tuple((0, j) for _ in layers for j in range(kw))
        return Taps(kh, columns), np.concatenate(layers, axis=1)
    chosen = [
        (k, i, j)
        for k, w in enumerate(layers)
        for i in range(kh)
        for j in range(kw)
        if k == 0 or w[i, j].any()
    ]
    weights = np.stack([layers[k][i, j] for k, i, j in chosen])
    return Taps(1, tuple((i, j) for _, i, j in chosen)), weights.reshape(1, len(chosen), channels)


# --- code ----------------------------------------------------------------------------------------------


def emit(
    name: str, strategy: Strategy, spec: QDepthwiseConv2D, taps: Taps, x: Layout, y: Layout, cpu: Cpu
) -> tirx.PrimFunc:
    """The kernel. Parameters: x, weights, bias, requantization operands, y."""
    blocks = len(block_starts(y.shape[3], strategy.block))
    pairs = -(-len(taps.steps) // 2)
    per_row = 2 * pairs if strategy.weight_dtype == "int16" else len(taps.steps)
    columns = blocks * strategy.block
    params = [
        Param("x", "int8", x.size),
        Param("w", strategy.weight_dtype, columns * taps.rows * per_row),
        *channel_params(spec.requant, columns),
        Param("y", "int8", y.size),
        *blocks_param(),
    ]

    def body(*buffers: Any) -> None:
        named = dict(zip((p.name for p in params), buffers, strict=True))
        code = _Code(strategy, spec, taps, x, y, min(cpu.tile("depthwise")[0], y.shape[2]), per_row, named)
        code.loops(blocks)

    return function(name, params, body)


@dataclass(frozen=True)
class _Code:
    """The loop nest around the register tile."""

    strategy: Strategy
    spec: QDepthwiseConv2D
    taps: Taps
    x: Layout
    y: Layout
    width: int  # pixels per register tile
    per_row: int  # packed weights per window row and channel
    buffers: dict[str, Any]

    def loops(self, blocks: int) -> None:
        n, oh, ow, _ = self.y.shape
        rows, tiles = n * oh, -(-ow // self.width)
        rows_outside = rows >= ROWS_PARALLEL or blocks < 4 or share() is Share.ROWS
        parallel = is_worth_a_barrier(
            rows * ow * blocks * self.strategy.block * prod(self.spec.window.kernel)
        )
        by_row = loop(rows, parallel=parallel and rows_outside)
        by_block = blocks_loop(blocks, self.buffers, parallel=parallel and not rows_outside)
        outer, inner = (by_row, by_block) if rows_outside else (by_block, by_row)
        with outer as a, inner as b, loop(tiles) as t:
            r, block = (a, b) if rows_outside else (b, a)
            if self._is_wide(blocks):
                r, block, t = (T.Cast("int64", i) for i in (r, block, t))
            start = t * self.width
            column = start if ow % self.width == 0 else minimum(start, ow - self.width)
            self.tile(split(r, (n, oh)), block, column)

    def _is_wide(self, blocks: int) -> bool:
        """Whether positions in rows have 64 bits: LLVM then knows how far tiles are apart, and keeps columns
        that they share; too many at stride 1, where a weight beyond int8 takes a register for a second step.
        Of one block it knows that anyway.
        """
        stride, taps = self.spec.window.stride[1], prod(self.spec.window.kernel)
        return share() is Share.ROWS and blocks > 1 and (stride > 1 or len(self.taps.steps) <= taps)

    def tile(self, row: Sequence[Any], block: Any, column: Any) -> None:
        strategy, requant, lanes = self.strategy, self.spec.requant, self.strategy.isa.lanes
        channels = self.y.shape[3]
        first = block * strategy.block
        channel = (
            first if channels % strategy.block == 0 else minimum(first, max(channels - strategy.block, 0))
        )

        def operand(name: str, part: int) -> Any:
            return load(self.buffers[name], first + part * lanes, lanes)

        acc = [[registers(lanes, "int32") for _ in range(2)] for _ in range(self.width)]
        for pixel in acc:
            for part, a in enumerate(pixel):
                assign(a, operand("bias", part), lanes)
        self._window(acc, self._origin(row, column) + channel, first)
        at = self.y.start + row[0] * self.y.strides[0] + row[1] * self.y.strides[1] + channel
        for i, pixel in enumerate(acc):
            q = [
                requantize(
                    strategy.isa,
                    whole(a, lanes),
                    requant,
                    lambda name, p=part: operand(name, p),  # type: ignore[misc]
                    shifted=not strategy.isa.narrow_shifts,
                )
                for part, a in enumerate(pixel)
            ]
            count = min(channels, strategy.block)
            offset = at + (column + i) * self.y.strides[2]
            store_first(self.buffers["y"], offset, strategy.narrow(q, requant), strategy.block, count)

    def _origin(self, row: Sequence[Any], column: Any) -> Any:
        """Offset of the window's first tap for the pixel at `column`."""
        window, (image, line, pixel, _) = self.spec.window, self.x.strides
        start = self.x.start - window.before[0] * line - window.before[1] * pixel
        return (
            start + row[0] * image + row[1] * (window.stride[0] * line) + column * (window.stride[1] * pixel)
        )

    def _window(self, acc: Sequence[Sequence[Any]], origin: Any, first: Any) -> None:
        strategy, window = self.strategy, self.spec.window
        line, pixel = self.x.strides[1] * window.dilation[0], self.x.strides[2] * window.dilation[1]
        step = window.stride[1] * self.x.strides[2]
        with loop(self.taps.rows) as r:
            base = (first * self.taps.rows + r * strategy.block) * self.per_row
            for k, length in zip(accumulate(self.taps.chains, initial=0), self.taps.chains, strict=False):
                chain = self.taps.steps[k : k + length]
                for i, pixel_acc in enumerate(acc):
                    at = [origin + i * step + r * line + dy * line + dx * pixel for dy, dx in chain]
                    x = [load(self.buffers["x"], offset, strategy.block) for offset in at]
                    strategy.chain(pixel_acc, x, self.buffers["w"], base + k * strategy.block)
