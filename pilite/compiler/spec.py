"""What is computed, in integers only: the language between ops/ (read TFLite) and kernels/ (know CPUs).

A spec is hashable and holds geometry and scalars; two operators with equal specs and layouts share one
compiled function. Per-channel arrays travel beside it in `Arrays`. All 8-bit values are int8: uint8 moved by
-128 at the door. x, w, y are input, weights and output, zero points not applied unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.compiler.fixedpoint import Multiplier, Requant, Scale
from pilite.compiler.layout import Halo
from pilite.compiler.spec16 import Spec16

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Window:
    """A sliding window over height and width; padding is before and after, in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def halo(self) -> Halo:
        return Halo(*self.before, *self.after)


@dataclass(frozen=True)
class QConv2D:
    """y = requant(bias + sum x * w), accumulated, requantized, clamped and stored in one kernel.

    Arrays: weight int16 (oc, kh, kw, ic), zero point subtracted, in [-255, 255]; bias int32 (oc,) with
    -zero_point(x) * sum(w) folded in; the operands of `requant`, each (oc,).
    """

    window: Window
    requant: Requant


@dataclass(frozen=True)
class QDepthwiseConv2D:
    """As QConv2D with one input channel per output channel. weight is (kh, kw, c)."""

    window: Window
    requant: Requant


@dataclass(frozen=True)
class QConv16:
    """y = clamp(scaled(bias + sum x * w)): int16 values, zero points 0; kernels/wide.py has SCALED.

    Arrays: weight int8 (oc, kh, kw, ic), or (oc, kh, kw) where channel c reads input channel c // multiplier;
    bias int64; mantissa and right int32 or, of "float64", scale float64; each (oc,).
    """

    window: Window
    multiplier: int  # 0: every output channel reads all input channels
    clamp_min: int
    clamp_max: int
    scaling: str  # "reduced", "gemmlowp" or "float64"


@dataclass(frozen=True)
class Broadcast:
    """x of shape `source` repeated along its dimensions of extent 1 to `shape`.

    A depth multiplier m is (..., c, 1) -> (..., c, m), after which a depthwise convolution is plain.
    """

    source: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class QAdd:
    """ADD of TFLite's reference kernel; see ops/add.py for the formula."""

    left_shift: int
    zero_points: tuple[int, int]  # of the operands
    multipliers: tuple[Multiplier, Multiplier]
    output: Multiplier
    requant: Requant  # zero point and clamp only
    subtract: bool = False  # SUB
    square: bool = False  # of the difference, before it is scaled to the output


@dataclass(frozen=True)
class QMul:
    """y = zero_point + (a - za) * (b - zb) * multiplier; operands broadcast."""

    zero_points: tuple[int, int]  # of the operands
    multiplier: Scale
    requant: Requant  # zero point and clamp only


@dataclass(frozen=True)
class QPrelu:
    """y = zero_point + (x - zx) * positive where x >= zx, (x - zx) * (alpha - za) * negative elsewhere."""

    zero_points: tuple[int, int]  # of x and alpha
    positive: Multiplier
    negative: Multiplier
    requant: Requant  # zero point and clamp only


@dataclass(frozen=True)
class QCompare:
    """y = 1 where `kind` holds between the operands, each as ((x - zero_point) << 8) * multiplier."""

    kind: str  # as of Elementwise
    zero_points: tuple[int, int]
    multipliers: tuple[Multiplier, Multiplier]


@dataclass(frozen=True)
class Elementwise:
    """y = kind(x, ...) on numbers as they are stored; operands broadcast. `low`, `high`: limits of y."""

    kind: str  # a key of kernels/elements.py KINDS
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Cast:
    """C's conversion between the values of two dtypes; "uint8" is stored 128 lower, "bool" as 0 or 1."""

    source: str
    target: str


@dataclass(frozen=True)
class Gate:
    """How a gate's two sums become a Q3.12 value."""

    input: Multiplier
    recurrent: Multiplier


@dataclass(frozen=True)
class QLstm:
    """Every step of an integer LSTM; kernels/lstm.py has the formulas. Gates: input, forget, cell, output.

    Inputs: x (batch, steps, inputs); (batch, cells), also written: output state int8, stored xor its zero
    point, cells int16. Arrays: int8 input_weight (4, cells, inputs), recurrent_weight (4, cells, cells);
    int32 input_bias, recurrent_bias (zero points in them); int16 sigmoid, gate_tanh, cell_tanh, by x + 2**15.
    """

    time_major: bool  # x and y are (steps, batch, ...)
    gates: tuple[Gate, ...]
    cell_shift: int
    cell_clip: int  # 0: none
    hidden: Multiplier
    hidden_zero_point: int
    state_zero_point: int
    paired: int = 0  # of every 2 * paired products k and k + paired are added in 16 bits, and may wrap


@dataclass(frozen=True)
class Bilinear:
    """y = the sum over two rows and two columns of x * row weight * column weight, rounded.

    Arrays: rows, columns int32 (count, 2), the input's lines for every output line; row_weights and
    column_weights of the same shape. int32 weights have 10 fractional bits and the sum is rounded to nearest,
    ties away from zero; or 11 with ties up (`fine`: XNNPACK). float32 ones compute in float32, in the order
    of CORNERS (kernels/image.py); the sum + 1/2 is truncated.
    """

    real: bool  # float32 weights
    offset: int  # what is added to a stored value before: 128 for uint8
    fine: bool = False


@dataclass(frozen=True)
class ArgExtreme:
    """y = the first position along `axis` of the largest (or smallest) value."""

    axis: int
    largest: bool


@dataclass(frozen=True)
class QWeightedAdd:
    """y = requant((w0 * (a - z0) + w1 * (b - z1)) / 2**shift, ties up): XNNPACK's addition."""

    zero_points: tuple[int, int]  # of the operands
    weights: tuple[int, int]  # below 2**21 in size
    shift: int
    requant: Requant  # zero point and clamp only


@dataclass(frozen=True)
class Pool:
    """AVERAGE or MAX over the part of the window inside the image, then clamp."""

    kind: str  # "average" | "max"
    window: Window
    clamp_min: int
    clamp_max: int
    round_half_up: bool  # average of a uint8 model: floor(sum / n + 1/2); else ties away from zero


@dataclass(frozen=True)
class Reduce:
    """y = kind(start, x, x, ...) over `axes`, in their order, on numbers as they are stored; sums wrap."""

    kind: str  # "add", "maximum" or "minimum"
    axes: tuple[int, ...]
    start: float


@dataclass(frozen=True)
class QMean:
    """y = zero_point + (sum(x) - n * zero_point(x)) * multiplier over `axes`: a mean or a sum."""

    axes: tuple[int, ...]
    input_zero_point: int
    multiplier: Multiplier
    requant: Requant  # zero point and clamp only


@dataclass(frozen=True)
class QMeanFloat:
    """y = clamp(round_half_even((sum(x) + bias) * factor + offset) - shift) over `axes`, float32, fused."""

    axes: tuple[int, ...]
    bias: int
    factor: float
    offset: float
    shift: int


@dataclass(frozen=True)
class Table:
    """y = table[x - the least value of its dtype]. Array: table of y's dtype, (256,) or (65536,)."""


@dataclass(frozen=True)
class Softmax:
    """Fixed-point softmax over the last axis. Arrays: exp int32 (256,), by the distance from the maximum.

    exp is Q0.31, 0 where TFLite drops the term; see ops/softmax.py.
    """

    output_min: int


@dataclass(frozen=True)
class L2Norm:
    """y = 128 * (x - zero_point) / root of the sum of squares along the last axis: kernels/normalize.py."""

    zero_point: int
    first_shift: int  # bits that x moves up before it is multiplied; the others belong to the multiplier


@dataclass(frozen=True)
class SoftmaxTable:
    """Softmax of TFLite's aarch64 kernel. Array: exp int32 (256,), Q0.16, by distance from the maximum."""

    output_scale: float
    output_zero_point: int


@dataclass(frozen=True)
class QuantizeFloat:
    """y = clamp(round_half_away(x / scale) + zero_point), float32 arithmetic."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class QuantizeFloatEven:
    """y = clamp(round_half_even(x * factor) + zero_point), float32 arithmetic."""

    factor: float
    zero_point: int


@dataclass(frozen=True)
class DequantizeFloat:
    """y = float32(float64(scale) * (x - zero_point))."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Move:
    """Copy x into a box of y that starts at `at`; `flip` moves between uint8 and int8 (x ^ 0x80)."""

    at: tuple[int, ...]
    flip: bool = False


@dataclass(frozen=True)
class Detect:
    """kernels/detect.c. Arrays: anchors float32 (boxes, 4); sizes int32, factors float32: fields there."""

    boxes: int
    many: int  # the longest list on the way


@dataclass(frozen=True)
class Walk:
    """Where step (i, j, ...) of nested loops lies: at `start`, moved i * steps[k] along axes[k] by loop k.
    Loops may share an axis, skip one, stand still (step 0) or go backwards.
    """

    start: tuple[int, ...]  # one entry per axis of the value
    axes: tuple[int, ...]  # one entry per loop
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Copy:
    """y[target] = x[source] for every step of loops of these extents: any copy whose places are affine."""

    extents: tuple[int, ...]
    source: Walk
    target: Walk


@dataclass(frozen=True)
class Pick:
    """y[i, j, ...] = x[index of i, index of j, ...]; axes that are not in `axes` keep their index.

    Array: index int32, for each of `axes` in turn the input position of every output position.
    """

    axes: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """y[b, o, n, i] = x[b, o, *indices[b, n], i] on flat values: x is (batch, outer, *sizes, inner).

    Inputs: x, indices (batch, count, len(sizes)). An index outside `sizes` takes the nearest one.
    """

    batch: int
    outer: int
    sizes: tuple[int, ...]
    inner: int
    count: int


@dataclass(frozen=True)
class Fill:
    """Write `value` everywhere (whole) or only into the halo."""

    value: float
    whole: bool


Spec: TypeAlias = (
    QConv2D
    | QDepthwiseConv2D
    | QConv16
    | Spec16
    | Broadcast
    | QAdd
    | QWeightedAdd
    | QMul
    | QPrelu
    | QCompare
    | Elementwise
    | Cast
    | Bilinear
    | QLstm
    | ArgExtreme
    | Pool
    | Reduce
    | QMean
    | QMeanFloat
    | Table
    | L2Norm
    | Softmax
    | SoftmaxTable
    | QuantizeFloat
    | QuantizeFloatEven
    | DequantizeFloat
    | Detect
    | Move
    | Copy
    | Pick
    | Gather
    | Fill
)
