"""CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: sums of products, fused with their requantization."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.compiler import graph, numerics
from pilite.compiler.fixedpoint import Rounding, operands
from pilite.compiler.graph import ABSENT, Node, Tensor
from pilite.compiler.ops.common import (
    centred_weights,
    channel_multipliers,
    channel_requant,
    dense,
    folded_bias,
    is_unsigned,
    quant,
    window,
)
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import Broadcast, Copy, QConv2D, QDepthwiseConv2D, Walk, Window


def _kernel(w: Tensor) -> tuple[int, int]:
    return w.shape[1], w.shape[2]


def weighted(node: Node, b: Builder) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Input, weights, bias if there is one, as a vector, and output."""
    x, w = (b.tensor(i) for i in node.inputs[:2])
    bias = b.tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] != ABSENT else None
    if bias is not None and bias.data is not None:
        bias = replace(bias, shape=(bias.elements,), data=bias.data.reshape(-1))
    return x, w, bias, b.tensor(node.outputs[0])


def conv_2d(node: Node, b: Builder) -> None:
    """acc = bias + sum (x - zx) * (w - zw); y = requant(acc). Weights are (oc, kh, kw, ic)."""
    options = node.options
    assert isinstance(options, graph.Conv2D)
    x, w, bias, y = weighted(node, b)
    spans = window(options.padding, _kernel(w), options.stride, options.dilation, x.shape[1:3], y.shape[1:3])
    groups = x.shape[3] // w.shape[3]
    weight = centred_weights(w)
    rounding = _rounding(b, x, w, (w.shape[3], w.shape[0] // groups))
    reals = channel_multipliers(x, w, y, y.shape[-1], rounding, float_product=is_unsigned(x))
    spec = QConv2D(spans, channel_requant(rounding, y, options.activation, reals, b.numerics.nearest))
    arrays: dict[str, npt.NDArray[Any]] = {
        "weight": weight,
        "bias": folded_bias(bias, weight, (1, 2, 3), signed_zero_point(x)),
        **operands(rounding, reals),
    }
    source, target = b.value(node.inputs[0]), b.value(node.outputs[0])
    if groups == 1:
        b.emit(spec, (source,), target, arrays, spans.halo)
    else:
        _grouped(b, spec, (source, target), arrays, groups)


LEAST_CHANNELS = 32  # that one convolution of some groups has, if there are as many


def _grouped(
    b: Builder, spec: QConv2D, ends: tuple[int, int], arrays: dict[str, npt.NDArray[Any]], groups: int
) -> None:
    """Some groups together are one convolution with zeros, of copied channels: few products are in vain, and
    vectors are full.
    """
    source, target = ends
    (*image, ic), (*result, oc) = b.values[source].shape, b.values[target].shape
    enough = (n for n in range(1, groups) if groups % n == 0 and n * ic // groups >= LEAST_CHANNELS)
    together = next(enough, groups)
    for first in range(0, groups, together):
        begin, count = first * oc // groups, together * oc // groups
        own = {name: values[begin : begin + count] for name, values in arrays.items()}
        own["weight"] = dense(own["weight"], together)
        if together == groups:
            b.emit(spec, (source,), target, own, spec.window.halo)
            return
        taken = b.new((*image, together * ic // groups), border=b.values[source].border)
        b.emit(_channels(b.values[taken].shape, first * ic // groups, 0), (source,), taken)
        made = b.new((*result, count))
        b.emit(spec, (taken,), made, own, spec.window.halo)
        b.emit(_channels((*result, count), 0, begin), (made,), target)


def _channels(shape: tuple[int, ...], source: int, target: int) -> Copy:
    """Channels from `source` on become those from `target` on."""
    places = (Walk((0, 0, 0, at), (0, 1, 2, 3), (1, 1, 1, 1)) for at in (source, target))
    return Copy(shape, *places)


def _rounding(b: Builder, x: Tensor, w: Tensor, group: tuple[int, int]) -> Rounding:
    taps = w.shape[1] * w.shape[2]
    return b.numerics.sums(x, by_depthwise_kernel=numerics.by_depthwise_kernel(group, taps))


def depthwise_conv_2d(node: Node, b: Builder) -> None:
    """As CONV_2D with weights (1, kh, kw, c * multiplier);
    output channel c * multiplier + k reads input channel c.
    """
    options = node.options
    assert isinstance(options, graph.DepthwiseConv2D)
    x, w, bias, y = weighted(node, b)
    spans = window(options.padding, _kernel(w), options.stride, options.dilation, x.shape[1:3], y.shape[1:3])
    weight = centred_weights(w)[0]
    rounding = _rounding(b, x, w, (1, options.multiplier))
    reals = channel_multipliers(x, w, y, y.shape[-1], rounding, float_product=is_unsigned(x))
    requant = channel_requant(rounding, y, options.activation, reals, b.numerics.nearest)
    constants: dict[str, npt.NDArray[Any]] = {
        "bias": folded_bias(bias, weight, (0, 1), signed_zero_point(x)),
        **operands(rounding, reals),
    }
    source, target = b.value(node.inputs[0]), b.value(node.outputs[0])
    if x.shape[3] == 1:  # one input channel for all: an ordinary convolution
        dense = np.ascontiguousarray(weight.transpose(2, 0, 1))[..., None]
        b.emit(QConv2D(spans, requant), (source,), target, {"weight": dense, **constants}, spans.halo)
        return
    if options.multiplier > 1:
        source = _repeat_channels(b, source, options.multiplier)
    b.emit(QDepthwiseConv2D(spans, requant), (source,), target, {"weight": weight, **constants}, spans.halo)


def _repeat_channels(b: Builder, source: int, times: int) -> int:
    v = b.values[source]
    repeated = b.new((*v.shape[:-1], v.shape[-1] * times), border=v.border)
    b.emit(Broadcast((*v.shape, 1), (*v.shape, times)), (source,), repeated)
    return repeated


def fully_connected(node: Node, b: Builder) -> None:
    """A 1x1 convolution of one image row of `batch` pixels; weights are (oc, ic)."""
    options = node.options
    assert isinstance(options, graph.FullyConnected)
    x, w, bias, y = weighted(node, b)
    oc, ic = w.shape
    rounding = b.numerics.matrix(x)
    weight = centred_weights(w)
    single = len(quant(w).scales) == 1 and rounding is Rounding.GEMMLOWP
    reals = channel_multipliers(x, w, y, oc, rounding, float_product=single)
    spec = QConv2D(_POINT, channel_requant(rounding, y, options.activation, reals, b.numerics.nearest))
    arrays: dict[str, npt.NDArray[Any]] = {
        "weight": weight.reshape(oc, 1, 1, ic),
        "bias": folded_bias(bias, weight, (1,), signed_zero_point(x)),
        **operands(rounding, reals),
    }
    rows = x.elements // ic
    source, target = b.value(node.inputs[0]), b.value(node.outputs[0])
    b.emit(spec, (b.reshaped(source, (1, 1, rows, ic)),), b.reshaped(target, (1, 1, rows, oc)), arrays)


_POINT = Window((1, 1), (1, 1), (1, 1), (0, 0), (0, 0))
