"""The quantized graph: what a model is between the importer and the lowering. Plain data, no TVM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

ABSENT = -1  # an optional operator input that the model leaves out, e.g. a convolution without bias


@dataclass(frozen=True)
class Quant:
    """real = scale * (q - zero_point); one entry, or one per index of `axis`.

    `scales` are float32 values widened to Python floats.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0
    stored_axis: int = field(default=0, compare=False)  # as in the file; meaningless for one scale

    @property
    def scale(self) -> float:
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        return self.zero_points[0]

    @property
    def per_axis(self) -> bool:
        return len(self.scales) > 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """One value of the graph; `data` is set for constants and has exactly `shape` and `dtype`."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    quant: Quant | None = None
    data: npt.NDArray[np.generic] | None = field(default=None, repr=False)
    is_variable: bool = False  # keeps its value between runs

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def elements(self) -> int:
        n = 1
        for size in self.shape:
            n *= size
        return n

    @property
    def nbytes(self) -> int:
        return self.elements * np.dtype(self.dtype).itemsize


# Options: one typed record per operator kind. `padding` is "SAME" or "VALID";
# `activation` is "NONE", "RELU", "RELU6" or "RELU_N1_TO_1". `bias_type` says how wide newer kernels sum
# 16-bit values; UNSAID is what a file has that does not.

UNSAID = "float32"


@dataclass(frozen=True)
class Conv2D:
    padding: str
    stride: tuple[int, int]  # (h, w)
    dilation: tuple[int, int]  # (h, w)
    activation: str
    bias_type: str = field(default=UNSAID, repr=False)


@dataclass(frozen=True)
class DepthwiseConv2D:
    padding: str
    stride: tuple[int, int]
    dilation: tuple[int, int]
    multiplier: int
    activation: str


@dataclass(frozen=True)
class TransposeConv:
    padding: str
    stride: tuple[int, int]
    activation: str
    shape: tuple[int, ...] = ()  # of the output, from an operand
    bias_type: str = field(default=UNSAID, repr=False)


@dataclass(frozen=True)
class FullyConnected:
    activation: str
    keep_num_dims: bool
    bias_type: str = field(default=UNSAID, repr=False)


@dataclass(frozen=True)
class Pool2D:
    padding: str
    stride: tuple[int, int]
    window: tuple[int, int]
    activation: str


@dataclass(frozen=True)
class Add:
    """ADD and SUB."""

    activation: str
    pot_scale_int16: bool = True  # False: int16 scales that are powers of two are as any others


@dataclass(frozen=True)
class Mean:
    """MEAN, SUM, REDUCE_MAX, REDUCE_MIN."""

    axes: tuple[int, ...]  # non-negative, sorted, unique
    keep_dims: bool


@dataclass(frozen=True)
class Concatenation:
    axis: int  # non-negative
    activation: str


@dataclass(frozen=True)
class Normalization:
    """L2_NORMALIZATION; TFLite refuses an activation."""

    activation: str


@dataclass(frozen=True)
class Softmax:
    beta: float  # a float32 value


@dataclass(frozen=True)
class View:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the same values with this shape."""

    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pad:
    before: tuple[int, ...]  # one per dimension
    after: tuple[int, ...]
    value: float | None = None  # the stored value of the border (PADV2); None: the output's zero point (PAD)


@dataclass(frozen=True)
class Split:
    """SPLIT and SPLIT_V: one output for each size."""

    count: int  # as stored
    axis: int = 0  # non-negative
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stack:
    """PACK and UNPACK."""

    axis: int  # non-negative, of the packed tensor
    count: int


@dataclass(frozen=True)
class Slice:
    """SLICE: along each axis `count` values from `begin` on."""

    begin: tuple[int, ...]
    count: tuple[int, ...]


@dataclass(frozen=True)
class StridedSlice:
    """As SLICE with a step, which may be negative; the masks have a bit per entry of the operands."""

    begin_mask: int = 0
    end_mask: int = 0
    ellipsis_mask: int = 0
    new_axis_mask: int = 0
    shrink_axis_mask: int = 0
    begin: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    count: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()  # of the output: `count` without shrunk axes and with new ones


@dataclass(frozen=True)
class Transpose:
    """Axis i of the output is axis permutation[i] of the input."""

    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """How often the input is repeated along each axis."""

    times: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    axis: int  # non-negative
    batch_dims: int


@dataclass(frozen=True)
class Batches:
    """SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND: block and padding (or crop) of each spatial dimension."""

    block: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Depth:
    """SPACE_TO_DEPTH and DEPTH_TO_SPACE."""

    block: int


@dataclass(frozen=True)
class MirrorPad:
    """`edge` 1 repeats the border element (SYMMETRIC), 0 does not (REFLECT)."""

    edge: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Binary:
    """MUL, DIV."""

    activation: str


@dataclass(frozen=True)
class LeakyRelu:
    alpha: float  # a float32 value


@dataclass(frozen=True)
class Gelu:
    approximate: bool  # by tanh


@dataclass(frozen=True)
class ArgMax:
    """ARG_MAX and ARG_MIN."""

    output_type: str
    axis: int = 0  # non-negative


@dataclass(frozen=True)
class Resize:
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR: to this height and width."""

    align_corners: bool
    half_pixel_centers: bool
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Lstm:
    HIDDEN: ClassVar[int] = 4  # which of the operator's intermediate values has the quantization `hidden`

    activation: str
    cell_clip: float
    time_major: bool
    hidden: Quant | None = None  # of the value before it becomes the output


@dataclass(frozen=True)
class Detection:
    """TFLite_Detection_PostProcess: `most` boxes with `per_box` classes each, scored `score` or more."""

    most: int
    per_box: int
    per_class: int  # boxes, of `regular` suppression, which is done class by class
    regular: bool
    score: float
    overlap: float  # intersection over union above which the worse box goes
    classes: int  # without a background
    scale: tuple[float, ...]  # of y, x, h, w


@dataclass(frozen=True)
class Shape:
    """SHAPE: the sizes of the input's dimensions, as this dtype."""

    output_type: str


@dataclass(frozen=True)
class NoOptions:
    """The operands and the output's shape say all: QUANTIZE, GATHER_ND and others."""


Options: TypeAlias = (
    Conv2D
    | DepthwiseConv2D
    | TransposeConv
    | FullyConnected
    | Pool2D
    | Add
    | Mean
    | Concatenation
    | Normalization
    | Softmax
    | View
    | Pad
    | Split
    | Stack
    | Shape
    | Slice
    | StridedSlice
    | Transpose
    | Tile
    | Gather
    | Batches
    | Depth
    | MirrorPad
    | Binary
    | LeakyRelu
    | Gelu
    | ArgMax
    | Resize
    | Lstm
    | Detection
    | NoOptions
)


@dataclass(frozen=True)
class Node:
    """One operator. `inputs` are the data operands only; shape and axis operands became options."""

    index: int  # position in the source model, for messages
    op: str  # TFLite's name: "CONV_2D"
    inputs: tuple[int, ...]  # tensor indices; ABSENT for a missing optional operand
    outputs: tuple[int, ...]
    options: Options


@dataclass(frozen=True, eq=False)
class Graph:
    """A static, topologically ordered list of operators over numbered tensors."""

    name: str
    tensors: tuple[Tensor, ...]  # tensors[i].index == i
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    sha256: str  # of the source file

    def __str__(self) -> str:
        return "\n".join([self._header(), *map(self._line, self.nodes)])

    def _header(self) -> str:
        ends = (", ".join(self._show(i) for i in side) for side in (self.inputs, self.outputs))
        return f"{self.name}({next(ends)}) -> {next(ends)}"

    def _line(self, node: Node) -> str:
        ins = ", ".join("-" if i == ABSENT else self._show(i) for i in node.inputs)
        outs = ", ".join(self._show(i) for i in node.outputs)
        return f"  #{node.index} {node.op}({ins}) -> {outs}  {node.options}"

    def _show(self, index: int) -> str:
        t = self.tensors[index]
        shape = "x".join(map(str, t.shape)) or "scalar"
        quant = ""
        if t.quant is not None:
            n = len(t.quant.scales)
            quant = f" /{n}ch" if n > 1 else f" {t.quant.scale:.6g}*(q-{t.quant.zero_point})"
        return f"%{index}:{t.dtype}[{shape}]{quant}{' const' if t.is_constant else ''}"
