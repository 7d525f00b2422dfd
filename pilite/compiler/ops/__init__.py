"""OPS: TFLite operator name -> how it is lowered. The importer accepts exactly the names of this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilite.compiler import delegation
from pilite.compiler.graph import Node
from pilite.compiler.ops import (
    broadcasting,
    conv,
    detection,
    elementwise,
    image,
    lstm,
    move,
    normalize,
    pick,
    reduce,
    shape,
    tables,
    transpose_conv,
    wide,
)
from pilite.compiler.program import Builder


@dataclass(frozen=True)
class Op:
    """One operator: its lowering, and what users may rely on."""

    lower: Callable[[Node, Builder], None]
    dtypes: str
    limits: str = "-"
    numerics: str = "exact: BUILTIN_REF of tflite-runtime 2.14"


_QUANTIZED = "uint8 per tensor, int8 per channel"
_WIDE = "int16 with int8 weights and 64-bit or 32-bit bias"
_WEIGHTED = f"{_QUANTIZED}, {_WIDE}"
_BYTES = "uint8, int8"
_WORDS = "uint8, int8, int16"
_ACTIVATIONS = "fused NONE, RELU, RELU6, RELU_N1_TO_1"

_WHOLE = "uint8, int8, int16, int32, int64, float32"
_NO_INT64 = "uint8, int8, int16, int32, float32"
_NO_INT16 = "uint8, int8, int32, int64, float32"
_PLAIN = "bytes move unchanged; contiguous parts are views"

# Operators that move data.
_MOVES: dict[str, Op] = {
    "BATCH_TO_SPACE_ND": Op(move.batches, _WHOLE, "3 or 4 dimensions, equal scales; constant operands"),
    "DEPTH_TO_SPACE": Op(move.depth, _NO_INT16, "any block"),
    "GATHER": Op(
        pick.gather,
        _WHOLE,
        "int32, int64 indices; batch_dims; computed ones outside take the nearest (TFLite fails)",
    ),
    "GATHER_ND": Op(
        pick.gather_nd, _WHOLE, "int32, int64 indices; computed ones outside take the nearest (TFLite fails)"
    ),
    "MIRROR_PAD": Op(pick.mirror_pad, _WHOLE, "REFLECT, SYMMETRIC; constant paddings"),
    "PACK": Op(move.pack, _WHOLE, "equal scales"),
    "SHAPE": Op(move.shape, "any -> int32, int64", "known when a model is compiled"),
    "SLICE": Op(move.slice_, _WHOLE, f"1 to 5 dimensions, constant begin and size; {_PLAIN}"),
    "SPACE_TO_BATCH_ND": Op(move.batches, _WHOLE, "3 or 4 dimensions, equal scales; constant operands"),
    "SPACE_TO_DEPTH": Op(move.depth, _NO_INT16, "any block"),
    "SPLIT": Op(move.split, _NO_INT64, f"constant axis; {_PLAIN}"),
    "SPLIT_V": Op(move.split, _WHOLE, f"constant axis and sizes; {_PLAIN}"),
    "STRIDED_SLICE": Op(move.strided_slice, _WHOLE, f"1 to 5 dimensions, all masks, constant; {_PLAIN}"),
    "TILE": Op(move.tile, _NO_INT16, "constant multiples"),
    "TRANSPOSE": Op(move.transpose, _WHOLE, "1 to 6 dimensions, constant permutation"),
    "UNPACK": Op(move.unpack, _NO_INT64, f"equal scales; {_PLAIN}"),
}

_SUMMED = "uint8, int8, int16, int32, float32"
_POWERS = "int16 scales that are powers of two as TFLite does by `pot_scale_int16`"
_COMPARED = "uint8, int8, int32, int64, float32 -> bool"
_COMPARED16 = "uint8, int8, int16 as stored, int32, int64, float32 -> bool"
_BROADCAST = "broadcasting, up to 4 dimensions"
_BROADCAST5 = "broadcasting, up to 5 dimensions"
_NO_ZERO = "a computed integer divisor of 0 counts as 1 (TFLite fails)"
_LIBM = "exact where the host's libm rounds correctly"

# Operators that compute element by element.
_ELEMENTS: dict[str, Op] = {
    "ABS": Op(tables.by_values(tables.absolute), "int8, int16"),
    "ADD": Op(elementwise.add, _SUMMED, f"broadcasting, up to 6 dimensions; {_POWERS}; {_ACTIVATIONS}"),
    "CAST": Op(broadcasting.cast, f"{_WHOLE}, bool", "values that the target can hold"),
    "DIV": Op(broadcasting.plain("div"), "int32, float32", f"{_BROADCAST5}; {_NO_ZERO}"),
    "EQUAL": Op(broadcasting.compare("equal"), f"{_COMPARED16}; bool", f"{_BROADCAST}; scales below 1"),
    "EXP": Op(tables.by_values(tables.exp), "int8", _LIBM),
    "FLOOR_DIV": Op(broadcasting.plain("floor_div"), "int32, float32", f"{_BROADCAST}; {_NO_ZERO}"),
    "GELU": Op(tables.by_values(tables.gelu), _BYTES, f"exact or by tanh; {_LIBM}"),
    "GREATER": Op(broadcasting.compare("greater"), _COMPARED, f"{_BROADCAST}; scales below 1"),
    "GREATER_EQUAL": Op(broadcasting.compare("greater_equal"), _COMPARED16, f"{_BROADCAST}; scales below 1"),
    "HARD_SWISH": Op(tables.by_values(tables.hard_swish), _BYTES),
    "LEAKY_RELU": Op(
        tables.by_values(tables.leaky_relu, tables.leaky_relu_xnnpack), _WORDS, "any finite slope"
    ),
    "LESS": Op(broadcasting.compare("less"), _COMPARED16, f"{_BROADCAST}; scales below 1"),
    "LESS_EQUAL": Op(broadcasting.compare("less_equal"), _COMPARED, f"{_BROADCAST}; scales below 1"),
    "LOGICAL_AND": Op(broadcasting.plain("logical_and"), "bool", _BROADCAST),
    "LOGICAL_NOT": Op(broadcasting.plain("logical_not"), "bool"),
    "LOGICAL_OR": Op(broadcasting.plain("logical_or"), "bool", _BROADCAST),
    "LOGISTIC": Op(tables.by_values(tables.logistic), _WORDS, f"output scale 1/256, int16 1/32768; {_LIBM}"),
    "MAXIMUM": Op(broadcasting.plain("maximum"), _WHOLE, f"{_BROADCAST5}; stored values"),
    "MINIMUM": Op(broadcasting.plain("minimum"), _WHOLE, f"{_BROADCAST5}; stored values"),
    "MUL": Op(broadcasting.mul, _SUMMED, f"{_BROADCAST}; {_ACTIVATIONS}"),
    "NEG": Op(broadcasting.plain("neg"), "int32, float32"),
    "NOT_EQUAL": Op(broadcasting.compare("not_equal"), f"{_COMPARED}; bool", f"{_BROADCAST}; scales below 1"),
    "PRELU": Op(broadcasting.prelu, _BYTES, _BROADCAST),
    "RELU": Op(tables.by_values(tables.relu), _WORDS),
    "RELU6": Op(tables.by_values(tables.relu), _WORDS),
    "RELU_N1_TO_1": Op(tables.by_values(tables.relu), _BYTES),
    "RSQRT": Op(tables.by_values(tables.rsqrt), "int8", "values below 0 count as 0 (TFLite fails)"),
    "SELECT": Op(broadcasting.select, f"{_WHOLE}, bool", "stored values"),
    "SELECT_V2": Op(broadcasting.select, f"{_WHOLE}, bool", f"{_BROADCAST5}; stored values"),
    "SQRT": Op(broadcasting.plain("sqrt"), "float32"),
    "SQUARED_DIFFERENCE": Op(elementwise.squared_difference, "int8, int32, float32", _BROADCAST),
    "SUB": Op(elementwise.add, _SUMMED, f"{_BROADCAST5}; {_POWERS}; {_ACTIVATIONS}"),
    "TANH": Op(tables.by_values(tables.tanh), _WORDS, f"output scale 1/128, int16 1/32768; {_LIBM}"),
}

# Operators on images and along axes.
_IMAGES: dict[str, Op] = {
    "ARG_MAX": Op(image.arg_extreme, "uint8, int8, int32, float32 -> int32, int64", "constant axis"),
    "ARG_MIN": Op(image.arg_extreme, "uint8, int8, int32, float32 -> int32, int64", "constant axis"),
    "RESIZE_BILINEAR": Op(
        image.resize_bilinear,
        _WORDS,
        "align_corners or half_pixel_centers; constant size",
        "exact: BUILTIN_REF of tflite-runtime 2.14, uint8 as on x86-64",
    ),
    "RESIZE_NEAREST_NEIGHBOR": Op(
        image.resize_nearest_neighbor,
        "uint8, int8, int16, float32",
        "align_corners or half_pixel_centers; constant size",
    ),
}

_OPS: dict[str, Op] = {
    **_MOVES,
    **_ELEMENTS,
    **_IMAGES,
    "AVERAGE_POOL_2D": Op(reduce.average_pool_2d, _WORDS, f"stored values; {_ACTIVATIONS}"),
    "CONCATENATION": Op(shape.concatenation, _WHOLE, "int8, int16: equal scales; no fused activation"),
    "CONV_2D": Op(
        wide.by_dtype(conv.conv_2d, wide.conv_2d),
        _WEIGHTED,
        f"any stride, dilation, groups; {_ACTIVATIONS}",
    ),
    "DEPTHWISE_CONV_2D": Op(
        wide.by_dtype(conv.depthwise_conv_2d, wide.depthwise_conv_2d),
        f"{_QUANTIZED}, int16 with int8 weights and 64-bit bias",
        f"any multiplier, dilation; {_ACTIVATIONS}",
    ),
    "DEQUANTIZE": Op(elementwise.dequantize, "uint8, int8, int16 -> float32"),
    "EXPAND_DIMS": Op(shape.reshape, _WHOLE, "a view: no bytes move"),
    "FULLY_CONNECTED": Op(
        wide.by_dtype(conv.fully_connected, wide.fully_connected),
        f"{_QUANTIZED} or per tensor, {_WIDE}",
        _ACTIVATIONS,
        "exact: 2.14; f64 variant by option",
    ),
    "L2_NORMALIZATION": Op(normalize.l2, _BYTES, "along the last axis, output scale 1/128"),
    "MAX_POOL_2D": Op(reduce.max_pool_2d, _WORDS, f"stored values; {_ACTIVATIONS}"),
    "MEAN": Op(reduce.mean, _WORDS, "any axes"),
    "PAD": Op(shape.pad, _WHOLE),
    "PADV2": Op(shape.pad, _WHOLE, "a constant value"),
    "QUANTIZE": Op(
        elementwise.quantize,
        "float32 -> uint8, int8, int16; uint8, int8 -> uint8, int8; int16 -> int8, int16",
        "floats beyond 2**31 steps saturate (open in TFLite)",
    ),
    "REDUCE_MAX": Op(reduce.extreme("maximum"), _WHOLE, "any axes, equal scales"),
    "REDUCE_MIN": Op(reduce.extreme("minimum"), _WHOLE, "any axes, equal scales"),
    "RESHAPE": Op(shape.reshape, _WHOLE, "a view: no bytes move"),
    "SOFTMAX": Op(reduce.softmax, _WORDS, "output scale 1/256, int16 1/32768"),
    "SQUEEZE": Op(shape.reshape, _WHOLE, "a view: no bytes move"),
    "SUM": Op(
        reduce.total,
        _WHOLE,
        "any axes; int16: equal scales, sums wrap",
        "exact: 2.14, whose reference kernel takes int8 bytes for uint8 ones; xnnpack has the true sums",
    ),
    "TRANSPOSE_CONV": Op(
        transpose_conv.transpose_conv, _WEIGHTED, f"any stride and output size; {_ACTIVATIONS}"
    ),
    "CUSTOM:TFLite_Detection_PostProcess": Op(
        detection.post_process,
        "float32, uint8 -> float32",
        "fast and regular suppression; constant anchors; what is not detected is 0 (fast: open in TFLite)",
        "float32: within 1e-6 of 2.14, mostly equal; scores that are equal in its order",
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Op(
        lstm.lstm,
        "int8, int16 cells",
        "plain: four gates, no peepholes, projection or layer normalization; the state is kept between runs",
    ),
}
OPS: dict[str, Op] = dict(sorted(_OPS.items()))


def table() -> list[dict[str, str]]:
    """The rows of `invoke ops`."""
    return [
        {
            "operator": name,
            "dtypes": op.dtypes,
            "limits": op.limits,
            "numerics": op.numerics,
            "xnnpack": delegation.POLICIES[name].text if name in delegation.POLICIES else "refused",
        }
        for name, op in OPS.items()
    ]
