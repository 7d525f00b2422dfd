"""A camera's loop: `rpicam-vid ... -o - | python3 camera.py MODEL.so`, frames of the model's size on stdin.

Every frame is read straight into the model's input buffer: nothing is copied or allocated. On a Pi:

    rpicam-vid -t 0 -n --width 224 --height 224 --codec yuv420 -o - | ffmpeg -f rawvideo -pix_fmt yuv420p \
        -s 224x224 -i - -f rawvideo -pix_fmt rgb24 - | python3 camera.py model.so
"""

from __future__ import annotations

import sys
from typing import BinaryIO

from pilite import Model


def fill(stream: BinaryIO, buffer: memoryview) -> bool:
    """Read exactly one frame; False at the end of the stream."""
    at = 0
    while at < len(buffer):
        count = stream.readinto(buffer[at:])  # type: ignore[attr-defined]
        if not count:
            return False
        at += count
    return True


def main(model_path: str, stream: BinaryIO) -> None:
    with Model(model_path, threads=1) as model:
        frame = memoryview(model.inputs[0].reshape(-1).view("uint8"))
        number = 0
        while fill(stream, frame):
            model.invoke()
            scores = model.outputs[0].reshape(-1)
            print(f"frame {number}: {scores.argmax()}={scores.max()}", flush=True)
            number += 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("camera.py MODEL.so <frames")
    main(sys.argv[1], sys.stdin.buffer)
