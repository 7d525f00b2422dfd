"""Run the pinned C and C++ compiler: `zig cc` and `zig c++` of PyPI's ziglang. Nothing of the host is used.

The same sources and options give the same bytes in every directory, container and process.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pilite.errors import CompileError

AARCH64 = "aarch64-linux-gnu.2.28"  # glibc 2.28: Raspberry Pi OS 10 and newer
X86_64 = "x86_64-linux-gnu.2.28"
TRIPLES = {"aarch64": AARCH64, "x86_64": X86_64}

_CACHE = Path(__file__).resolve().parents[1] / "artifacts" / ".zig"
_TAIL_LINES = 15
_NO_ROOM = ("No space left on device", "NoSpaceLeft", "DiskQuota")  # LLVM's words, zig's names
_ZIG = (sys.executable, "-I", "-m", "ziglang")
_MISSING = (
    "The compiler zig is not installed in this Python environment; `python3 run.py doctor` installs it."
)
# Variables that would let the host's headers, libraries or clock into the output.
_UNHERMETIC = frozenset(
    {
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "OBJC_INCLUDE_PATH",
        "LIBRARY_PATH",
        "SOURCE_DATE_EPOCH",
    }
)


def version() -> str:
    """The version of ziglang that is installed. Raises CompileError if there is none."""
    try:
        return importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as error:
        raise CompileError(_MISSING) from error


def compiler_command(kind: Literal["cc", "c++"], triple: str) -> list[str]:
    """The command that compiles or links for `triple`, e.g. "aarch64-linux-gnu.2.28".

    Debug information is off, because it holds directory names. Python is isolated (-I), so that no module
    of the current folder is imported.
    """
    return [*_ZIG, kind, "-target", triple, "-g0"]


def run_zig(arguments: Sequence[str], cwd: Path) -> None:
    """Run a whole command, from `compiler_command`, in the folder `cwd`.

    Raises CompileError with the end of zig's output.
    """
    command = list(arguments)
    done = subprocess.run(
        command,
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise CompileError(_failure(command, cwd, done.returncode, done.stdout))


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _UNHERMETIC}
    return {"ZIG_GLOBAL_CACHE_DIR": str(_CACHE), **kept}


def _failure(command: Sequence[str], cwd: Path, code: int, output: str) -> str:
    if "No module named ziglang" in output:
        return _MISSING
    if any(words in output for words in _NO_ROOM):
        cache = _environment()["ZIG_GLOBAL_CACHE_DIR"]
        return (
            f"zig: No space left on device, in {cwd.parent} or in its cache {cache}. "
            f"Make room and run again; what was finished before is unchanged."
        )
    tail = "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
    return f"zig {' '.join(command[len(_ZIG) :])}\nfailed with code {code} in {cwd}:\n{tail}"
