"""Commands for a board's login shell, which may be any: sh, bash, zsh, csh or fish, and talkative.

SSH gives every command to that shell, after its start-up files. So it gets one line that all of them read
alike, and what start-up files print is told from the command's output by a mark.
"""

from __future__ import annotations

import shlex
import string
from collections.abc import Mapping, Sequence

MARK = "==pilite=="  # a line before the command's own output, on stdout and stderr
# What a command says is read: it says it in English, whatever the board speaks.
_BEGIN = f"echo {MARK}; echo {MARK} >&2; export LC_ALL=C; exec "
_PLAIN = frozenset((string.ascii_letters + string.digits + " _-+=:,./@").encode())


def line(command: Sequence[str], timeout: float, grace: float, env: Mapping[str, str]) -> str:
    """The line that runs `command`; timeout(1) kills its process group, also when we are gone by then."""
    settings = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
    words = ["timeout", "-k", f"{grace:.0f}", f"{timeout:.0f}", *settings, *command]
    return f'exec /bin/sh -c \'eval "$(printf %b "{_encoded(_BEGIN + shlex.join(words))}")"\''


def _encoded(text: str) -> str:
    r"""For %b of printf(1): what any shell could take for its own, as quotes, is \0 and three digits."""
    return "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in text.encode())


def output(text: str) -> str | None:
    """What the command itself printed; None if the shell never came to the command."""
    _, mark, after = text.partition(f"{MARK}\n")
    return after if mark else None
