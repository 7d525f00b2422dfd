"""Machine code of AArch64 -> text, with LLVM's disassembler."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Sequence

from pilite.errors import PiliteError

LLVM = 19  # cycle counts of other versions differ, so budgets name one
FEATURES = "+v8.2a,+dotprod,+lse,+fp-armv8,+neon,+fullfp16,+rdm"
_HINT = f"apt-get install llvm-{LLVM}"


def tool(name: str) -> str:
    """The path of one of LLVM's tools.

    Raises:
        PiliteError: it is not installed; says which package has it.
    """
    path = shutil.which(f"{name}-{LLVM}") or shutil.which(f"/usr/lib/llvm-{LLVM}/bin/{name}")
    if path is None:
        raise PiliteError(f"estimate needs {name} of LLVM {LLVM}, which is not installed: {_HINT}.")
    return path


@functools.cache
def version() -> str:
    """What LLVM's tools say about themselves. Raises PiliteError if they are not installed."""
    return run_tool("llvm-mca", ["--version"], "")


def run_tool(name: str, arguments: Sequence[str], text: str) -> str:
    """What the tool prints for `text`. Raises PiliteError with the tool's first words if it fails."""
    command = [tool(name), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PiliteError(f"{name} failed: {done.stderr.strip()[:300]}")
    return done.stdout


def disassemble(codes: Sequence[bytes]) -> list[tuple[str, ...]]:
    """Instructions of each piece of code, such as "smull v0.8h, v1.8b, v2.8b".

    Raises:
        PiliteError: LLVM is missing, or the bytes are no instructions that it knows.
    """
    words = [code[at : at + 4] for code in codes for at in range(0, len(code), 4)]
    text = "\n".join(" ".join(f"0x{byte:02x}" for byte in word) for word in words)
    printed = run_tool("llvm-mc", ["--disassemble", "-triple=aarch64-linux-gnu", f"-mattr={FEATURES}"], text)
    lines = [re.sub(r"\s+", " ", line.split("//")[0]).strip() for line in printed.splitlines()]
    instructions = iter([line for line in lines if line and not line.startswith(".")])
    found = [tuple(next(instructions, "") for _ in range(0, len(code), 4)) for code in codes]
    if any("" in block for block in found) or next(instructions, None) is not None:
        raise PiliteError("llvm-mc does not know every instruction of the profile.")
    return found
