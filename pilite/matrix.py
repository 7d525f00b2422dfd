"""Many builds side by side: models x CPUs x numerics, with a line of progress each and a table at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from pilite.errors import PiliteError, disk_as_error


@dataclass
class Cell:
    """One build: what it is called, what it does now, and what came of it."""

    row: Mapping[str, str]  # model, cpu, numerics
    work: Callable[[Callable[[str], None]], Mapping[str, Any]]
    step: str = "waits"
    started: float = 0.0
    seconds: float | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    error: PiliteError | None = None

    @property
    def title(self) -> str:
        return " ".join(self.row.values())

    def run(self) -> None:
        """Do the work; an expected failure is kept and does not stop the others."""
        self.started = time.monotonic()
        try:
            with disk_as_error():
                self.result = self.work(self._says)
            self.step = str(self.result["result"])
        except PiliteError as error:
            self.step, self.error = "failed", error
        self.seconds = time.monotonic() - self.started

    def _says(self, step: str) -> None:
        self.step = step


def build(cells: Sequence[Cell], jobs: int) -> None:
    """Run all cells, `jobs` at a time; show what happens on stderr. Interrupted, finished builds are kept."""
    with ThreadPoolExecutor(jobs) as pool, _display(cells) as changed:
        running: set[Future[None]] = {pool.submit(cell.run) for cell in cells}
        try:
            while running:
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                changed()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def table(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The summary: one row per build."""
    return [
        {
            **cell.row,
            "result": cell.step,
            "s": cell.seconds,
            "KiB": cell.result.get("bytes", 0) // 1024 or None,
            "build": str(cell.result.get("build_id", ""))[:12],
        }
        for cell in cells
    ]


def raise_failures(cells: Sequence[Cell]) -> None:
    """Raise the one failure as it is; several as one text of the first one's kind."""
    failed = [cell for cell in cells if cell.error is not None]
    if not failed:
        return
    first = failed[0].error
    assert first is not None
    if len(failed) == 1:
        raise first
    lines = [f"{len(failed)} of {len(cells)} builds failed:"]
    raise type(first)("\n".join([*lines, *(f"  {cell.title}: {cell.error}" for cell in failed)]))


class _display:
    """On a terminal a live table; elsewhere one line as each build ends."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self.told: set[int] = set()
        self.live: Any = None

    def __enter__(self) -> Callable[[], None]:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), refresh_per_second=5, transient=True)
            self.live.start()
        return self.update

    def __exit__(self, *failure: object) -> None:
        self.update()
        if self.live is not None:
            self.live.stop()

    def update(self) -> None:
        if self.live is not None:
            self.live.update(self._text())
            return
        for cell in self.cells:
            if cell.seconds is not None and id(cell) not in self.told:
                self.told.add(id(cell))
                done = f"{len(self.told)}/{len(self.cells)}"
                print(f"{done} {cell.title}: {cell.step} ({cell.seconds:.1f} s)", file=sys.stderr, flush=True)

    def _text(self) -> str:
        ended = sum(cell.seconds is not None for cell in self.cells)
        active = [c for c in self.cells if c.started and c.seconds is None]
        now = time.monotonic()
        lines = [f"{c.title}: {c.step} ({now - c.started:.0f} s)" for c in active]
        return "\n".join([f"{ended} of {len(self.cells)} builds are done", *lines])
