"""NEON strategies of q_conv2d."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import Requant
from pilite.compiler.kernels import asm_a53
from pilite.compiler.kernels.emit import (
    IMPORT,
    assign,
    constant,
    load,
    loop,
    part,
    registers,
    reload,
    shuffle,
    stack,
    store,
    whole,
)
from pilite.compiler.kernels.gemm import Strategy, Tile, Variant
from pilite.compiler.kernels.isa import Neon
from pilite.compiler.kernels.packing import Int

# With |x| <= 128, two products fit int16 while |w0| + |w1| <= 255: 128 * 255 = 32640.
PAIR_LIMIT = 255


def weight_offset(weight: Int) -> int:
    """The smallest shift d (by magnitude) that brings every w - d into int8; 0 for int8 weights."""
    low, high = int(weight.min()) + 128, int(weight.max()) - 127  # any d in [high, low] works
    return min(max(0, high), low) if low >= high else _impossible(weight)


def _impossible(weight: Int) -> int:
    raise AssertionError(f"8-bit weights span more than 256 values: {weight.min()}..{weight.max()}")


def pairing(runs: Int, step: int) -> Variant:
    """Whether the products of the two halves of every `step` weights may be added in int16."""
    offset = weight_offset(runs)
    length = -(-runs.shape[-1] // step) * step
    padded = np.zeros((*runs.shape[:-1], length), runs.dtype)
    padded[..., : runs.shape[-1]] = np.abs(runs - offset)
    halves = padded.reshape(*runs.shape[:-1], -1, 2, step // 2).sum(axis=-2)
    return Variant(offset, 2 if int(halves.max(initial=0)) <= PAIR_LIMIT else 1)


def longest_chains(pairs: Int) -> tuple[int, ...]:
    """How many neighbouring products can be added in int16, chain after chain.

    pairs: magnitudes (channels, pairs, 2); even and odd members have sums of their own.
    """
    chains: list[int] = []
    total = np.full_like(pairs[:, :1].sum(axis=1), PAIR_LIMIT)
    for k in range(pairs.shape[1]):
        total = total + pairs[:, k]
        if int(total.max(initial=0)) <= PAIR_LIMIT and chains:
            chains[-1] += 1
        else:
            chains.append(1)
            total = pairs[:, k]
    return tuple(chains)


class _Neon(Strategy):
    isa = Neon()
    weight_dtype = "int8"

    def order(self, nr: int) -> Sequence[int]:
        return range(nr)

    def sum16(self, acc: Any, x: Any) -> Any:
        return self.isa.add_pairs(acc, self.isa.neon("int16x8", "saddlp.v8i16.v16i8", x))

    def add(self, acc: Any, products: Sequence[Any], chain: int) -> None:
        """acc += neighbours of the int16 products,
        which are first added together where they cannot overflow.
        """
        if chain == 2 and len(products) == 2:
            products = [products[0] + products[1]]
        for p in products:
            assign(acc, self.isa.add_pairs(whole(acc, 4), p), 4)

    def narrow(self, rows: Sequence[Sequence[Any]], requant: Requant) -> list[list[tuple[Any, int, int]]]:
        """Eight channels from two vectors of a row;
        an odd last vector shares its instruction with the next row.
        """
        pieces: list[list[tuple[Any, int, int]]] = []
        for row in rows:
            pairs = range(0, len(row) - 1, 2)
            pieces.append([(self.isa.narrow8(row[j : j + 2], *requant.narrowing), 8, 4 * j) for j in pairs])
        if len(rows[0]) % 2:
            last = len(rows[0]) - 1
            for i in range(0, len(rows), 2):
                k = min(i + 1, len(rows) - 1)
                both = registers(8, "int8")
                assign(both, self.isa.narrow8((rows[i][last], rows[k][last]), *requant.narrowing), 8)
                pieces[i].append((part(whole(both, 8), 8, 0, 4), 4, 4 * last))
                if k != i:
                    pieces[k].append((part(whole(both, 8), 8, 4, 4), 4, 4 * last))
        return pieces


class Mull(_Neon):
    """8-bit multiply pairs (cortex-a53, a72): smull, smlal2, sadalp.

    acc[i][j]  int32x4: four partial sums of row i, column j; added across at the end (addp)
    step       16 bytes of K: a = x[i][0..15], b = w[j][0..15]; acc += pairs(a_lo * b_lo + a_hi * b_hi)
    registers  4 x 4 accumulators + 1 a + 1 b + products
    weights    [block][run][step of 16][column][16], then [column][8] where 8 bytes remain
    """

    granule: ClassVar[int] = 8

    def variant(self, runs: Int) -> Variant:
        return pairing(runs, 16)

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        full = length // 16 * 16
        steps = blocks[..., :full].reshape(nb, nr, runs, full // 16, 16).transpose(0, 2, 3, 1, 4)
        tail = blocks[..., full:].transpose(0, 2, 1, 3)
        return np.concatenate([steps.reshape(nb, runs, -1), tail.reshape(nb, runs, -1)], axis=2)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        length = self.padded(tile.runs.length)
        steps, tail = divmod(length, 16)
        acc = [[registers(4, "int32") for _ in range(tile.nr)] for _ in tile.rows]
        for row in acc:
            for a in row:
                assign(a, self.isa.fill(0), 4)
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            if steps:
                with loop(steps) as k:
                    self._step(tile, acc, offset + k * 16, base + k * (16 * tile.nr), 16)
            if tail:
                self._step(tile, acc, offset + steps * 16, base + steps * (16 * tile.nr), 8)
        return [
            [
                tile.initial(i, v) + self.isa.horizontal([whole(row[4 * v + c], 4) for c in range(4)])
                for v in range(tile.nr // 4)
            ]
            for i, row in enumerate(acc)
        ]

    def _step(self, tile: Tile, acc: list[list[Any]], offset: Any, w_offset: Any, width: int) -> None:
        for j in range(tile.nr):
            for i, row in enumerate(tile.rows):
                x = [load(tile.x, row + offset + h, 8) for h in range(0, width, 8)]
                w = [load(tile.w, w_offset + j * width + h, 8) for h in range(0, width, 8)]
                products = [self.isa.smull(a, b) for a, b in zip(x, w, strict=True)]
                self.add(acc[i][j], products, tile.variant.chain)


class Pairs(_Neon):
    """8-bit multiply pairs without a sum across lanes, for out-of-order cores.

    An in-order core stalls on the broadcasts.

    acc[i][v]  int32x4: row i, columns 4v .. 4v+3; starts at the bias
    step       4 bytes of K: two 16-bit pairs of x[i], each broadcast; smull, smlal, sadalp per vector
    registers  4 x NR/4 accumulators + 2 pairs + 2 w + 1 product
    weights    [block][run][quad][vector][pair][4 columns][2]
    """

    granule: ClassVar[int] = 4

    def variant(self, runs: Int) -> Variant:
        return pairing(runs, 4)

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        # block, vector, column, run, quad, pair, 2
        split = blocks.reshape(nb, nr // 4, 4, runs, length // 4, 2, 2)
        return split.transpose(0, 3, 4, 1, 5, 2, 6)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        length = self.padded(tile.runs.length)
        eights, tail = divmod(length, 8)
        acc = [[registers(4, "int32") for _ in range(tile.nr // 4)] for _ in tile.rows]
        for i, row in enumerate(acc):
            for v, a in enumerate(row):
                assign(a, tile.initial(i, v), 4)
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            if eights:
                with loop(eights) as k:
                    self._step(tile, acc, offset + k * 8, base + k * (8 * tile.nr), 8)
            if tail:
                self._step(tile, acc, offset + eights * 8, base + eights * (8 * tile.nr), 4)
        return [[whole(a, 4) for a in row] for row in acc]

    def _step(self, tile: Tile, acc: list[list[Any]], offset: Any, w_offset: Any, width: int) -> None:
        pairs = [registers(4, "int16") for _ in tile.rows]  # a tail of 4 bytes reads 8 and uses half
        for row, p in zip(tile.rows, pairs, strict=True):
            assign(p, T.reinterpret("int16x4", load(tile.x, row + offset, 8)), 4)
        for quad in range(width // 4):
            for v in range(tile.nr // 4):
                at = w_offset + (quad * (tile.nr // 4) + v) * 16
                w = [load(tile.w, at + 8 * half, 8) for half in range(2)]
                for i, p in enumerate(pairs):
                    lanes = [shuffle([whole(p, 4)], [2 * quad + half] * 4) for half in range(2)]
                    x = [T.reinterpret("int8x8", pair) for pair in lanes]
                    products = [self.isa.smull(a, b) for a, b in zip(x, w, strict=True)]
                    self.add(acc[i][v], products, tile.variant.chain)


class PairsByHand(_Neon):
    """Pairs with a K loop scheduled by hand for the in-order cortex-a53: asm_a53.py.

    Short sums are straight code; in long ones every run is a loop and a rest. Products are added in int16
    for as long as the weights of all channels allow it.
    weights    [block][run][pair][vector][4 columns][2]
    """

    granule: ClassVar[int] = 2

    def variant(self, runs: Int) -> Variant:
        offset = weight_offset(runs)
        oc, count, length = runs.shape
        pairs = np.zeros((oc, count, -(-length // 2) * 2), np.int32)
        pairs[..., :length] = np.abs(runs - offset)
        pairs = pairs.reshape(oc, count, -1, 2)
        if asm_a53.is_straight(count, pairs.shape[2]):
            return Variant(offset, chains=longest_chains(pairs.reshape(oc, -1, 2)))
        looped = pairs.shape[2] // asm_a53.STEP * asm_a53.STEP
        steps = longest_chains(pairs[:, :, :looped].reshape(-1, asm_a53.STEP, 2)) if looped else ()
        rest = longest_chains(pairs[:, :, looped:].reshape(oc * count, -1, 2))
        return Variant(offset, chains=steps + rest)

    def is_wide(self, variant: Variant) -> bool:
        """Without row sums LLVM spends 4 more instructions a tile on addresses of 32 bits."""
        return variant.offset == 0

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        split = blocks.reshape(nb, nr // 4, 4, runs, length // 2, 2)
        return split.transpose(0, 3, 4, 1, 2, 5)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        rows, most = len(tile.rows), asm_a53.ROWS
        return [r for i in range(0, rows, most) for r in self._rows(tile, range(i, min(i + most, rows)))]

    def _rows(self, tile: Tile, rows: range) -> list[list[Any]]:
        """At most four rows."""
        vectors = tile.nr // 4
        sums = stack(4 * vectors * len(rows), "int32", 4)
        places = [(i, v) for i in range(len(rows)) for v in range(vectors)]
        for i, v in places:
            store(sums, 4 * (i * vectors + v), tile.initial(rows[i], v), 4)
        pairs, chains = self.padded(tile.runs.length) // 2, tile.variant.chains
        if asm_a53.is_straight(tile.runs.count, pairs):
            program = asm_a53.straight(len(rows), tile.runs.offsets, pairs, chains)
            self._call(tile, rows, program, (0, tile.w_base), 0, sums)
        else:
            program = asm_a53.looped(len(rows), pairs, chains)
            with tile.runs.walk() as (offset, run):
                at = (offset, tile.w_base + run * (2 * pairs * tile.nr))
                self._call(tile, rows, program, at, pairs // asm_a53.STEP, sums)
        return [[load(sums, 4 * (i * vectors + v), 4) for v in range(vectors)] for i in range(len(rows))]

    def _call(
        self, tile: Tile, rows: range, program: asm_a53.Program, at: tuple[Any, Any], steps: int, sums: Any
    ) -> None:
        x = [T.address_of(tile.x[tile.rows[i] + at[0]]) for i in rows]
        arguments = (*x, T.address_of(tile.w[at[1]]), T.int64(steps), T.address_of(sums[0]))
        with T.attr(T.int32(0), IMPORT, asm_a53.source(program)):
            T.evaluate(T.call_extern("int32", asm_a53.symbol(program), *arguments))


class Dot(_Neon):
    """Dot product (cortex-a76): sdot by lane.

    acc[i][v]  int32x4: row i, columns 4v .. 4v+3; starts at the bias
    step       16 bytes of K: x[i] in one register, each of its four quads broadcast by lane
    registers  8 x 2 accumulators + 8 x + 2 w
    weights    [block][run][quad][vector][4 columns][4]
    """

    granule: ClassVar[int] = 4

    def variant(self, runs: Int) -> Variant:
        return Variant(weight_offset(runs))

    def nests(self, variant: Variant) -> bool:
        """Without row sums LLVM, if it knows addresses, finishes short sums row by row, and spills."""
        return variant.offset != 0

    def bias(self, buffer: Any, offset: Any) -> Any:
        return reload(buffer, offset)

    def sum16(self, acc: Any, x: Any) -> Any:
        return self.isa.dot(acc, x, constant(1, "int8", 16))

    def pack(self, blocks: Int) -> Int:
        nb, nr, runs, length = blocks.shape
        return blocks.reshape(nb, nr, runs, length // 4, 4).transpose(0, 2, 3, 1, 4)

    def multiply(self, tile: Tile) -> list[list[Any]]:
        length = self.padded(tile.runs.length)
        steps, tail = divmod(length // 4, 4)
        acc = [[registers(4, "int32") for _ in range(tile.nr // 4)] for _ in tile.rows]
        for i, row in enumerate(acc):
            for v, a in enumerate(row):
                assign(a, tile.initial(i, v), 4)
        with tile.runs.walk() as (offset, run):
            base = tile.w_base + run * (length * tile.nr)
            if steps:
                with loop(steps) as k:
                    self._step(tile, acc, offset + k * 16, base + k * (16 * tile.nr), 4)
            if tail:
                self._step(tile, acc, offset + steps * 16, base + steps * (16 * tile.nr), tail)
        return [[whole(a, 4) for a in row] for row in acc]

    def _step(self, tile: Tile, acc: list[list[Any]], offset: Any, w_offset: Any, quads: int) -> None:
        """At most four quads; 16 bytes of every row are read."""
        x = [registers(4, "int32") for _ in tile.rows]
        for row, r in zip(tile.rows, x, strict=True):
            assign(r, reload(tile.x, row + offset), 4)
        for quad in range(quads):
            lanes = [T.reinterpret("int8x16", shuffle([whole(r, 4)], [quad] * 4)) for r in x]
            for v in range(tile.nr // 4):
                at = w_offset + (quad * (tile.nr // 4) + v) * 16
                w = T.reinterpret("int8x16", reload(tile.w, at))
                for i, lane in enumerate(lanes):
                    assign(acc[i][v], self.isa.dot(whole(acc[i][v], 4), w, lane), 4)
