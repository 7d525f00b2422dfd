"""Drawn pictures to calibrate with: whole-number arithmetic only, so every machine draws the same ones.

Each kind stresses another statistic: pixel noise, soft shapes of all sizes, hard edges and flat areas, little
light.
"""

from __future__ import annotations

import numpy as np

from models.zoo.draw import Bytes, Ints, raw, whole

CELLS = (64, 32, 16, 8, 4, 2)  # pixels between the grid points of the soft shapes, coarse to fine
RECTANGLES = 24


def draw(seed: str, count: int, side: int) -> Bytes:
    """`count` pictures, shape (count, side, side, 3), the kinds in turn."""
    return np.stack([KINDS[i % len(KINDS)](f"{seed}/{i}", side) for i in range(count)])


def noise(seed: str, side: int) -> Bytes:
    return raw(seed, side * side * 3).reshape(side, side, 3)


def clouds(seed: str, side: int) -> Bytes:
    """Soft shapes of all sizes, the large ones strongest, contrast doubled."""
    total = sum(cell * _grid(f"{seed}/{cell}", side, cell) for cell in CELLS)
    return np.clip(2 * (total // sum(CELLS)) - 128, 0, 255).astype(np.uint8)


def blocks(seed: str, side: int) -> Bytes:
    """Rectangles of one colour each, over soft shapes."""
    picture = clouds(seed, side).copy()
    corners = whole(f"{seed}/corners", 4 * RECTANGLES, 0, side).reshape(-1, 2, 2)
    colours = raw(f"{seed}/colours", 3 * RECTANGLES).reshape(-1, 3)
    for (rows, columns), colour in zip(corners, colours, strict=True):
        picture[min(rows) : max(rows), min(columns) : max(columns)] = colour
    return picture


def dim(seed: str, side: int) -> Bytes:
    """Soft shapes in a third of the light, with a little sensor noise."""
    return clouds(seed, side) // 3 + noise(f"{seed}/sensor", side) // 16


KINDS = (noise, clouds, blocks, dim)


def _grid(seed: str, side: int, cell: int) -> Ints:
    """Random bytes at every `cell`-th pixel and linear in between, shape (side, side, 3)."""
    points = side // cell + 2
    grid = raw(seed, points * points * 3).reshape(points, points, 3).astype(np.int32)
    index, part = np.divmod(np.arange(side, dtype=np.int32), cell)
    part = part[:, None, None]
    rows = grid[index] * (cell - part) + grid[index + 1] * part  # (side, points, 3), times cell
    part = part.transpose(1, 0, 2)
    both = rows[:, index] * (cell - part) + rows[:, index + 1] * part
    mean: Ints = both // (cell * cell)
    return mean
