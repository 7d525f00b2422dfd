"""CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED on 16-bit values with 8-bit weights (16x8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler import graph
from pilite.compiler.fixedpoint import Multiplier, Rounding
from pilite.compiler.fixedpoint16 import reduced
from pilite.compiler.graph import ABSENT, Node
from pilite.compiler.ops.common import clamp, dense, quant, window
from pilite.compiler.ops.conv import weighted
from pilite.compiler.program import Builder
from pilite.compiler.rules import has_narrow_sums
from pilite.compiler.spec import QConv16, Window

Lower = Callable[[Node, Builder], None]
POINT = Window((1, 1), (1, 1), (1, 1), (0, 0), (0, 0))


def by_dtype(narrow: Lower, wide: Lower) -> Lower:
    """`wide` if the operator's first operand is int16."""

    def lower(node: Node, b: Builder) -> None:
        (wide if b.tensor(node.inputs[0]).dtype == "int16" else narrow)(node, b)

    return lower


def conv_2d(node: Node, b: Builder) -> None:
    """reference_integer_ops::ConvPerChannel; zero points are 0."""
    o = node.options
    assert isinstance(o, graph.Conv2D)
    x, w, _, y = weighted(node, b)
    spans = window(o.padding, w.shape[1:3], o.stride, o.dilation, x.shape[1:3], y.shape[1:3])  # type: ignore[arg-type]
    spec = QConv16(spans, 0, *clamp(y, o.activation), scaling(node, b))
    ends = b.value(node.inputs[0]), b.value(node.outputs[0])
    weight = dense(np.asarray(w.data), x.shape[3] // w.shape[3])
    b.emit(spec, ends[:1], ends[1], arrays(node, b, weight), spans.halo)


def depthwise_conv_2d(node: Node, b: Builder) -> None:
    """reference_integer_ops::DepthwiseConvPerChannel."""
    o = node.options
    assert isinstance(o, graph.DepthwiseConv2D)
    x, w, _, y = weighted(node, b)
    spans = window(o.padding, w.shape[1:3], o.stride, o.dilation, x.shape[1:3], y.shape[1:3])  # type: ignore[arg-type]
    spec = QConv16(spans, o.multiplier, *clamp(y, o.activation), scaling(node, b))
    ends = b.value(node.inputs[0]), b.value(node.outputs[0])
    by_channel = np.ascontiguousarray(np.asarray(w.data)[0].transpose(2, 0, 1))
    b.emit(spec, ends[:1], ends[1], arrays(node, b, by_channel), spans.halo)


def fully_connected(node: Node, b: Builder) -> None:
    """A convolution of one line of pixels."""
    o = node.options
    assert isinstance(o, graph.FullyConnected)
    x, w, _, y = weighted(node, b)
    units, depth = w.shape
    rows = x.elements // depth
    source = b.reshaped(b.value(node.inputs[0]), (1, 1, rows, depth))
    target = b.reshaped(b.value(node.outputs[0]), (1, 1, rows, units))
    spec = QConv16(POINT, 0, *clamp(y, o.activation), scaling(node, b))
    b.emit(spec, (source,), target, arrays(node, b, np.asarray(w.data)))


def arrays(node: Node, b: Builder, weight: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """A per-tensor FULLY_CONNECTED of older kernels multiplies scales in float32, all others in double."""
    x, w, bias, y = weighted(node, b)
    scales: Sequence[float] = quant(w).scales
    single = node.op == "FULLY_CONNECTED" and len(scales) == 1
    scales = tuple(scales) * (weight.shape[0] if len(scales) == 1 else 1)
    sums = {
        "weight": weight,
        "bias": np.zeros(len(scales), np.int64) if bias is None else np.asarray(bias.data, np.int64),
    }
    kind = scaling(node, b)
    if kind == "float64":
        return sums | {"scale": np.array([quant(x).scale * s / quant(y).scale for s in scales])}
    products = [
        float(np.float32(quant(x).scale) * np.float32(s)) if single else quant(x).scale * s for s in scales
    ]
    scaled = _whole if kind == "gemmlowp" else reduced
    mantissa, right = zip(*(scaled(product / quant(y).scale) for product in products), strict=True)
    return sums | {"mantissa": np.array(mantissa, np.int32), "right": np.array(right, np.int32)}


def scaling(node: Node, b: Builder) -> str:
    """Numerics xnnpack promises 64-bit sums only. Newer kernels of FULLY_CONNECTED scale them in float64."""
    xnnpack, dense = b.numerics.is_xnnpack, node.op == "FULLY_CONNECTED"
    bias = node.inputs[2]
    wide = bias == ABSENT or b.tensor(bias).dtype == "int64"
    if dense and (xnnpack or (b.numerics.fully_connected is Rounding.FLOAT64 and wide)):
        return "float64"
    return "gemmlowp" if not xnnpack and has_narrow_sums(node, b.graph) else "reduced"


def _whole(real: float) -> tuple[int, int]:
    """(mantissa, right) of 31 bits, as of 32-bit sums."""
    m = Multiplier.of(real)
    return m.mantissa, -m.exponent
