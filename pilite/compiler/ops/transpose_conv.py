"""TRANSPOSE_CONV as ordinary convolutions: one for each position of an output pixel between input pixels.

Output pixel o is hit by tap k of input pixel i where o + pad = i * stride + k. All o with the same o % stride
see the same taps, of neighbouring input pixels: a convolution with stride 1. Its results go to every
stride-th place of the output, so no product with an inserted zero is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.compiler import graph
from pilite.compiler.fixedpoint import operands
from pilite.compiler.graph import Node
from pilite.compiler.ops import wide
from pilite.compiler.ops.common import (
    centred_weights,
    channel_multipliers,
    channel_requant,
    clamp,
    folded_bias,
    is_unsigned,
    window,
)
from pilite.compiler.ops.conv import weighted
from pilite.compiler.program import Builder, signed_zero_point, storage
from pilite.compiler.spec import Copy, QConv2D, QConv16, Walk, Window


@dataclass(frozen=True)
class Phase:
    """The output positions first, first + stride, ... along one dimension, as a convolution."""

    first: int
    count: int
    computed: int  # positions of the convolution: all that see the input, the first `count` are wanted
    taps: tuple[int, ...]  # of the transposed kernel, in the order of the input; -1: a tap of zeros
    before: int  # pixels that the window of the first position begins before the input
    after: int  # pixels that the window of the last position ends behind it


def phases(size: int, result: int, kernel: int, stride: int, pad: int) -> list[Phase]:
    """All that have a position; `size` and `result`: pixels of input and output along the dimension."""
    return [_phase(first, size, result, kernel, stride, pad) for first in range(min(stride, result))]


def _phase(first: int, size: int, result: int, kernel: int, stride: int, pad: int) -> Phase:
    """Position first + n * stride sees input pixel n + newest with tap `smallest`, the one before with
    tap smallest + stride, and so on.
    """
    newest, smallest = divmod(first + pad, stride)
    taps = list(range(smallest, kernel, stride))[::-1] or [-1]
    before = len(taps) - 1 - newest
    taps, before = [-1] * max(-before, 0) + taps, max(before, 0)
    count = -(-(result - first) // stride)
    after = max(count - 1 - before + len(taps) - size, 0)
    computed = before + size + after - len(taps) + 1
    return Phase(first, count, computed, tuple(taps), before, after)


def transpose_conv(node: Node, b: Builder) -> None:
    """transpose_conv.cc; padding is that of the convolution from the output to the input."""
    o = node.options
    assert isinstance(o, graph.TransposeConv)
    x, w, _, y = weighted(node, b)
    _, kh, kw, _ = w.shape
    forward = [-(-n // s) for n, s in zip(y.shape[1:3], o.stride, strict=True)]
    pads = window(o.padding, (kh, kw), o.stride, (1, 1), y.shape[1:3], forward).before
    convolution = _wide_sums(node, b, o.activation) if x.dtype == "int16" else _sums(node, b, o.activation)
    source, target = b.value(node.inputs[0]), b.value(node.outputs[0])
    along = [
        phases(*sizes) for sizes in zip(x.shape[1:3], y.shape[1:3], (kh, kw), o.stride, pads, strict=True)
    ]
    for rows, columns in product(*along):
        spec, arrays = convolution(_window(rows, columns), _taps(centred_weights(w), rows, columns))
        result = b.new((y.shape[0], rows.computed, columns.computed, y.shape[3]), storage(y.dtype))
        b.emit(spec, (source,), result, arrays, spec.window.halo)
        place = Walk((0, rows.first, columns.first, 0), (0, 1, 2, 3), (1, *o.stride, 1))
        plain = Walk((0, 0, 0, 0), (0, 1, 2, 3), (1, 1, 1, 1))
        b.emit(Copy((y.shape[0], rows.count, columns.count, y.shape[3]), plain, place), (result,), target)


Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
# A window and the weights of its taps: the convolution that they are.
Convolution: TypeAlias = Callable[[Window, npt.NDArray[np.int16]], tuple[QConv2D | QConv16, Arrays]]


def _sums(node: Node, b: Builder, activation: str) -> Convolution:
    x, w, bias, y = weighted(node, b)
    rounding = b.numerics.sums(x)
    reals = channel_multipliers(x, w, y, y.shape[3], rounding, float_product=is_unsigned(x))
    requant = channel_requant(rounding, y, activation, reals, b.numerics.nearest)

    def convolution(window: Window, weight: npt.NDArray[np.int16]) -> tuple[QConv2D, Arrays]:
        folded = folded_bias(bias, weight, (1, 2, 3), signed_zero_point(x))
        return QConv2D(window, requant), {"weight": weight, "bias": folded, **operands(rounding, reals)}

    return convolution


def _wide_sums(node: Node, b: Builder, activation: str) -> Convolution:
    limits = clamp(b.tensor(node.outputs[0]), activation)

    scaling = wide.scaling(node, b)

    def convolution(window: Window, weight: npt.NDArray[np.int16]) -> tuple[QConv16, Arrays]:
        return QConv16(window, 0, *limits, scaling), wide.arrays(node, b, weight.astype(np.int8))

    return convolution


def _window(rows: Phase, columns: Phase) -> Window:
    kernel = len(rows.taps), len(columns.taps)
    return Window(kernel, (1, 1), (1, 1), (rows.before, columns.before), (rows.after, columns.after))


def _taps(weight: npt.NDArray[np.int16], rows: Phase, columns: Phase) -> npt.NDArray[np.int16]:
    """(oc, kh, kw, ic) of one phase; tap -1 is the line of zeros behind the kernel's own."""
    padded = np.pad(weight, ((0, 0), (0, 1), (0, 1), (0, 0)))
    chosen: npt.NDArray[np.int16] = padded[:, rows.taps][:, :, columns.taps]
    return np.ascontiguousarray(chosen)
