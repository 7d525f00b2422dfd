"""TFLite_Detection_PostProcess: float32 from here on, one kernel, four outputs that share a buffer."""

from __future__ import annotations

from math import prod

import numpy as np

from pilite.compiler import detection
from pilite.compiler.graph import Detection, Node
from pilite.compiler.ops.common import quant
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import DequantizeFloat, Detect


def post_process(node: Node, b: Builder) -> None:
    """detection_postprocess.cc; newer kernels put equal scores of several classes in the order of classes."""
    o = node.options
    assert isinstance(o, Detection)
    boxes, scores = (b.tensor(i).shape for i in node.inputs[:2])
    shapes = [b.tensor(i).shape for i in node.outputs]
    found = b.new((sum(map(prod, shapes)),), "float32")
    sizes = (
        boxes[1],
        boxes[2],
        scores[2],
        o.classes,
        o.most,
        o.per_box,
        o.per_class,
        o.regular,
        not b.numerics.is_xnnpack,
    )
    arrays = {
        "anchors": detection.real_anchors(node, b.graph),
        "sizes": np.array(sizes, np.int32),
        "factors": np.array([*o.scale, o.score, o.overlap], np.float32),
    }
    many = max(boxes[1] + o.most, o.classes)
    b.emit(Detect(boxes[1], many), [_real(b, i) for i in node.inputs[:2]], found, arrays)
    at = 0
    for tensor, shape in zip(node.outputs, shapes, strict=True):
        b.view(tensor, found, at)
        at += prod(shape)


def _real(b: Builder, tensor: int) -> int:
    t = b.tensor(tensor)
    if t.dtype == "float32":
        return b.value(tensor)
    real = b.new(t.shape, "float32")
    b.emit(DequantizeFloat(quant(t).scale, signed_zero_point(t)), (b.value(tensor),), real)
    return real
