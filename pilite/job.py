"""One compilation as another process sees it: words on its command line, lines on its standard output.

python -m pilite.compiler --model F --name N --cpu C --options JSON --build-id ID --output F
{"step":"lower"} ...                      one line per step, then the sealed artifact is in --output
{"error":"...", "exit_code":2}            or what a user did wrong
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilite.errors import CheckFailed, CompileError, ModelError, PiliteError

MODULE = "pilite.compiler"
_KINDS = {kind.__name__: kind for kind in (PiliteError, ModelError, CompileError, CheckFailed)}
_TAIL = 300

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What is compiled, and the build_id that the caller computed from it."""

    model: Path
    name: str
    cpu: str
    options: dict[str, Any]
    build_id: str

    def words(self, model: str, output: str) -> list[str]:
        """The command line after `python -m pilite.compiler`, for paths as the other process sees them."""
        options = json.dumps(self.options, sort_keys=True)
        named = {"model": model, "name": self.name, "cpu": self.cpu, "options": options}
        named |= {"build-id": self.build_id, "output": output}
        return [word for key, value in named.items() for word in (f"--{key}", value)]


Compile = Callable[[Job, Progress], bytes]


def step_line(step: str) -> str:
    return json.dumps({"step": step})


def error_line(error: PiliteError) -> str:
    return json.dumps({"error": str(error), "kind": type(error).__name__})


def follow(lines: Iterable[str], progress: Progress) -> list[str]:
    """Report the steps of a compilation; the lines that are no protocol, for a failure's last words.

    Raises the error that the other process reported.
    """
    rest = []
    for line in lines:
        message = _message(line)
        if "step" in message:
            progress(str(message["step"]))
        elif "error" in message:
            raise _KINDS.get(str(message.get("kind")), CompileError)(str(message["error"]))
        elif line.strip():
            rest.append(line.strip())
    return rest


def died(job: Job, code: int, words: Iterable[str]) -> CompileError:
    """The error for a compilation that ended without saying why."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    how = "was killed (out of memory?)" if code in (137, -9) else how
    text = " ".join(words)[-_TAIL:] or "it said nothing"
    return CompileError(f"compiling {job.name} for {job.cpu} {how}: {text}. Earlier artifacts are unchanged.")


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
