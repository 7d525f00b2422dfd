"""What the verbs of tasks.py share: checked option values, tables on the terminal, JSON files."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from pilite.errors import PiliteError

LARGEST = 10**9  # longer digit strings are typing mistakes, and Python refuses to convert very long ones

STDOUT = ("-", "/dev/stdout")  # files that are standard output

Row = Mapping[str, Any]


def whole_numbers(text: str, option: str) -> list[int]:
    """Parse `1,4` into [1, 4].

    Raises:
        PiliteError: a part is not a whole number from 1 to LARGEST.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise PiliteError(f"{option} {text}: not a whole number above 0, or several with commas such as 1,4.")
    return [int(part) for part in parts]


def whole_number(text: str, option: str) -> int:
    """Parse one whole number.

    Raises:
        PiliteError: it is not one from 1 to LARGEST.
    """
    numbers = whole_numbers(text, option)
    if len(numbers) != 1:
        raise PiliteError(f"{option} {text}: one whole number is needed here.")
    return numbers[0]


def percent(text: str, option: str) -> float:
    """Parse `2.5` into 0.025. Raises PiliteError: it is no number from 0 to 100."""
    if not re.fullmatch(r"\d{1,3}(\.\d{1,6})?", text, re.ASCII) or float(text) > 100:
        raise PiliteError(f"{option} {text}: a number of percent from 0 to 100 is needed, such as 2.5.")
    return float(text) / 100


def drawn_seed(text: str) -> int:
    """The seed that `--seed` gives, or a fresh one. Raises PiliteError: it is no whole number."""
    return whole_number(text, "--seed") if text else secrets.randbelow(10**6) + 1


def chosen(text: str, known: Sequence[str], option: str) -> list[str]:
    """Split `a,b` into names that are all in `known`; an empty text is no name.

    Raises:
        PiliteError: an unknown name; lists the known ones.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise PiliteError(f"{option} {name}: unknown; known: {', '.join(known)}.")
    return names


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` as `write_text` does."""
    write_text(path, json.dumps(document, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` beside its place and rename it, so that a reader never sees half of it; STDOUT as it is.

    Raises:
        PiliteError: the file cannot be written.
    """
    if str(path) in STDOUT:
        stream = sys.__stdout__ or sys.stdout
        stream.write(text)
        stream.flush()
        return
    beside = path.with_name(path.name + ".new")
    try:
        if path.exists() and not path.is_file():  # a device or a pipe is no place for another file
            path.write_text(text, encoding="utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as problem:
        raise PiliteError(f"{path}: cannot be written: {problem.strerror}.") from None


@contextmanager
def aside(*files: object) -> Iterator[None]:
    """Print to standard error where one of `files` is standard output, which then has it alone."""
    if any(file in STDOUT for file in files):
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


class Steps:
    """One line per piece of work: on a terminal its current step, at the end its result and seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.start = time.monotonic()

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *failure: object) -> None:
        self._line("")

    def show(self, step: str) -> None:
        self._line(f"{self.what}: {step} ...")

    def end(self, result: str) -> None:
        self._line("")
        print(f"{self.what}: {result} ({time.monotonic() - self.start:.1f} s)", flush=True)

    def _line(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def show_table(title: str, rows: Sequence[Row]) -> None:
    """Print rows that share their keys as a table with the keys as its head; nothing without rows.

    Lines between cells, and colours unless NO_COLOR is set, are for terminals only.
    """
    if not rows:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = sys.stdout.isatty()
    lines = box.HEAVY_HEAD if drawn else None
    table = Table(title=title, box=lines, title_justify="left", title_style="bold", header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if is_number(value) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    Console(width=None if drawn else 160).print(table, markup=False)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def cell(value: object) -> str:
    """One value of a table as text: three digits after the point for floats, empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
