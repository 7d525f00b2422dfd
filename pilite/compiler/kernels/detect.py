"""Detection post-processing: a call of detect.c, which is linked with the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels.emit import SOURCE, Param, function
from pilite.compiler.layout import Layout
from pilite.compiler.spec import Arrays, Detect

ANCHORS, SIZES, FACTORS = "anchors", "sizes", "factors"
FLOAT = INT = 4  # bytes


class Detection:
    """Its parameters: boxes, scores, anchors, sizes, factors, scratch, output."""

    share: int = 0

    def prepare(self, spec: Detect, arrays: Arrays) -> tuple[Detect, tuple[Any, ...]]:
        return spec, tuple(np.asarray(arrays[name]) for name in (ANCHORS, SIZES, FACTORS))

    def scratch(self, variant: Detect, xs: Sequence[Layout], y: Layout) -> tuple[int, ...]:
        """The fields of `Room` in detect.c."""
        return (variant.boxes * (4 * FLOAT + 1) + variant.many * (3 * FLOAT + 4 * INT),)

    def emit(
        self, name: str, spec: Detect, variant: Detect, xs: Sequence[Layout], y: Layout, cpu: Cpu
    ) -> tirx.PrimFunc:
        room = self.scratch(variant, xs, y)[0]
        params = [Param("boxes", "float32", xs[0].size), Param("scores", "float32", xs[1].size)]
        params += [Param(ANCHORS, "float32", 4 * spec.boxes), Param(SIZES, "int32", 9)]
        params += [Param(FACTORS, "float32", 6), Param("room", "int8", room), Param("y", "float32", y.size)]

        def body(*buffers: Any) -> None:
            T.evaluate(T.call_extern("int32", "pilite_detect", *(buffer.data for buffer in buffers)))

        return function(name, params, body).with_attr(SOURCE, "detect.c")
