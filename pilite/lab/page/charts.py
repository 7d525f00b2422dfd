"""Plots without text: shapes in a box of WIDTH x HEIGHT that a browser may stretch; labels are HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WIDTH, HEIGHT = 1000, 40
SHOWN = 98.0  # percentile at which the axis ends; slower runs are counted beside the plot
TICKS = 8
GOLDEN = 0.618034  # spreads dots over the height without a pattern that means something


@dataclass(frozen=True)
class Scale:
    """Milliseconds to the plot's width, logarithmic: runtimes differ by factors."""

    start: float
    end: float

    @property
    def ticks(self) -> list[dict[str, Any]]:
        """1, 2 and 5 times powers of ten, with their place in percent; few, so that texts fit."""
        powers = range(math.floor(math.log10(self.start)), math.ceil(math.log10(self.end)) + 1)
        values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        inside = [value for value in values if self.start <= value <= self.end]
        step = max(1, -(-len(inside) // TICKS))
        return [
            {"at": round(float(self.x(np.asarray(value))) / WIDTH * 100, 2), "text": f"{value:g}"}
            for value in inside[::step]
        ]

    def x(self, ms: Array) -> Array:
        width = math.log(self.end / self.start)
        return np.asarray(np.log(np.maximum(ms, self.start) / self.start) / width * WIDTH, np.float64)


def scale_of(rows: Sequence[Array]) -> Scale:
    """An axis from the fastest run to SHOWN percent of the runs of every row."""
    least = min((float(row.min()) for row in rows), default=1.0)
    most = max((float(np.percentile(row, SHOWN)) for row in rows), default=1.0)
    return Scale(0.95 * max(least, 1e-6), 1.05 * max(most, least, 1e-6))


def dots(ms: Array, scale: Scale) -> str:
    """An SVG path with one dot per run that is within the axis: dense places look dark."""
    xs = scale.x(ms[ms <= scale.end])
    ys = 4 + (HEIGHT - 8) * ((np.arange(len(xs)) * GOLDEN) % 1)
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs, ys, strict=True))


def box(ms: Array, scale: Scale) -> dict[str, float]:
    """Places of the quartiles and the median, in the plot's width."""
    low, middle, high = scale.x(np.percentile(ms, [25, 50, 75]))
    places = {"x": low, "width": max(high - low, 1.0), "median": middle}
    return {name: round(float(min(place, WIDTH)), 1) for name, place in places.items()}


def line(medians: Sequence[float]) -> str:
    """Points of a polyline: medians of rounds over time, from half to one and a half times their median."""
    values = np.asarray(medians, np.float64)
    middle = float(np.median(values)) or 1.0
    ys = HEIGHT * (1.5 - np.clip(values / middle, 0.5, 1.5))
    xs = np.linspace(0, WIDTH, len(values)) if len(values) > 1 else np.zeros(1)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
