"""The command line around the tasks: exit codes, repeatable options, and options shared along a chain."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from pilite.errors import PiliteError, disk_as_error

SHARED = ("board", "model", "input-shape", "numerics")
CLOSED_PIPE = 141  # what a shell calls SIGPIPE


@contextmanager
def failures_as_text() -> Iterator[None]:
    """Turn an expected failure into its text on stderr and its exit code."""
    try:
        with disk_as_error():
            yield
    except PiliteError as error:
        raise Exit(str(error), code=error.exit_code) from None
    except KeyboardInterrupt:
        raise Exit("interrupted; what is finished is kept, run again to go on", code=130) from None
    except ParseError as error:
        hint = "`--list` shows the tasks, `--help TASK` the options of one."
        raise Exit(f"{error} {hint}", code=2) from None


class Namespace(Collection):
    """The tasks; a repeatable option at the end of the line needs its value, as every other does."""

    def to_contexts(self, ignore_unknown_help: bool | None = None) -> list[ParserContext]:
        contexts = super().to_contexts(ignore_unknown_help)
        for option in (option for context in contexts for option in context.args.values()):
            option.raw_value = None if option.kind is list else option.raw_value
        return contexts


def share(tasks: Sequence[ParserContext]) -> None:
    """An option of SHARED that one task of a chain was given holds for the whole chain.

    `build deploy bench --board container` means that board three times. A task with a value of its own
    keeps it.
    """
    for name in SHARED:
        arguments = [task.args[name] for task in tasks if name in task.args]
        given = [argument for argument in arguments if argument.got_value]
        if len(given) != 1:
            continue
        values = given[0].value if given[0].kind is list else [given[0].value]
        for argument in arguments:
            if argument is not given[0] and (argument.kind is list or len(values) == 1):
                for value in values:
                    argument.set_value(value)


class CommandLine(Program):
    """Invoke with exit code 2 for a mistyped command line (its own is 1), and options shared in a chain."""

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """As invoke's, but quiet when the reader of a pipe (`| head`) has seen enough."""
        try:
            super().run(argv, exit)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(CLOSED_PIPE)

    def parse_core(self, argv: list[str] | None) -> None:
        with failures_as_text():
            super().parse_core(argv)

    def parse_tasks(self) -> None:
        with failures_as_text():
            super().parse_tasks()
        share(self.tasks)
