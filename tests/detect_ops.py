"""Random models of TFLite_Detection_PostProcess, whose outputs TFLite defines to the last entry or not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pilite.compiler import detection
from pilite.compiler.graph import Detection
from tests.draw import Array, Draw, OneOp


def post_process(d: Draw, op: str, defined: bool = True) -> OneOp:
    """`defined`: regular suppression, or fast without suppression, where TFLite writes every entry."""
    n, classes, background = d.pick((1, 2, 9, 40, 130)), d.pick((1, 2, 3, 7, 20)), d.pick((0, 1))
    regular = d.chance(0.5)
    most = d.pick((1, 3, 10, 50))
    free = defined and not regular
    per_box = (
        1 if regular or d.chance(0.5) else d.pick((1, 2, 3) if not free else tuple(range(1, classes + 1)))
    )
    options = Detection(
        most=min(most, n) if free else most,
        per_box=per_box,
        per_class=d.pick((1, 5, 100)),
        regular=regular,
        score=-10.0 if free else float(np.float32(d.pick((-10.0, 0.1, 0.5, 2.0)))),
        overlap=1.0 if free else float(np.float32(d.pick((0.1, 0.5, 0.6, 1.0)))),
        classes=classes,
        scale=d.pick(((10.0, 10.0, 5.0, 5.0), (1.0, 2.0, 3.0, 4.0))),
    )
    boxes = _values(d, (1, n, d.pick((4, 4, 5))), 0.02)
    scores = _values(d, (1, n, classes + background), 1 / 256)
    centres = d.rng.uniform(0.05, 1, (n, 4)).astype(np.float32)
    if d.chance(0.3):
        centres[:] = centres[0]  # boxes that differ little
    anchors = d.constant((n, 4), 1 / 128, 0) if d.dtype == "uint8" else d.tensor((n, 4), data=centres)
    count = options.most * options.per_box
    shapes = ((1, count, 4), (1, count), (1, count), (1,))
    outputs = [d.tensor(shape, dtype="float32") for shape in shapes]
    case = d.finish(op, (boxes, scores, anchors), outputs, options)
    return OneOp(case.name, case.model, [case.inputs[0], _with_ties(d, case.inputs[1])])


def _values(d: Draw, shape: tuple[int, ...], scale: float) -> int:
    return d.activation(shape, scale) if d.dtype == "uint8" else d.tensor(shape)


def _with_ties(d: Draw, scores: Array) -> Array:
    """Of a few values in half of them."""
    if d.chance(0.5):
        return scores
    return scores // 64 * 64 if scores.dtype == np.uint8 else np.round(scores)


OPS: dict[str, Callable[[Draw, str], OneOp]] = {detection.OP: post_process}
DTYPES = {detection.OP: ("float32", "uint8")}
