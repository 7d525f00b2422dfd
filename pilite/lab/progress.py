"""How far a race is, from the lines that measure.py tells: in one line, and for a terminal in a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

# What a line may tell, beside "ms".
NEWS: dict[str, Any] = {
    "session": int,
    "rounds": int,
    "share": float,
    "seconds": float,
    "doing": str,
    "failed": dict,
}


@dataclass(frozen=True)
class Progress:
    """`ms`: the median of every round that was told, by "runtime/threads"; `failed`: who left it, and why."""

    model: str
    sessions: int
    most_s: float
    session: int = 1
    rounds: int = 0
    share: float = 0.0  # of what the effort asks of the slowest row
    seconds: float = 0.0
    doing: str = "starts"
    ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    def after(self, line: str) -> Progress:
        """With one more line of measure.py. A line that is no news, such as a warning, changes nothing."""
        try:
            news = json.loads(line)
            known = {name: kind(news[name]) for name, kind in NEWS.items() if name in news}
            last = {name: float(value) for name, value in news.get("ms", {}).items()}
            ms = {name: (*self.ms.get(name, ()), value) for name, value in last.items()}
            return replace(self, **{"doing": "", **known, "ms": {**self.ms, **ms}})
        except (ValueError, TypeError, AttributeError):
            return self

    @property
    def left_s(self) -> float | None:
        """Seconds until the end, if the rest goes as it went so far; None: too early to tell."""
        if not self.share:
            return None
        left = self.seconds * (1 / self.share - 1)
        return left if self.seconds > self.most_s else min(left, self.most_s - self.seconds)

    @property
    def headline(self) -> str:
        left = "" if self.left_s is None else f", about {clock(self.left_s)} left"
        session = f"session {self.session} of {self.sessions}, " if self.sessions > 1 else ""
        where = self.doing or f"round {self.rounds}"
        return f"{self.model}: {session}{where}, {self.share:.0%}{left}"

    def __str__(self) -> str:
        times = ", ".join(f"{name} {statistics.median(ms):.3g} ms" for name, ms in self.ms.items())
        return f"{self.headline}: {times}" if times else self.headline

    def __rich__(self) -> Table:
        """The rows with their times so far, and why others left the race; `headline` is beside it."""
        from rich.table import Table
        from rich.text import Text

        drawn = Table("runtime", caption_justify="left")
        for name in ("threads", "rounds", "last ms", "median ms", "fastest ms"):
            drawn.add_column(name, justify="right")
        for name, ms in self.ms.items():
            runtime, _, threads = name.rpartition("/")
            times = (f"{value:.3f}" for value in (ms[-1], statistics.median(ms), min(ms)))
            drawn.add_row(Text(runtime), threads, str(len(ms)), *times)
        left = (f"{name} left the race: {reason}" for name, reason in self.failed.items())
        drawn.caption = Text("\n".join(left))
        return drawn


def clock(seconds: float) -> str:
    """Seconds as people say them: 40 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
