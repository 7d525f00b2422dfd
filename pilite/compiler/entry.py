"""The C source of the function that calls the kernels: int pilite_entry(weights, arena, io).

It is another translation unit than the kernels, so that none is ever inlined next to another (see aot.py).
A chain or a region becomes a function of its own, which the thread pool runs once for every band or share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm import tirx

from pilite.compiler.chains import Rows

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
    """An argument that follows the row r which is made: its row r * stride - before, from row 0 at `start`.

    `inner`: the stage that makes the value, whose lines begin at `start`; None: it is whole.
    """

    start: Pointer
    line: int  # bytes
    stride: int = 1
    before: int = 0
    inner: int | None = None


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
    """The buffer of an inner value: its place in a band, its size, and what a border holds (None: none)."""

    start: Pointer
    line: int  # bytes
    count: int
    border: int | None


@dataclass(frozen=True, eq=False)
class Part:
    """One stage of a chain. `kernels`: (rows of a call, key, function), the most rows first, then one."""

    kernels: tuple[tuple[int, str, tirx.PrimFunc], ...]
    arguments: tuple[Pointer | Moving, ...]
    lines: Lines | None  # None: the last stage, which makes the output


@dataclass(frozen=True, eq=False)
class ChainCall:
    """A chain: `table` has the rows of every stage, by step."""

    parts: tuple[Part, ...]
    table: tuple[tuple[Rows, ...], ...]
    arena: int  # offset of what belongs to the bands
    band_bytes: int
    bands: int

    @property
    def functions(self) -> Mapping[str, tirx.PrimFunc]:
        return {key: function for part in self.parts for _, key, function in part.kernels}

    @property
    def arity(self) -> Mapping[str, int]:
        return {key: len(part.arguments) for part in self.parts for _, key, _ in part.kernels}


@dataclass(frozen=True, eq=False)
class SharedPart:
    """One kernel of a region, for some blocks of channels (emit.Share); `blocks` of it are a unit."""

    key: str
    function: tirx.PrimFunc
    arguments: tuple[Pointer, ...]
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
        return {part.key: part.function for part in self.parts}

    @property
    def arity(self) -> Mapping[str, int]:
        return {part.key: len(part.arguments) + 1 for part in self.parts}


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
    first = "" if p.inner is None else f" - now[{p.inner}].first + now[{p.inner}].line"
    return f"{_argument(p.start)} + {p.line} * (r * {p.stride} - {p.before}{first})"


# --- chains and regions --------------------------------------------------------------------------------

_TOGETHER = """\
struct ends { char* weights; char* arena; };
struct environment { void* unused; int tasks; };
typedef int (*task)(int, struct environment*, void*);
extern int (*__TVMBackendParallelLaunch)(task, void*, int);
"""

_KEPT = """\
#include <string.h>
struct rows { int first, end, need, line; };

/* Moves the rows that are needed again if they are not where they shall be; gives the first row to make. */
static int kept(char* lines, long line, const struct rows* was, const struct rows* now) {
  if (!was) return now->first < 0 ? 0 : now->first;
  if (was->end <= now->first) return now->first;
  const int from = was->line + now->first - was->first;
  if (from != now->line)
    memmove(lines + line * now->line, lines + line * from, line * (was->end - now->first));
  return was->end;
}
"""


def _launch(name: str) -> str:
    return f"  if (__TVMBackendParallelLaunch({name}, (void*)&ends, 0)) return 1;\n"


def _chain(name: str, chain: ChainCall, symbols: Mapping[str, str]) -> str:
    """The function of one chain: its bands are as many as the pool has threads, up to `chain.bands`."""
    steps, count = len(chain.table), len(chain.parts)
    table = ",\n".join("  {" + ", ".join(_row(rows) for rows in step) + "}" for step in chain.table)
    parts = "".join(_part(i, part, symbols) for i, part in enumerate(chain.parts))
    return f"""\
static const struct rows {name}_rows[{steps}][{count}] = {{
{table}}};
{_band(name, chain)}  const struct rows* was = 0;
  int r;
  for (int step = {steps} * id / bands; step < {steps} * (id + 1) / bands; ++step) {{
    const struct rows* now = {name}_rows[step];
{parts}    was = now;
  }}
  return 0;
}}
"""


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
    return f"""\
{_band(name, region)}  const int first = {region.units} * id / bands, end = {region.units} * (id + 1) / bands;
{parts}  return 0;
}}
"""


def _shared(part: SharedPart, symbols: Mapping[str, str]) -> str:
    arguments = ", ".join(map(_argument, part.arguments))
    return (
        f"  if ({symbols[part.key]}({arguments}, (int[]){{first * {part.blocks}, end * {part.blocks}}})) "
        f"return 1;\n"
    )


def _row(rows: Rows) -> str:
    return f"{{{rows.first}, {rows.end}, {rows.need}, {rows.line}}}"


def _part(index: int, part: Part, symbols: Mapping[str, str]) -> str:
    """Make the rows of one stage in one step."""
    now = f"now[{index}]"
    arguments = ", ".join(map(_argument, part.arguments))
    (rows, *less), calls = (
        [str(count) for count, _, _ in part.kernels],
        [f"{symbols[key]}({arguments})" for _, key, _ in part.kernels],
    )
    many = f"{now}.end - r >= {rows} ? " if less else ""
    call, advance = (f"{many}{' : '.join(which)}" for which in (calls, [rows, *less]))
    return (
        f"    r = {_begin(index, part.lines)};\n"
        f"{_border(now, part.lines)}"
        f"    for (int n; r < {now}.end; r += n) {{\n"
        f"      n = {advance};\n      if ({call}) return 1;\n    }}\n"
    )


def _begin(index: int, own: Lines | None) -> str:
    """The first row to make; what is there already is moved to the front."""
    if own is None:
        return f"now[{index}].first"
    return f"kept({_argument(own.start)}, {own.line}, was ? was + {index} : 0, now + {index})"


def _border(now: str, own: Lines | None) -> str:
    """All lines of a band's first step, then the lines below the image."""
    if own is None or own.border is None:
        return ""
    at = _argument(own.start)
    return (
        f"    if (!was) memset({at}, {own.border}, {own.line * own.count}L);\n"
        f"    else if ({now}.need > {now}.end)\n"
        f"      memset({at} + {own.line}L * ({now}.line + {now}.end - {now}.first), {own.border}, "
        f"{own.line}L * ({now}.need - {now}.end));\n"
    )
