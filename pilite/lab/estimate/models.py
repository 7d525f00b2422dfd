"""Core models: cycles of straight-line code. The Cortex-A53 has two, since nobody published an exact one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pilite.errors import PiliteError
from pilite.lab.estimate import inorder
from pilite.lab.estimate.assembly import run_tool

Code = Sequence[str]
Timer = Callable[[Sequence[Code]], list[int]]

_FEATURES = "+dotprod,+fullfp16,+rdm,+lse"
_ARGUMENTS = (
    *("-mtriple=aarch64-linux-gnu", f"-mattr={_FEATURES}", "-iterations=1", "--json"),
    *("-all-stats=false", "-resource-pressure=false", "-instruction-info=false", "-summary-view"),
    "-skip-unsupported-instructions=lack-sched",  # Neoverse N1 lacks some atomics
)
# Calls cost what their targets cost, and the others are no work of a kernel; llvm-mca would guess.
_LEFT_OUT = re.compile(r"(bl|blr|br|ret|nop|hint|bti|pac|aut|svc|mrs|msr|isb|dmb|dsb|udf|yield|prfm|prfum)\b")


@dataclass(frozen=True)
class Model:
    """A way to count cycles; `name` is the key in the JSON."""

    name: str
    about: str
    timer: Timer


def kept(instructions: Code) -> list[str]:
    """The instructions that the models are asked about."""
    return [text for text in instructions if not _LEFT_OUT.match(text)]


def _in_order(codes: Sequence[Code]) -> list[int]:
    return [inorder.cycles(code) for code in codes]


def _llvm(mcpu: str) -> Timer:
    def timer(codes: Sequence[Code]) -> list[int]:
        return simulate(codes, mcpu)

    return timer


def simulate(codes: Sequence[Code], mcpu: str) -> list[int]:
    """llvm-mca's cycles for one pass over each piece of code, all in one process.

    Raises:
        PiliteError: LLVM is missing or refuses the code.
    """
    text = "".join(_region(str(i), code) for i, code in enumerate(codes))
    printed = run_tool("llvm-mca", [*_ARGUMENTS, f"-mcpu={mcpu}"], text)
    found = {r["Name"]: int(r["SummaryView"]["TotalCycles"]) for r in json.loads(printed)["CodeRegions"]}
    if len(found) != len(codes):
        raise PiliteError(f"llvm-mca answered for {len(found)} of {len(codes)} pieces of code.")
    return [found[str(i)] for i in range(len(codes))]


def _region(name: str, code: Code) -> str:
    """Empty code would be no region at all; a nop takes its place."""
    return "\n".join([f"# LLVM-MCA-BEGIN {name}", *(code or ["nop"]), "# LLVM-MCA-END", ""])


A53_IN_ORDER = Model("a53-in-order", "published measurements of the A53, see inorder.py", _in_order)
A53_LLVM = Model("a53-llvm", "LLVM's scheduling model of the Cortex-A53", _llvm("cortex-a53"))
A72_LLVM = Model("a72-llvm", "LLVM's model of the Cortex-A57, used for the A72 too", _llvm("cortex-a72"))
N1_LLVM = Model("n1-llvm", "LLVM's model of the Neoverse N1, the A76's server version", _llvm("neoverse-n1"))

MODELS: dict[str, tuple[Model, ...]] = {  # by CPU; the first is the one that claims are made on
    "cortex-a53": (A53_IN_ORDER, A53_LLVM),
    "cortex-a72": (A72_LLVM,),
    "cortex-a76": (N1_LLVM,),
}
