"""The door of TFLite_Detection_PostProcess, a custom operator: its options, output shapes and rules."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from pilite.compiler.graph import Detection, Graph, Node
from pilite.compiler.operands import Mismatch, Refused
from pilite.compiler.rules import AGAIN, Rule, per_tensor, quant

OP = "CUSTOM:TFLite_Detection_PostProcess"
Shape = tuple[int, ...]
DTYPES = ("float32", "uint8")
MOST = 10_000  # detections
DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
)


def options(stored: bytes) -> dict[str, Any]:
    """The operator's flexbuffer map. Raises Refused."""
    try:
        found = flexbuffers.GetRoot(bytearray(stored)).AsMap
        known = {key.AsKey: found[key.AsKey] for key in list(found.Keys)[:64]}
        return {
            "most": known["max_detections"].AsInt,
            "per_box": known["max_classes_per_detection"].AsInt,
            "per_class": known["detections_per_class"].AsInt if "detections_per_class" in known else 100,
            "regular": bool(known["use_regular_nms"].AsBool) if "use_regular_nms" in known else False,
            "score": _real(known["nms_score_threshold"]),
            "overlap": _real(known["nms_iou_threshold"]),
            "classes": known["num_classes"].AsInt,
            "scale": tuple(_real(known[f"{side}_scale"]) for side in "yxhw"),
        }
    except DAMAGED as e:
        raise Refused(f"its custom options cannot be read ({type(e).__name__}: {e}); {AGAIN}") from None


def _real(value: Any) -> float:
    return float(np.float32(value.AsFloat))


def stored(o: Detection) -> bytes:
    """The map that `options` reads."""
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("max_detections", o.most)
        builder.Int("max_classes_per_detection", o.per_box)
        builder.Int("detections_per_class", o.per_class)
        builder.Bool("use_regular_nms", o.regular)
        builder.Float("nms_score_threshold", o.score)
        builder.Float("nms_iou_threshold", o.overlap)
        builder.Int("num_classes", o.classes)
        for side, scale in zip("yxhw", o.scale, strict=True):
            builder.Float(f"{side}_scale", scale)
    return bytes(builder.Finish())


def shapes(node: Node, graph: Graph) -> tuple[Shape, ...]:
    """Boxes, classes, scores, and how many there are."""
    o = node.options
    assert isinstance(o, Detection)
    boxes, scores, anchors = (graph.tensors[i].shape for i in node.inputs)
    n = boxes[1] if len(boxes) == 3 else 0
    if boxes[:1] != (1,) or n < 1 or boxes[2] < 4 or scores[:2] != (1, n) or anchors != (n, 4):
        given = f"boxes {list(boxes)}, scores {list(scores)} and anchors {list(anchors)}"
        raise Mismatch(f"its {given} are not [1, n, 4], [1, n, classes] and [n, 4]")
    if len(scores) != 3 or scores[2] - o.classes not in (0, 1):
        raise Mismatch(f"its scores {list(scores)} have neither {o.classes} classes nor a background besides")
    if not (0 < o.most <= MOST and o.per_box > 0 and o.most * o.per_box <= MOST and o.classes > 0):
        raise Mismatch(
            f"it gives {o.most} times {o.per_box} detections of {o.classes} classes, above 0 to {MOST}"
        )
    count = o.most * o.per_box
    return (1, count, 4), (1, count), (1, count), (1,)


def _dtypes(node: Node, graph: Graph) -> str | None:
    boxes, scores, anchors = (graph.tensors[i] for i in node.inputs)
    dtypes = sorted({graph.tensors[i].dtype for i in node.outputs})
    if boxes.dtype not in DTYPES or scores.dtype not in DTYPES or dtypes != ["float32"]:
        return f"turns {boxes.dtype} and {scores.dtype} into {', '.join(dtypes)}; it takes float32 and uint8"
    if not anchors.is_constant or anchors.dtype != boxes.dtype:
        return f"its anchors are no constant of the boxes' {boxes.dtype}; {AGAIN}"
    quantized = [t for t in (boxes, scores, anchors) if t.dtype == "uint8"]
    return next((reason for reason in map(per_tensor, quantized) if reason), None)


def _numbers(node: Node, graph: Graph) -> str | None:
    o = node.options
    assert isinstance(o, Detection)
    if not all(math.isfinite(scale) and scale != 0 for scale in o.scale):
        return f"its scales {o.scale} are no numbers other than 0; {AGAIN}"
    if not 0 < o.overlap <= 1 or math.isnan(o.score) or o.per_class < 1:
        return (
            f"its thresholds {o.score:g} and {o.overlap:g} or {o.per_class} detections a class make no sense"
        )
    return None


CHECKS: tuple[Rule, ...] = (_dtypes, _numbers)


def real_anchors(node: Node, graph: Graph) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The anchors as float32, (n, 4)."""
    anchors = graph.tensors[node.inputs[2]]
    assert anchors.data is not None
    if anchors.dtype == "float32":
        return np.asarray(anchors.data, np.float32)
    centred = anchors.data.astype(np.float32) - np.float32(quant(anchors).zero_point)
    return np.asarray(centred * np.float32(quant(anchors).scale), np.float32)
