"""The C source of the function that calls the kernels: int pilite_entry(weights, arena, io).

It is another translation unit than the kernels, so that none is ever inlined next to another (see aot.py).
A chain or a region becomes a function of its own, which the thread pool runs once for every band or share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import tirx

from pilite.compiler.chains import Reach

ENTRY = "pilite_entry"
# A system call that the kernel refuses and a profiler sees: from here on runs stage number `stage`.
_MARK = "  getpriority(0x5A3, {stage});\n"


@dataclass(frozen=True)
class Pointer:
    """An argument of a call: `offset` bytes into the weights or the arena, or the io buffer `offset`.

    In a chain or region also "band": into what belongs to one band, one thread.
    """

    base: str  # "weights" | "arena" | "io" | "band"
    offset: int


@dataclass(frozen=True)
class Moving:
    """An argument that follows the row r which is made: its row r * stride - before.

    `start`: where row 0 of a whole value is, or the stage that makes it, into lines of a band.
    """

    start: Pointer | int
    line: int  # bytes
    stride: int = 1
    before: int = 0


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel invocation; calls with the same `key` share one compiled function."""

    key: str
    function: tirx.PrimFunc
    arguments: tuple[Pointer, ...]

    @property
    def functions(self) -> Mapping[str, tirx.PrimFunc]:
        return {self.key: self.function}

    @property
    def arity(self) -> Mapping[str, int]:
        return {self.key: len(self.arguments)}


@dataclass(frozen=True)
class Lines:
    """The lines of an inner value: offset from `ChainCall.arena`, and how many a band has.

    Where fewer bands run than there is room for, they share it, up to `most` lines for one.
    """

    start: int
    line: int  # bytes
    count: int
    most: int
    sides: tuple[int, int]  # bytes of the border left and right
    border: int | None  # what it holds; None: there is none, above and below neither
    height: int  # rows of the image
    readers: tuple[tuple[Reach, int], ...]  # the stages that read it


@dataclass(frozen=True, eq=False)
class Part:
    """One stage of a chain. `kernels`: (rows of a call, key, function), the most rows first, one last."""

    kernels: tuple[tuple[int, str, tirx.PrimFunc], ...]
    arguments: tuple[Pointer | Moving, ...]
    lines: Lines | None  # None: the last stage, which makes the output


@dataclass(frozen=True, eq=False)
class ChainCall:
    """A chain. `height`: rows of its output, which the bands share; `rows`: of a step."""

    parts: tuple[Part, ...]
    height: int
    rows: int
    arena: int  # offset of what belongs to the bands
    band_bytes: int  # of scratch
    bands: int

    @property
    def functions(self) -> Mapping[str, tirx.PrimFunc]:
        return {key: function for part in self.parts for _, key, function in part.kernels}

    @property
    def arity(self) -> Mapping[str, int]:
        return dict.fromkeys(self.functions, 1)


@dataclass(frozen=True, eq=False)
class SharedPart:
    """One kernel of a region, for some blocks of channels (emit.Share); `blocks` of it are a unit.

    `whole`: the same for all channels, which a thread calls that is alone.
    """

    key: str
    function: tirx.PrimFunc
    whole: Call
    blocks: int


@dataclass(frozen=True, eq=False)
class RegionCall:
    """Kernels one after the other on the same channels; threads share the `units` of them."""

    parts: tuple[SharedPart, ...]
    units: int
    arena: int  # offset of what belongs to the threads
    band_bytes: int
    bands: int

    @property
    def functions(self) -> Mapping[str, tirx.PrimFunc]:
        wholes = {key: f for part in self.parts for key, f in part.whole.functions.items()}
        return wholes | {part.key: part.function for part in self.parts}

    @property
    def arity(self) -> Mapping[str, int]:
        wholes = {key: n for part in self.parts for key, n in part.whole.arity.items()}
        return dict.fromkeys((part.key for part in self.parts), 1) | wholes


AnyCall: TypeAlias = Call | ChainCall | RegionCall


def names(calls: Iterable[AnyCall]) -> dict[str, str]:
    """Symbol of the function of every key."""
    keys = dict.fromkeys(key for call in calls for key in call.functions)
    return {key: f"kernel_{i}" for i, key in enumerate(keys)}


def source(calls: Sequence[AnyCall], markers: bool) -> str:
    """The whole file; the first failure ends a run. Marks count from 1; 0 is outside."""
    symbols = names(calls)
    shapes = {symbols[key]: count for call in calls for key, count in call.arity.items()}
    externs = [f"extern int {name}({', '.join(['void*'] * count)});\n" for name, count in shapes.items()]
    functions: list[str] = []
    lines: list[str] = []
    for call in calls:
        if isinstance(call, Call):
            lines.append(_call(call, symbols))
            continue
        name = f"together_{len(functions)}"
        write = _chain if isinstance(call, ChainCall) else _region
        functions.append(write(name, call, symbols))  # type: ignore[arg-type]
        lines.append(_launch(name))
    if markers:
        externs.insert(0, "extern int getpriority(int, unsigned);\n")
        lines = [_MARK.format(stage=i) + line for i, line in enumerate(lines, 1)] + [_MARK.format(stage=0)]
    return (
        f"{''.join(externs)}{_TOGETHER if functions else ''}"
        f"{_KEPT if any(isinstance(call, ChainCall) for call in calls) else ''}{''.join(functions)}"
        f"int {ENTRY}(char* weights, char* arena, void* const* io) {{\n"
        f"{'  const struct ends ends = {weights, arena};' if functions else ''}\n"
        f"{''.join(lines)}  return 0;\n}}\n"
    )


def _call(call: Call, symbols: Mapping[str, str]) -> str:
    arguments = ", ".join(map(_argument, call.arguments))
    return f"  if ({symbols[call.key]}({arguments})) return 1;\n"


def _argument(p: Pointer | Moving) -> str:
    if isinstance(p, Pointer):
        return f"io[{p.offset}]" if p.base == "io" else f"{p.base} + {p.offset}"
    if isinstance(p.start, Pointer):
        return f"{_argument(p.start)} + {p.line} * (r * {p.stride} - {p.before})"
    k = p.start
    return f"lines[{k}] + {p.line} * (r * {p.stride} - {p.before} + at[{k}])"


# --- chains and regions --------------------------------------------------------------------------------

_TOGETHER = """\
struct ends { char* weights; char* arena; };
struct environment { void* unused; int tasks; };
typedef int (*task)(int, struct environment*, void*);
extern int (*pilite_launch)(task, void*, int);
"""

_KEPT = """\
#include <limits.h>
#include <string.h>
struct rows { int first, again, end, need; };

static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

/* Makes `x` hold what the rows `y` of a reader need, of which those before `made` are there: chains.Reach. */
static void reach(struct rows* x, const struct rows* y, int made, int size, int stride, int before) {
  x->first = least(x->first, y->first * stride - before);
  x->again = least(x->again, most(made, y->again) * stride - before);
  x->need = most(x->need, (y->end - 1) * stride - before + size);
}

/* memmove to lower addresses, 256 bytes at a time in vector registers. */
static void lower(char* to, const char* from, long bytes) {
  for (; bytes >= 256; bytes -= 256, to += 256, from += 256) {
    char block[256];
    memcpy(block, from, 256);
    memcpy(to, block, 256);
  }
  memmove(to, from, bytes);
}

/* Gives the first row to make, and finds the line `at` of row 0: new rows lie behind those that are there;
 * where `count` lines end, what is needed again moves to the front. */
static int kept(char* lines, long line, int count, const struct rows* was, const struct rows* now, int* at) {
  if (!was) {
    *at = -now->first;
    return now->first < 0 ? 0 : now->first;
  }
  const int again = was->end - now->again;
  if (again <= 0 || *at + now->need > count) {
    if (again > 0) lower(lines, lines + line * (*at + now->again), line * again);
    *at = -now->again;
  }
  return again < 0 ? now->again : was->end;
}

/* Fills the border left and right of all lines, whose widths are constants, and the lines above the image. */
__attribute__((always_inline)) static inline void around(
    char* lines, long line, int count, long left, long right, int above, int value) {
  for (int i = 0; i < count; ++i) {
    memset(lines + line * i, value, left);
    memset(lines + line * (i + 1) - right, value, right);
  }
  memset(lines, value, line * above);
}
"""


def _launch(name: str) -> str:
    return f"  if (pilite_launch({name}, (void*)&ends, 0)) return 1;\n"


def _chain(name: str, chain: ChainCall, symbols: Mapping[str, str]) -> str:
    """The function of one chain: its bands are as many as the pool has threads, up to `chain.bands`."""
    count = len(chain.parts)
    lines = [part.lines for part in chain.parts if part.lines]
    shares = [f"least({n.count * chain.bands} / bands, {n.most})" for n in lines]
    starts = [f"arena + {chain.arena + n.start} + {n.line}L * count[{k}] * id" for k, n in enumerate(lines)]
    fixed = "".join(_arguments(i, part) for i, part in enumerate(chain.parts))
    rows = "".join(_rows(k, lines[k]) for k in reversed(range(len(lines))))
    parts = "".join(_part(i, part, symbols) for i, part in enumerate(chain.parts))
    return f"""\
{_band(name, chain)}  const int count[] = {{{", ".join(shares)}}};
  char* const lines[] = {{{", ".join(starts)}}};
{fixed}  struct rows steps[2][{count}], *was = 0;
  const int end = {chain.height} * (id + 1) / bands;
  int r, at[{count - 1}] = {{0}};
  for (int row = {chain.height} * id / bands; row < end; row += {chain.rows}) {{
    struct rows* const now = steps[was == steps[0]];
    const int need = least(row + {chain.rows}, end);
    now[{count - 1}] = (struct rows){{row, row, need, need}};
{rows}{parts}    was = now;
  }}
  return 0;
}}
"""


def _rows(index: int, own: Lines) -> str:
    """The rows of an inner value in one step."""
    now = f"now[{index}]"
    reaches = "".join(
        f"    reach(&{now}, now + {y}, was ? was[{y}].end : now[{y}].first, "
        f"{reach.size}, {reach.stride}, {reach.before});\n"
        for reach, y in own.readers
    )
    return (
        f"    {now} = (struct rows){{INT_MAX, INT_MAX, 0, INT_MIN}};\n{reaches}"
        f"    {now}.end = least({now}.need, {own.height});\n"
    )


def _band(name: str, call: ChainCall | RegionCall) -> str:
    """The head of the function that one thread runs: band `id` of `bands`, its own bytes at `band`."""
    return f"""\
static int {name}(int id, struct environment* environment, void* data) {{
  const struct ends* ends = data;
  char *weights = ends->weights, *arena = ends->arena;
  char* band = arena + {call.arena} + {call.band_bytes}L * id;
  const int bands = environment->tasks < {call.bands} ? environment->tasks : {call.bands};
  (void)weights, (void)band;
  if (id >= bands) return 0;
"""


def _region(name: str, region: RegionCall, symbols: Mapping[str, str]) -> str:
    """The function of one region: every thread has neighbouring units."""
    parts = "".join(_shared(part, symbols) for part in region.parts)
    wholes = "".join("  " + _call(part.whole, symbols) for part in region.parts)
    return f"""\
{_band(name, region)}  if (bands == 1) {{
{wholes}    return 0;
  }}
  const int first = {region.units} * id / bands, end = {region.units} * (id + 1) / bands;
{parts}  return 0;
}}
"""


def _shared(part: SharedPart, symbols: Mapping[str, str]) -> str:
    blocks = f"(int[]){{first * {part.blocks}, end * {part.blocks}}}"
    return f"  if ({symbols[part.key]}({_array(*map(_argument, part.whole.arguments), blocks)})) return 1;\n"


def _array(*arguments: str) -> str:
    """What a kernel that is alone is called with (kernels/emit.py)."""
    return f"(void*[]){{{', '.join(arguments)}}}"


def _arguments(index: int, part: Part) -> str:
    """The array that the kernels of one stage are called with; what moves is set before each call."""
    values = ("0" if isinstance(p, Moving) else _argument(p) for p in part.arguments)
    return f"  void* pointers{index}[] = {{{', '.join(values)}}};\n"


def _part(index: int, part: Part, symbols: Mapping[str, str]) -> str:
    """Make the rows of one stage in one step."""
    now = f"now[{index}]"
    moving = "".join(
        f"      pointers{index}[{i}] = {_argument(p)};\n"
        for i, p in enumerate(part.arguments)
        if isinstance(p, Moving)
    )
    call = _choice(now, [(rows, f"{symbols[key]}(pointers{index})") for rows, key, _ in part.kernels])
    advance = _choice(now, [(rows, str(rows)) for rows, _, _ in part.kernels])
    return (
        f"    r = {_begin(index, part.lines)};\n"
        f"{_border(index, part.lines)}"
        f"    for (int n; r < {now}.end; r += n) {{\n{moving}"
        f"      n = {advance};\n      if ({call}) return 1;\n    }}\n"
    )


def _choice(now: str, values: Sequence[tuple[int, str]]) -> str:
    """The value of the most rows that are left; the last one needs none to be compared."""
    *some, (_, last) = values
    return "".join(f"{now}.end - r >= {rows} ? {value} : " for rows, value in some) + last


def _begin(index: int, own: Lines | None) -> str:
    """The first row to make; what is there already is moved to the front."""
    if own is None:
        return f"now[{index}].first"
    was = f"was ? was + {index} : 0"
    return f"kept(lines[{index}], {own.line}, count[{index}], {was}, now + {index}, at + {index})"


def _border(index: int, own: Lines | None) -> str:
    """Around a band's first step, and the lines below the image."""
    if own is None or own.border is None:
        return ""
    now, (left, right) = f"now[{index}]", own.sides
    above = f"{now}.first < 0 ? -{now}.first : 0"
    below = f"most({now}.end, {now}.again)"  # Rows.below
    return (
        f"    if (!was)\n      around(lines[{index}], {own.line}, count[{index}], {left}, {right}, "
        f"{above}, {own.border});\n"
        f"    if ({now}.need > {below})\n"
        f"      memset(lines[{index}] + {own.line}L * (at[{index}] + {below}), {own.border}, "
        f"{own.line}L * ({now}.need - {below}));\n"
    )
