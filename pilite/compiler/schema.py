"""The .tflite file format: field numbers, enumerations and type names of TFLite's schema that pilite uses.

Field numbers never change: a flatbuffer schema only grows at the end of a table. A test compares these tables
with the generated accessors of the `tflite` package.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilite.compiler import graph

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every file
VERSION = 3


CUSTOM = 32  # the code of every custom operator


class Model:
    version, operator_codes, subgraphs, description, buffers = range(5)


class OperatorCode:
    deprecated_builtin_code, custom_code, version, builtin_code = range(4)


class SubGraph:
    tensors, inputs, outputs, operators, name = range(5)


class Tensor:
    shape, type, buffer, name, quantization, is_variable, sparsity, shape_signature = range(8)


class Quantization:
    min, max, scale, zero_point, details_type, details, quantized_dimension = range(7)


class Operator:
    opcode_index, inputs, outputs, builtin_options_type, builtin_options, custom_options = range(6)
    intermediates = 8


class Buffer:
    data, offset, size = range(3)


class ReshapeOptions:
    new_shape = 0


class SqueezeOptions:
    squeeze_dims = 0


class StridedSliceOptions:
    offset = 5  # the masks are in OPERATORS


class FullyConnectedOptions:
    weights_format = 1  # the fields that become options are in OPERATORS


@dataclass(frozen=True)
class OptionField:
    """How one attribute of an option record is stored: `slots` has two entries (h, w) for a pair."""

    attribute: str
    kind: str  # "padding", "activation", "number", "pair", "flag", "on", "mode", "dtype" or "real"
    slots: tuple[int, ...]
    default: int = 0


@dataclass(frozen=True)
class OperatorSchema:
    """One operator that can be compiled: its codes in the file, its options, its number of operands."""

    code: int  # BuiltinOperator
    options_type: int  # BuiltinOptions
    newest: int  # version that ai-edge-litert 2.3 knows; a later one may mean something else
    record: type[graph.Options]
    operands: range  # how many the file may give, with shapes and axes
    fields: tuple[OptionField, ...] = ()
    outputs: range = range(1, 2)  # how many it may have


def _activation(slot: int) -> OptionField:
    return OptionField("activation", "activation", (slot,))


def _padding(slot: int) -> OptionField:
    return OptionField("padding", "padding", (slot,))


def _pair(attribute: str, h: int, w: int, default: int = 0) -> OptionField:
    return OptionField(attribute, "pair", (h, w), default)


def _bias_type(slot: int) -> OptionField:
    return OptionField("bias_type", "dtype", (slot,))


CONV_2D = (
    _padding(0),
    _pair("stride", 2, 1),
    _activation(3),
    _pair("dilation", 5, 4, default=1),
    _bias_type(6),
)
DEPTHWISE_CONV_2D = (
    _padding(0),
    _pair("stride", 2, 1),
    OptionField("multiplier", "number", (3,)),
    _activation(4),
    _pair("dilation", 6, 5, default=1),
)
TRANSPOSE_CONV = (_padding(0), _pair("stride", 2, 1), _activation(3), _bias_type(4))
POOL_2D = (_padding(0), _pair("stride", 2, 1), _pair("window", 4, 3), _activation(5))
FULLY_CONNECTED = (_activation(0), OptionField("keep_num_dims", "flag", (2,)), _bias_type(4))
CONCATENATION = (OptionField("axis", "number", (0,)), _activation(1))


def _number(attribute: str, slot: int) -> OptionField:
    return OptionField(attribute, "number", (slot,))


ONE, TWO, TWO_OR_THREE, THREE = range(1, 2), range(2, 3), range(2, 4), range(3, 4)
ANY = range(1, 1025)
MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
# Operators that move data; moves.py has their rules.
MOVES = {
    "BATCH_TO_SPACE_ND": OperatorSchema(37, 24, 4, graph.Batches, THREE),
    "DEPTH_TO_SPACE": OperatorSchema(5, 94, 2, graph.Depth, ONE, (_number("block", 0),)),
    "GATHER": OperatorSchema(36, 23, 7, graph.Gather, TWO, (_number("axis", 0), _number("batch_dims", 1))),
    "GATHER_ND": OperatorSchema(107, 83, 5, graph.NoOptions, TWO),
    "MIRROR_PAD": OperatorSchema(100, 77, 3, graph.MirrorPad, TWO, (OptionField("edge", "mode", (0,)),)),
    "PACK": OperatorSchema(83, 59, 4, graph.Stack, ANY, (_number("count", 0), _number("axis", 1))),
    "SHAPE": OperatorSchema(77, 55, 1, graph.Shape, ONE, (OptionField("output_type", "dtype", (0,)),)),
    "SLICE": OperatorSchema(65, 48, 6, graph.Slice, THREE),
    "SPACE_TO_BATCH_ND": OperatorSchema(38, 25, 4, graph.Batches, THREE),
    "SPACE_TO_DEPTH": OperatorSchema(26, 19, 2, graph.Depth, ONE, (_number("block", 0),)),
    "SPLIT": OperatorSchema(49, 35, 4, graph.Split, TWO, (_number("count", 0),), ANY),
    "SPLIT_V": OperatorSchema(102, 79, 2, graph.Split, THREE, (_number("count", 0),), ANY),
    "STRIDED_SLICE": OperatorSchema(
        45, 32, 8, graph.StridedSlice, range(4, 5), tuple(_number(name, i) for i, name in enumerate(MASKS))
    ),
    "TILE": OperatorSchema(69, 51, 3, graph.Tile, TWO),
    "TRANSPOSE": OperatorSchema(39, 26, 6, graph.Transpose, TWO),
    "UNPACK": OperatorSchema(88, 64, 4, graph.Stack, ONE, (_number("count", 0), _number("axis", 1)), ANY),
}
BINARY = (_activation(0),)
ADD = (_activation(0), OptionField("pot_scale_int16", "on", (1,), 1))


def _plain(code: int, options_type: int, newest: int, operands: range) -> OperatorSchema:
    """An operator without options."""
    return OperatorSchema(code, options_type, newest, graph.NoOptions, operands)


# Operators that compute element by element; elements.py has their rules.
ELEMENTS = {
    "ABS": _plain(101, 78, 3, ONE),
    "CAST": _plain(53, 37, 9, ONE),
    "DIV": OperatorSchema(42, 29, 2, graph.Binary, TWO, BINARY),
    "EQUAL": _plain(71, 53, 5, TWO),
    "EXP": _plain(47, 33, 2, ONE),
    "FLOOR_DIV": _plain(90, 65, 3, TWO),
    "GELU": OperatorSchema(150, 116, 2, graph.Gelu, ONE, (OptionField("approximate", "flag", (0,)),)),
    "GREATER": _plain(61, 44, 2, TWO),
    "GREATER_EQUAL": _plain(62, 45, 3, TWO),
    "HARD_SWISH": _plain(117, 91, 1, ONE),
    "LEAKY_RELU": OperatorSchema(98, 75, 2, graph.LeakyRelu, ONE, (OptionField("alpha", "real", (0,)),)),
    "LESS": _plain(58, 41, 3, TWO),
    "LESS_EQUAL": _plain(63, 46, 2, TWO),
    "LOGICAL_AND": _plain(86, 62, 1, TWO),
    "LOGICAL_NOT": _plain(87, 63, 1, ONE),
    "LOGICAL_OR": _plain(84, 60, 1, TWO),
    "LOGISTIC": _plain(14, 0, 3, ONE),
    "MAXIMUM": _plain(55, 39, 4, TWO),
    "MINIMUM": _plain(57, 39, 4, TWO),
    "MUL": OperatorSchema(18, 21, 7, graph.Binary, TWO, BINARY),
    "NEG": _plain(59, 42, 1, ONE),
    "NOT_EQUAL": _plain(72, 54, 4, TWO),
    "PRELU": _plain(54, 0, 1, TWO),
    "RELU": _plain(19, 0, 3, ONE),
    "RELU6": _plain(21, 0, 3, ONE),
    "RELU_N1_TO_1": _plain(20, 0, 1, ONE),
    "RSQRT": _plain(76, 0, 3, ONE),
    "SELECT": _plain(64, 47, 4, THREE),
    "SELECT_V2": _plain(123, 98, 2, THREE),
    "SQRT": _plain(75, 0, 2, ONE),
    "SQUARED_DIFFERENCE": _plain(99, 76, 2, TWO),
    "SUB": OperatorSchema(41, 28, 5, graph.Add, TWO, ADD),
    "TANH": _plain(28, 0, 3, ONE),
}


def _flag(attribute: str, slot: int) -> OptionField:
    return OptionField(attribute, "flag", (slot,))


ARG = (OptionField("output_type", "dtype", (0,)),)
# Operators on images and along axes; images.py has their rules.
IMAGES = {
    "ARG_MAX": OperatorSchema(56, 40, 2, graph.ArgMax, TWO, ARG),
    "ARG_MIN": OperatorSchema(79, 57, 2, graph.ArgMax, TWO, ARG),
    "RESIZE_BILINEAR": OperatorSchema(
        23, 15, 4, graph.Resize, TWO, (_flag("align_corners", 2), _flag("half_pixel_centers", 3))
    ),
    "RESIZE_NEAREST_NEIGHBOR": OperatorSchema(
        97, 74, 4, graph.Resize, TWO, (_flag("align_corners", 0), _flag("half_pixel_centers", 1))
    ),
}
REDUCER = (OptionField("keep_dims", "flag", (0,)),)
LSTM = (_activation(0), OptionField("cell_clip", "real", (1,)), _flag("time_major", 3))
OPERATORS = {
    **MOVES,
    **ELEMENTS,
    **IMAGES,
    "ADD": OperatorSchema(0, 11, 5, graph.Add, TWO, ADD),
    "AVERAGE_POOL_2D": OperatorSchema(1, 5, 3, graph.Pool2D, ONE, POOL_2D),
    "CONCATENATION": OperatorSchema(2, 10, 7, graph.Concatenation, ANY, CONCATENATION),
    "CONV_2D": OperatorSchema(3, 1, 8, graph.Conv2D, TWO_OR_THREE, CONV_2D),
    "DEPTHWISE_CONV_2D": OperatorSchema(4, 2, 6, graph.DepthwiseConv2D, TWO_OR_THREE, DEPTHWISE_CONV_2D),
    "DEQUANTIZE": OperatorSchema(6, 38, 9, graph.NoOptions, ONE),
    "EXPAND_DIMS": OperatorSchema(70, 52, 1, graph.View, TWO),
    "FULLY_CONNECTED": OperatorSchema(9, 8, 14, graph.FullyConnected, TWO_OR_THREE, FULLY_CONNECTED),
    "L2_NORMALIZATION": OperatorSchema(11, 12, 2, graph.Normalization, ONE, BINARY),
    "MAX_POOL_2D": OperatorSchema(17, 5, 3, graph.Pool2D, ONE, POOL_2D),
    "MEAN": OperatorSchema(40, 27, 3, graph.Mean, TWO, REDUCER),
    "PAD": OperatorSchema(34, 22, 6, graph.Pad, TWO),
    "PADV2": OperatorSchema(60, 43, 6, graph.Pad, THREE),
    "QUANTIZE": OperatorSchema(114, 89, 6, graph.NoOptions, ONE),
    "REDUCE_MAX": OperatorSchema(82, 27, 3, graph.Mean, TWO, REDUCER),
    "REDUCE_MIN": OperatorSchema(89, 27, 3, graph.Mean, TWO, REDUCER),
    "RESHAPE": OperatorSchema(22, 17, 1, graph.View, range(1, 3)),
    "SOFTMAX": OperatorSchema(25, 9, 3, graph.Softmax, ONE, (OptionField("beta", "real", (0,)),)),
    "SQUEEZE": OperatorSchema(43, 30, 1, graph.View, ONE),
    "SUM": OperatorSchema(74, 27, 2, graph.Mean, TWO, REDUCER),
    "TRANSPOSE_CONV": OperatorSchema(67, 49, 5, graph.TransposeConv, range(3, 5), TRANSPOSE_CONV),
    "CUSTOM:TFLite_Detection_PostProcess": OperatorSchema(
        CUSTOM, 0, 1, graph.Detection, THREE, outputs=range(4, 5)
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": OperatorSchema(44, 71, 4, graph.Lstm, range(20, 25), LSTM),
}
LAST_ONE_BYTE_CODE = 127  # deprecated_builtin_code holds this where builtin_code is larger

# TensorType, in order. Names are numpy's where numpy has the type.
DTYPES = (
    "float32",
    "float16",
    "int32",
    "uint8",
    "int64",
    "string",
    "bool",
    "int16",
    "complex64",
    "int8",
    "float64",
    "complex128",
    "uint64",
    "resource",
    "variant",
    "uint32",
    "uint16",
    "int4",
    "bfloat16",
)
PADDINGS = ("SAME", "VALID")
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")


def operator_name(code: int) -> str:
    """TFLite's name of a builtin operator, also of those that cannot be compiled."""
    import tflite  # here, because it takes a quarter of a second and only a refusal needs it

    names = vars(tflite.BuiltinOperator).items()
    return next((name for name, value in names if value == code), f"operator code {code}")
