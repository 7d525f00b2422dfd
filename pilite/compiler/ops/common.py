"""What several operators share: quantization of ends, windows, per-channel multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pilite.compiler.fixedpoint import (
    XNNPACK,
    Int64,
    Nearest,
    Requant,
    Rounding,
    activation_range,
    ends,
    every,
    is_large,
    nearest_tflite,
    operands,
)
from pilite.compiler.graph import Quant, Tensor
from pilite.compiler.program import Builder, signed_zero_point, storage
from pilite.compiler.spec import Table, Window

T = TypeVar("T", bound=np.generic)


def quant(tensor: Tensor) -> Quant:
    """The quantization that the importer guaranteed."""
    assert tensor.quant is not None
    return tensor.quant


def is_unsigned(tensor: Tensor) -> bool:
    """Whether the model is of the uint8 kind, which rounds differently in places."""
    return tensor.dtype == "uint8"


def clamp(output: Tensor, activation: str, nearest: Nearest = nearest_tflite) -> tuple[int, int]:
    """Output limits in the domain of stored values."""
    shift = 128 if is_unsigned(output) else 0
    limits = quant(output).scale, signed_zero_point(output), *ends(storage(output.dtype))
    return activation_range(activation, *limits, nearest, shift)


def plain_requant(output: Tensor, activation: str = "NONE", nearest: Nearest = nearest_tflite) -> Requant:
    """Zero point and clamp of an operator that scales by itself."""
    low, high = clamp(output, activation, nearest)
    return Requant(Rounding.GEMMLOWP, signed_zero_point(output), low, high)


def window(
    padding: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    size: Sequence[int],
    output: Sequence[int],
) -> Window:
    """TFLite's padding: SAME puts floor(total / 2) before, VALID none. `after` is what the last window reads.

    size, output: (height, width). Source: kernels/padding.h ComputePaddingHeightWidth.
    """
    before, after = [], []
    for k, s, d, n, out in zip(kernel, stride, dilation, size, output, strict=True):
        reach = (out - 1) * s + (k - 1) * d + 1
        start = max(reach - n, 0) // 2 if padding == "SAME" else 0
        before.append(start)
        after.append(max(reach - start - n, 0))
    return Window(kernel, stride, dilation, (before[0], before[1]), (after[0], after[1]))


def channel_multipliers(
    x: Tensor, w: Tensor, y: Tensor, channels: int, rounding: Rounding, *, float_product: bool
) -> list[float]:
    """scale(x) * scale(w) / scale(y) per output channel, in the precision that the kernels of `rounding` use.

    `float_product`: GetQuantizedConvolutionMultipler multiplies the two input scales in float32 (uint8
    models, per-tensor FULLY_CONNECTED); PopulateConvolutionQuantizationParams uses double. XNNPACK computes
    all of it in float32 (operators/convolution-nhwc.c, fully-connected-nc.c).
    """
    scales = quant(w).scales
    scales = scales * channels if len(scales) == 1 else scales
    sx, sy = quant(x).scale, quant(y).scale
    if rounding in XNNPACK:
        return [float(np.float32(sx) * np.float32(sw) / np.float32(sy)) for sw in scales]
    if float_product:
        return [float(np.float32(sx) * np.float32(sw)) / sy for sw in scales]
    return [sx * sw / sy for sw in scales]


def channel_requant(
    rounding: Rounding,
    output: Tensor,
    activation: str,
    reals: Sequence[float],
    nearest: Nearest = nearest_tflite,
) -> Requant:
    low, high = clamp(output, activation, nearest)
    shifts = operands(rounding, reals).get("right", np.array([0, 31]))
    right = (int(shifts.min()), int(shifts.max()))
    return Requant(rounding, signed_zero_point(output), low, high, is_large(rounding, reals), right)


def centred_weights(w: Tensor) -> npt.NDArray[np.int16]:
    """Weights minus their zero point."""
    assert w.data is not None
    return np.asarray(w.data, np.int16) - np.int16(quant(w).zero_point)


def dense(weight: npt.NDArray[T], groups: int) -> npt.NDArray[T]:
    """Weights (oc, kh, kw, ic / groups) of a grouped convolution, with zeros for all other channels."""
    oc, kh, kw, depth = weight.shape
    full = np.zeros((oc, kh, kw, depth * groups), weight.dtype)
    for group in range(groups):
        rows = slice(group * oc // groups, (group + 1) * oc // groups)
        full[rows, ..., group * depth : (group + 1) * depth] = weight[rows]
    return full


def folded_bias(
    bias: Tensor | None, weight: npt.NDArray[np.int16], axes: tuple[int, ...], zero_point: int
) -> npt.NDArray[np.int32]:
    """bias - zero_point(x) * sum(w), modulo 2**32: padding holds the zero point,
    so every window sees all weights.
    """
    total = -zero_point * weight.astype(np.int64).sum(axes)
    if bias is not None and bias.data is not None:
        total = total + np.asarray(bias.data, np.int64)
    wrapped: npt.NDArray[np.int32] = total.astype(np.uint64).astype(np.uint32).view(np.int32)
    return wrapped


# Results of every stored value.


def centred(x: Tensor) -> Int64:
    """q - zero_point of every stored value."""
    return every(storage(x.dtype)) - signed_zero_point(x)


def by_table(b: Builder, source: int, tensor: int, values: Int64) -> None:
    """`tensor` = values[source - its least value], saturated; the identity moves nothing."""
    dtype, given = storage(b.tensor(tensor).dtype), b.values[source].dtype
    results = np.clip(values, *ends(dtype))
    if dtype == given and np.array_equal(results, every(given)):
        b.view(tensor, source)
    else:
        b.emit(Table(), (source,), b.value(tensor), {"table": results.astype(dtype)})
