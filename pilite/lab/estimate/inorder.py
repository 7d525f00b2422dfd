"""Cycles of straight-line code on an in-order, dual-issue Cortex-A53.

From public measurements of the core:
- Two instructions a cycle, in order; at most one load or store and one vector operation of 128 bits.
- After a 128-bit vector operation an integer operation, an integer load or a branch may issue with it.
- 64-bit vector operations pair with each other, with `ins` and with `ldr d`.
- `ldr d` takes 1 cycle, `ldr q` and `ldp d` 2, `ldp q` 4.
- Latencies: integer 1, integer load 3, vector load 3 (64 bits) or 4 (128 bits).
Assumed, since nobody published them: latencies of integer vector operations (multiplies 4, with the
accumulator forwarded after 1; others 3). Not modelled: caches, fetch, branch prediction.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

FLAGS = "flags"


@dataclass(frozen=True)
class Timing:
    """How one instruction issues: its cycles, the slot that decides what it pairs with, its registers.

    `accumulator`: a register that is read and written, and forwarded early between accumulating operations.
    """

    slot: str
    cycles: int = 1
    writes: tuple[tuple[str, int], ...] = ()  # register, latency
    reads: tuple[str, ...] = ()
    accumulator: str = ""
    forwards: bool = False  # the result can feed an accumulator after one cycle


_ANY = {"integer", "load", "vector load", "branch", "narrow"}
PAIRS = {  # first slot -> what may issue in the same cycle after it
    "integer": _ANY | {"lane load", "wide"},
    "load": {"integer", "branch", "narrow"},
    "vector load": {"integer", "branch", "narrow"},
    "lane load": {"integer", "branch"},
    "narrow": _ANY,
    "wide": {"integer", "load", "branch"},
    "branch": set[str](),
    "alone": set[str](),
}

_BRANCHES = {"b", "cbz", "cbnz", "tbz", "tbnz", "bl", "br", "blr", "ret"}
_COMPARES = {"cmp", "cmn", "tst", "ccmp"}
_SELECTS = {"csel", "cset", "csinc", "cinc", "cneg", "csinv", "csneg", "csetm", "ccmp"}
_SETS_FLAGS = {"subs", "adds", "ands"}
_INTEGER_MULTIPLIES = {"mul", "madd", "msub", "smull", "umull", "smaddl", "umaddl", "smulh", "umulh", "mneg"}
_ACCUMULATES = (
    *("smlal", "umlal", "smlsl", "umlsl", "mla", "mls", "sdot", "udot"),
    *("sadalp", "uadalp", "saba", "uaba", "fmla", "fmls"),
)
_FORWARDS = {"smull", "umull", "mul"}
_LATENCY_4 = (
    *("smull", "umull", "mul", "sqrdmulh", "sqdmulh", "pmul", "addp", "addv", "saddlp", "uaddlp"),
    *("sqxtn", "sqxtun", "uqxtn", "srshl", "sqrshl", "urshl", "sqshl", "sqadd", "sqrshrn"),
    *("fmul", "fadd", "fsub", "scvtf", "ucvtf", "fcvt"),
)
_LATENCY_2 = {"movi", "mov", "and", "orr", "eor", "dup", "mvni"}
_CHANGES_PART = {  # the destination is read too
    *("sqxtn2", "sqxtun2", "uqxtn2", "xtn2", "fcvtn2", "shrn2", "rshrn2", "sqrshrn2", "addhn2"),
    *("sli", "sri", "ssra", "usra", "srsra", "ursra", "bsl", "bit", "bif", "movk", "bfi", "bfxil"),
}
_WIDE = (".16b", ".8h", ".4s", ".2d")
_REGISTER = re.compile(r"\b([xwvqdshb])(\d+)\b|\b(w?sp)\b")


def cycles(instructions: Iterable[str]) -> int:
    """Cycles from the first issue to the last."""
    ready: dict[str, int] = {}
    early: dict[str, int] = {}  # accumulators that were forwarded
    now, used, last = 0, 0, "alone"
    for text in instructions:
        timing = timing_of(text)
        start = max([now, *(ready.get(register, 0) for register in timing.reads)])
        if timing.accumulator:
            known = ready.get(timing.accumulator, 0)
            start = max(start, early.get(timing.accumulator, known))
        if start > now or used:
            pairs = start == now and used == 1 and timing.cycles == 1 and timing.slot in PAIRS[last]
            start, used = (start, 2) if pairs else (max(start, now + 1), 1)
        else:
            used = 1
        for register, latency in timing.writes:
            ready[register] = start + latency
            early.pop(register, None)
            if timing.forwards:
                early[register] = start + 1
        now, last = start + timing.cycles - 1, timing.slot
        used = 2 if timing.cycles > 1 else used
    return now + 1


@functools.cache
def timing_of(text: str) -> Timing:
    """The timing of one instruction, as the disassembler prints it."""
    name, _, operands = text.partition(" ")
    if name.startswith("prf"):
        return Timing("load", reads=_registers(operands))
    if "[" in operands and name.startswith(("ld", "st")):
        return _memory(name, operands)
    if name in _BRANCHES or name.startswith("b."):
        return Timing("branch", reads=_registers(operands) + ((FLAGS,) if name.startswith("b.") else ()))
    registers = _registers(operands)
    if not any(register.startswith("v") for register in registers):
        return _integer(name, operands)
    if _REGISTER.match(operands) and registers[0].startswith("v"):
        return _vector(name, operands)
    return Timing("alone", writes=tuple((r, 3) for r in registers[:1]), reads=registers[1:])


def _registers(operands: str) -> tuple[str, ...]:
    """Names shared by all views of a register: x3 for w3, v3 for q3, d3 and v3.8h."""
    found = _REGISTER.finditer(operands)
    return tuple("sp" if m[3] else ("x" if m[1] in "xw" else "v") + m[2] for m in found)


def _is_wide(destination: str) -> bool:
    return destination.startswith("q") or any(shape in destination for shape in _WIDE)


def _memory(name: str, operands: str) -> Timing:
    structured = name[:3] in ("ld1", "ld2", "ld3", "ld4", "st1", "st2", "st3", "st4")
    head, _, tail = operands.rpartition("[") if structured else operands.partition("[")
    data, base = _registers(head), _registers(tail)
    moves_base = base and ("]!" in operands or re.search(r"\], *[#x]", operands))
    updated = ((base[0], 1),) if moves_base else ()
    is_load = name.startswith("ld")
    if not any(register.startswith("v") for register in data):
        writes = tuple((register, 3) for register in data) if is_load else ()
        return Timing("load", writes=writes + updated, reads=base if is_load else base + data)
    lane = structured and "}[" in operands.replace(" ", "")
    per = 2 if not lane and _is_wide(head.strip("{ ")) else 1
    total = per * len(data)
    latency = 4 if per == 2 else 3
    writes = tuple((r, latency + i * per) for i, r in enumerate(data)) if is_load else ()
    return Timing(
        "lane load" if name[:3] in ("ld1", "st1") else "vector load",
        1 if name == "ld1r" else total if is_load else max(1, total // 2),
        writes + updated,
        base if is_load and not lane else base + data,
    )


def _integer(name: str, operands: str) -> Timing:
    registers = _registers(operands)
    flags = (FLAGS,) if name in _SELECTS else ()
    if name in _COMPARES:
        return Timing("integer", writes=((FLAGS, 1),), reads=registers + flags)
    writes_first = bool(_REGISTER.match(operands))
    target = registers[:1] if writes_first else ()
    reads = registers[len(target) :] + (target if name in _CHANGES_PART else ()) + flags
    latency = 3 if name in _INTEGER_MULTIPLIES else 8 if "div" in name else 1
    writes = tuple((register, latency) for register in target)
    writes += ((FLAGS, 1),) if name in _SETS_FLAGS else ()
    return Timing("alone" if latency == 3 else "integer", 1, writes, reads)


def _vector(name: str, operands: str) -> Timing:
    target, *sources = _registers(operands)
    first = operands.split(",")[0]
    if name == "ins" or (name == "mov" and re.match(r"v\d+\.[bhsd]\[", first)):
        return Timing("narrow", 1, ((target, 2),), (*sources, target))
    base = name.rstrip("2")
    accumulates = base.startswith(_ACCUMULATES)
    latency = 4 if accumulates or base.startswith(_LATENCY_4) else 2 if base in _LATENCY_2 else 3
    reads = (*sources, target) if name in _CHANGES_PART else tuple(sources)
    wide = _is_wide(first)
    forwards = accumulates or (wide and base in _FORWARDS)
    slot = "wide" if wide else "narrow"
    return Timing(slot, 1, ((target, latency),), reads, target if accumulates else "", forwards)
