"""The K loop of a tile of up to 4 rows x 8 columns, scheduled by hand for the in-order Cortex-A53.

LLVM's scheduler spills accumulators here, and an in-order core pays for each. Rules used (published
measurements of the core): a 128-bit NEON operation issues alone, one a cycle, and an integer operation
behind it is free; two 64-bit ones (`dup` of four lanes, `ldr d`) share a cycle. So multiplies take all cycles
but one for each couple of broadcasts and loads.

A *pair* is two neighbours in K, a *chunk* up to four pairs that arrive in one load, a *chain* the pairs whose
products are added in int16 (smull, then smlal) before they reach the int32 sums (sadalp).

    v0..v7     sums: 4 rows x 2 vectors of 4 columns
    v8..v15    products of the running chain, in the same order
    v16..v23   a pair of each row, broadcast; the next pair in the other half
    v24..v27   a pair of 8 columns; the next pair in the other half
    v28..v31   a chunk of each row
    x0..x3, x4 rows, weights           x5    steps left
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

ROWS, VECTORS = 4, 2
CHUNK = 4  # pairs
STEP = 8  # pairs of one turn of the loop
STRAIGHT = 80  # pairs without a loop: about 5 KB of code, of 32 in the cache
_PRODUCTS, _BROADCAST, _WEIGHTS, _ROWS = 8, 16, 24, 28
_POST_INDEX = 255  # bytes that a load can add to its address
_IMMEDIATE = 4096  # bytes that an `add` can add, or multiples of it


@dataclass(frozen=True)
class Chunk:
    """Pairs read by one load of 8 bytes, and the bytes from there to the next chunk."""

    pairs: int
    advance: int = 2 * CHUNK


@dataclass(frozen=True)
class Piece:
    """Straight code: the pairs of `chunks` in order, divided into `chains`."""

    chunks: tuple[Chunk, ...] = ()
    chains: tuple[int, ...] = ()


@dataclass(frozen=True)
class Program:
    """`loop` as often as a register says (if it is not empty), then `rest`."""

    rows: int
    loop: Piece
    rest: Piece


def is_straight(runs: int, pairs: int) -> bool:
    """Whether `runs` runs of `pairs` pairs are short enough for code without a loop."""
    return runs * pairs <= STRAIGHT


def straight(rows: int, offsets: Sequence[int], pairs: int, chains: tuple[int, ...]) -> Program:
    """Runs of `pairs` pairs that begin `offsets` bytes from the first one."""
    starts = [(run + 2 * p, min(CHUNK, pairs - p)) for run in offsets for p in range(0, pairs, CHUNK)]
    following = [start for start, _ in starts[1:]] + [starts[-1][0] + 2 * CHUNK]
    chunks = [Chunk(n, after - start) for (start, n), after in zip(starts, following, strict=True)]
    return Program(rows, Piece(), Piece(tuple(chunks), chains))


def looped(rows: int, pairs: int, chains: tuple[int, ...]) -> Program:
    """One run: steps of STEP pairs, and the rest. Shorter runs have no loop: a loop runs at least once."""
    if pairs < STEP:
        return straight(rows, (0,), pairs, chains)
    first = next(i for i in range(len(chains) + 1) if sum(chains[:i]) == STEP)
    rest = straight(rows, (0,), pairs % STEP, chains[first:]).rest if pairs % STEP else Piece()
    return Program(rows, Piece((Chunk(CHUNK),) * (STEP // CHUNK), chains[:first]), rest)


@dataclass(frozen=True)
class _Pair:
    index: int
    lane: int  # in its chunk
    load: int | None  # this pair is the last of its chunk: bytes from the next chunk to the one after it
    opens: bool  # its products begin a chain
    closes: bool


def _pairs(piece: Piece, first: int, follows: int | None) -> list[_Pair]:
    """The pairs of a piece; `follows`: the advance of the chunk behind it, None if there is none."""
    opens = {sum(piece.chains[:i]) for i in range(len(piece.chains))}
    total = sum(piece.chains)
    pairs: list[_Pair] = []
    for i, chunk in enumerate(piece.chunks):
        behind = piece.chunks[i + 1].advance if i + 1 < len(piece.chunks) else follows
        for lane in range(chunk.pairs):
            at = len(pairs)
            load = behind if lane == chunk.pairs - 1 else None
            pairs.append(_Pair(first + at, lane, load, at in opens, at + 1 in opens or at + 1 == total))
    return pairs


def _wide(rows: int, pair: _Pair) -> list[str]:
    """Operations of 128 bits: all products of a pair; at the end of a chain also the sums."""
    half = pair.index % 2
    places = [(v, r) for v in range(VECTORS) for r in range(rows)]
    name = "smull" if pair.opens else "smlal"
    x, w = _BROADCAST + ROWS * half, _WEIGHTS + VECTORS * half
    operations = [f"{name} v{_PRODUCTS + v * ROWS + r}.8h, v{x + r}.8b, v{w + v}.8b" for v, r in places]
    if pair.closes:
        operations += [f"sadalp v{v * ROWS + r}.4s, v{_PRODUCTS + v * ROWS + r}.8h" for v, r in places]
    return operations


def _load_row(row: int, advance: int) -> list[str]:
    """Eight bytes of a row; what a load cannot add to its address, integer operations do."""
    if advance <= _POST_INDEX:
        return [f"ldr d{_ROWS + row}, [x{row}], #{advance}"]
    high, low = divmod(advance, _IMMEDIATE)
    adds = [f"add x{row}, x{row}, #{low}"] if low else []
    return [
        f"ldr d{_ROWS + row}, [x{row}]",
        *adds,
        *([f"add x{row}, x{row}, #{high}, lsl #12"] if high else []),
    ]


def _prepare(rows: int, pair: _Pair, waiting: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Couples of 64-bit operations that make a pair ready; loads of rows that may wait for the next pair.

    A load of the next chunk follows the last broadcast of this one. Rows 0 and 1 never wait: the next
    couples broadcast them.
    """
    half = pair.index % 2
    loads = [*waiting, *([f"ldr d{_WEIGHTS + 2 * half + v}, [x4], #8"] for v in range(VECTORS))]
    chunk = [] if pair.load is None else [_load_row(row, pair.load) for row in range(rows)]
    couples: list[list[str]] = []
    alone: list[str] = []
    for row in range(rows):
        dup = f"dup v{_BROADCAST + 4 * half + row}.4h, v{_ROWS + row}.h[{pair.lane}]"
        if loads or (chunk and rows - len(chunk) < row):
            load = (loads or chunk).pop(0)
            couples.append([dup, *load] if row % 2 == 0 else [*load, dup])
        elif alone:
            couples.append([alone.pop(), dup])
        else:
            alone.append(dup)
    waits = [load for row, load in enumerate(chunk, rows - len(chunk)) if row >= 2]
    now = chunk[: len(chunk) - len(waits)]
    return [*couples, *([a] for a in alone), *loads, *now], waits


def _weave(wide: Sequence[str], between: Sequence[Sequence[str]], free: Sequence[str] = ()) -> list[str]:
    """`wide` with two couples at a time spread over it, and `free` behind the first.

    Loads of neighbouring couples touch: LLVM's model of the core makes a load wait for what is in flight.
    """
    twos = [
        [*between[k], *(between[k + 1] if k + 1 < len(between) else ())] for k in range(0, len(between), 2)
    ]
    after: dict[int, list[str]] = {0: list(free)}
    for k, two in enumerate(twos):
        after.setdefault(k * len(wide) // len(twos), []).extend(two)
    return [line for k, operation in enumerate(wide) for line in (operation, *after.get(k, ()))]


def _phases(
    rows: int, pairs: Sequence[_Pair], behind: Sequence[_Pair]
) -> Iterator[tuple[list[str], list[list[str]]]]:
    """(128-bit operations of a pair, couples for the next one); `behind`: the pair after the last."""
    waiting: list[list[str]] = []
    nexts = [*pairs[1:], *behind]
    for k, pair in enumerate(pairs):
        couples: list[list[str]] = []
        if k < len(nexts):
            couples, waiting = _prepare(rows, nexts[k], waiting)
        yield _wide(rows, pair), couples


def text(program: Program) -> list[str]:
    """Reads up to a chunk of every row and two pairs of weights beyond the last."""
    rows = program.rows
    looped = sum(program.loop.chains)
    first = (program.loop.chunks or program.rest.chunks)[0]
    loop = _pairs(program.loop, 0, 2 * CHUNK)
    rest = _pairs(program.rest, looped, None)
    lines = [line for row in range(rows) for line in _load_row(row, first.advance)]
    couples, waiting = _prepare(rows, (loop or rest)[0], [])  # a first chunk of one pair has loads that wait
    lines += [line for couple in (*couples, *waiting) for line in couple]
    if loop:
        lines.append("1:")
        for k, (wide, couples) in enumerate(_phases(rows, loop, loop[:1])):
            lines += _weave(wide, couples, ["subs x5, x5, #1"] if k == 0 else [])
        lines.append("b.ne 1b")
    for wide, couples in _phases(rows, rest, []):
        lines += _weave(wide, couples)
    return lines


def symbol(program: Program) -> str:
    return f"pilite_pairs_a53_{hashlib.sha256(repr(program).encode()).hexdigest()[:16]}"


@cache
def source(program: Program) -> str:
    """LLVM IR of `i32 symbol(ptr row, ... , ptr weights, i64 steps, ptr sums)`.

    sums: rows x 2 int32x4, by row; read, added to, written.
    """
    rows, vector = program.rows, "<4 x i32>"
    places = [v * ROWS + r for r in range(rows) for v in range(VECTORS)]
    pointers = [*range(rows), 4, 5]
    fixed = [f"={{v{k}}}" for k in places] + [f"={{x{k}}}" for k in pointers]
    results = "{ " + ", ".join([vector] * len(places) + ["i64"] * len(pointers)) + " }"
    inputs = [str(k) for k in range(len(fixed))]
    clobbers = [f"~{{v{k}}}" for k in range(_PRODUCTS, 32)] + ["~{cc}", "~{memory}"]
    operands = [f"{vector} %c{k}" for k in range(len(places))]
    operands += [f"i64 %a{k}" for k in range(rows)] + ["i64 %wa", "i64 %steps"]
    joined = "\\0A".join(text(program))
    body = [
        *(f"%a{k} = ptrtoint ptr %p{k} to i64" for k in range(rows)),
        "%wa = ptrtoint ptr %w to i64",
        *(f"%o{k} = getelementptr i8, ptr %sums, i64 {16 * k}" for k in range(len(places))),
        *(f"%c{k} = load {vector}, ptr %o{k}, align 4" for k in range(len(places))),
        f'%r = call {results} asm sideeffect "{joined}", "{",".join([*fixed, *inputs, *clobbers])}"'
        f"({', '.join(operands)})",
        *(f"%d{k} = extractvalue {results} %r, {k}" for k in range(len(places))),
        *(f"store {vector} %d{k}, ptr %o{k}, align 4" for k in range(len(places))),
        "ret i32 0",
    ]
    arguments = ", ".join([*(f"ptr %p{k}" for k in range(rows)), "ptr %w", "i64 %steps", "ptr %sums"])
    return "\n".join(
        [
            'target triple = "aarch64-linux-gnu"',
            f"define linkonce_odr i32 @{symbol(program)}({arguments}) alwaysinline nounwind {{",
            *(f"  {line}" for line in body),
            "}",
            "",
        ]
    )
