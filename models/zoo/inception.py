"""Inception V1 to V4 as tables: the operators of the published quantized files (slim's definitions).

A row is a chain of steps, or several branches of the same input whose results are concatenated:

    64              1x1 convolution to 64 channels, with ReLU as all convolutions here
    320@3x3/2v      3x3 convolution, stride 2, padding VALID instead of SAME
    256@1x3+256@3x1 both of the same input, concatenated
    max3x3/2        pooling
    dw8@7x7/2       depthwise convolution, 8 outputs for each input channel, no activation
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.zoo.layers import CLASSES, Builder, Net

Row = tuple[str, ...]  # its branches

V1: tuple[Row, ...] = (
    ("64@7x7/2 max3x3/2 64 192@3x3 max3x3/2",),
    ("64", "96 128@3x3", "16 32@3x3", "max3x3 32"),
    ("128", "128 192@3x3", "32 96@3x3", "max3x3 64"),
    ("max3x3/2",),
    ("192", "96 208@3x3", "16 48@3x3", "max3x3 64"),
    ("160", "112 224@3x3", "24 64@3x3", "max3x3 64"),
    ("128", "128 256@3x3", "24 64@3x3", "max3x3 64"),
    ("112", "144 288@3x3", "32 64@3x3", "max3x3 64"),
    ("256", "160 320@3x3", "32 128@3x3", "max3x3 128"),
    ("max2x2/2",),
    ("256", "160 320@3x3", "32 128@3x3", "max3x3 128"),
    ("384", "192 384@3x3", "48 128@3x3", "max3x3 128"),
)

V2: tuple[Row, ...] = (
    ("dw8@7x7/2 64 max3x3/2 64 192@3x3 max3x3/2",),
    ("64", "64 64@3x3", "64 96@3x3 96@3x3", "avg3x3 32"),
    ("64", "64 96@3x3", "64 96@3x3 96@3x3", "avg3x3 64"),
    ("128 160@3x3/2", "64 96@3x3 96@3x3/2", "max3x3/2"),
    ("224", "64 96@3x3", "96 128@3x3 128@3x3", "avg3x3 128"),
    ("192", "96 128@3x3", "96 128@3x3 128@3x3", "avg3x3 128"),
    ("160", "128 160@3x3", "128 160@3x3 160@3x3", "avg3x3 96"),
    ("96", "128 192@3x3", "160 192@3x3 192@3x3", "avg3x3 96"),
    ("128 192@3x3/2", "192 256@3x3 256@3x3/2", "max3x3/2"),
    ("352", "192 320@3x3", "160 224@3x3 224@3x3", "avg3x3 128"),
    ("352", "192 320@3x3", "192 224@3x3 224@3x3", "max3x3 128"),
)


def _v3_17(c: int) -> Row:
    """V3's modules at 17x17: 7x7 convolutions in two factors, `c` channels inside."""
    return (
        "192",
        f"{c} {c}@1x7 192@7x1",
        f"{c} {c}@7x1 {c}@1x7 {c}@7x1 192@1x7",
        "avg3x3 192",
    )


V3: tuple[Row, ...] = (
    ("32@3x3/2v 32@3x3v 64@3x3 max3x3/2v 80v 192@3x3v max3x3/2v",),
    ("64", "48 64@5x5", "64 96@3x3 96@3x3", "avg3x3 32"),
    *2 * (("64", "48 64@5x5", "64 96@3x3 96@3x3", "avg3x3 64"),),
    ("384@3x3/2v", "64 96@3x3 96@3x3/2v", "max3x3/2v"),
    _v3_17(128),
    *2 * (_v3_17(160),),
    _v3_17(192),
    ("192 320@3x3/2v", "192 192@1x7 192@7x1 192@3x3/2v", "max3x3/2v"),
    *2 * (("320", "384 384@1x3+384@3x1", "448 384@3x3 384@1x3+384@3x1", "avg3x3 192"),),
)

V4: tuple[Row, ...] = (
    ("32@3x3/2v 32@3x3v 64@3x3",),
    ("max3x3/2v", "96@3x3/2v"),
    ("64 96@3x3v", "64 64@1x7 64@7x1 96@3x3v"),
    ("192@3x3/2v", "max3x3/2v"),
    *4 * (("96", "64 96@3x3", "64 96@3x3 96@3x3", "avg3x3 96"),),
    ("384@3x3/2v", "192 224@3x3 256@3x3/2v", "max3x3/2v"),
    *7 * (("384", "192 224@1x7 256@7x1", "192 192@7x1 224@1x7 224@7x1 256@1x7", "avg3x3 128"),),
    ("192 192@3x3/2v", "256 256@1x7 320@7x1 320@3x3/2v", "max3x3/2v"),
    *3 * (("256", "384 256@1x3+256@3x1", "384 448@3x1 512@1x3 256@1x3+256@3x1", "avg3x3 256"),),
)

STEP = re.compile(r"(?:(max|avg)|(dw)?(\d+)@?)(?:(\d)x(\d))?(?:/(\d))?(v?)")
POOLS = {"max": "MAX", "avg": "AVERAGE"}


def v1(width: float, resolution: int, dtype: str) -> Net:
    return _net(V1, width, resolution, dtype)


def v2(width: float, resolution: int, dtype: str) -> Net:
    return _net(V2, width, resolution, dtype)


def v3(width: float, resolution: int, dtype: str) -> Net:
    return _net(V3, width, resolution, dtype)


def v4(width: float, resolution: int, dtype: str) -> Net:
    """The last one's classes are a FULLY_CONNECTED of the pooled image."""
    return _net(V4, width, resolution, dtype)


def channels(count: int, width: float) -> int:
    """slim's rule: the truncated product, at least 16."""
    return max(16, int(count * width))


def _net(rows: tuple[Row, ...], width: float, resolution: int, dtype: str) -> Net:
    b = Builder(resolution, dtype)
    x = b.input
    for row in rows:
        x = _row(b, x, row, width)
    x = b.global_pool(x)
    if rows is V4:
        return b.finish(b.softmax(b.dense(x, CLASSES, "logits")))
    return b.finish(b.classify(x))


def _row(b: Builder, x: int, row: Row, width: float) -> int:
    """One module. In the files a pool of the module's input comes first and concatenations come last."""
    first = sorted(range(len(row)), key=lambda i: not row[i].startswith(tuple(POOLS)))
    ends = {i: _chain(b, x, row[i], width) for i in first}
    parts = [_joined(b, ends[i]) for i in range(len(row))]
    return _joined(b, parts)


def _chain(b: Builder, x: int, steps: str, width: float) -> list[int]:
    """The values that the steps end in: several, not yet concatenated, behind a +."""
    *trunk, last = steps.split()
    for step in trunk:
        x = _step(b, x, step, width)
    return [_step(b, x, fork, width) for fork in last.split("+")]


def _joined(b: Builder, parts: Sequence[int]) -> int:
    return parts[0] if len(parts) == 1 else b.concat(parts)


def _step(b: Builder, x: int, text: str, width: float) -> int:
    found = STEP.fullmatch(text)
    assert found is not None, text
    pool, depthwise, count, h, w, stride, valid = found.groups()
    window, step = (int(h or 1), int(w or 1)), int(stride or 1)
    padding = "VALID" if valid else "SAME"
    if pool:
        return b.pool(x, POOLS[pool], window, step, padding)
    if depthwise:
        return b.depthwise(x, window, step, "NONE", multiplier=int(count))
    return b.conv(x, channels(int(count), width), window, step, padding=padding)
