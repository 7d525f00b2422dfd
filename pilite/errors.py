"""Every failure a user can cause; each message says what, where, why and what to do next.

PiliteError            exit code 2: wrong use
├── ModelError         the .tflite cannot be compiled as it is
├── CompileError       the compiler's own tools failed on an accepted model
├── BoardError         a board cannot be reached, or refuses
└── CheckFailed        exit code 1: everything ran, and the answer is no
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

# What to do about a disk, by the number of its error.
ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make it readable and writable for this user"),
}


class PiliteError(Exception):
    """Base of all expected failures; the command line prints its text without a traceback."""

    exit_code = 2


class ModelError(PiliteError):
    """The model is damaged, foreign or outside what pilite promises."""


class CompileError(PiliteError):
    """A tool of the compiler (TVM, zig) failed on a model that was accepted."""


class BoardError(PiliteError):
    """A board is unreachable, not what its file says, or refused an artifact."""


class CheckFailed(PiliteError):
    """A comparison, a test or a health check found a difference."""

    exit_code = 1


def next_step(problem: OSError) -> str:
    """What to do about a disk that is full or refuses; nothing about other errors."""
    advice = ADVICE.get(problem.errno or 0)
    return f"{advice} and run again" if advice else ""


@contextmanager
def disk_as_error() -> Iterator[None]:
    """Turn the OSError of a disk that is full or refuses, wherever it was met, into a PiliteError."""
    try:
        yield
    except OSError as problem:
        step = next_step(problem)
        if not step:
            raise
        raise PiliteError(
            f"{problem.filename or 'the disk'}: {problem.strerror}. {step}; "
            f"what was finished before is unchanged."
        ) from None
