"""Classify every picture of a folder: `python3 folder.py MODEL.so FOLDER`. Needs pilite and numpy.

A picture is an .npy of the model's input, or a binary PPM (P6) of its size.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from pilite import Model

BEST = 5


def read_picture(path: Path) -> Any:
    """The pixels, (height, width, 3) uint8 for a PPM. Raises ValueError."""
    if path.suffix == ".npy":
        return np.load(path)
    magic, width, height, most, pixels = path.read_bytes().split(maxsplit=4)
    if (magic, most) != (b"P6", b"255") or len(pixels) < int(width) * int(height) * 3:
        raise ValueError(f"{path}: is no binary PPM with 8 bits")
    return np.frombuffer(pixels, np.uint8, int(width) * int(height) * 3).reshape(int(height), int(width), 3)


def best(scores: Any) -> str:
    """`class=score` of the five best, the best first."""
    flat = scores.reshape(-1)
    return " ".join(f"{i}={flat[i]}" for i in np.argsort(-flat.astype(int), kind="stable")[:BEST])


def main(model_path: str, folder: str) -> None:
    with Model(model_path) as model:
        shape = model.inputs[0].shape
        for path in sorted(p for p in Path(folder).iterdir() if p.suffix in (".npy", ".ppm")):
            (scores,) = model.run(read_picture(path).reshape(shape))
            print(f"{path}: {best(scores)}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("folder.py MODEL.so FOLDER")
    main(sys.argv[1], sys.argv[2])
