"""OPS: TFLite operator name -> how it is lowered. The importer accepts exactly the names of this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilite.compiler import delegation
from pilite.compiler.graph import Node
from pilite.compiler.ops import conv, elementwise, move, pick, reduce, shape
from pilite.compiler.program import Builder


@dataclass(frozen=True)
class Op:
    """One operator: its lowering, and what users may rely on."""

    lower: Callable[[Node, Builder], None]
    dtypes: str
    limits: str = "-"
    numerics: str = "exact: BUILTIN_REF of tflite-runtime 2.14"


_QUANTIZED = "uint8 per tensor, int8 per channel"
_BYTES = "uint8, int8"
_ACTIVATIONS = "fused NONE, RELU, RELU6, RELU_N1_TO_1"

_WHOLE = "uint8, int8, int32, int64, float32"
_NO_INT64 = "uint8, int8, int32, float32"
_PLAIN = "bytes move unchanged; contiguous parts are views"

# Operators that move data.
_MOVES: dict[str, Op] = {
    "BATCH_TO_SPACE_ND": Op(move.batches, _WHOLE, "3 or 4 dimensions, equal scales; constant operands"),
    "DEPTH_TO_SPACE": Op(move.depth, _WHOLE, "any block"),
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
    "SLICE": Op(move.slice_, _WHOLE, f"1 to 5 dimensions, constant begin and size; {_PLAIN}"),
    "SPACE_TO_BATCH_ND": Op(move.batches, _WHOLE, "3 or 4 dimensions, equal scales; constant operands"),
    "SPACE_TO_DEPTH": Op(move.depth, _WHOLE, "any block"),
    "SPLIT": Op(move.split, _NO_INT64, f"constant axis; {_PLAIN}"),
    "SPLIT_V": Op(move.split, _WHOLE, f"constant axis and sizes; {_PLAIN}"),
    "STRIDED_SLICE": Op(move.strided_slice, _WHOLE, f"1 to 5 dimensions, all masks, constant; {_PLAIN}"),
    "TILE": Op(move.tile, _WHOLE, "constant multiples"),
    "TRANSPOSE": Op(move.transpose, _WHOLE, "1 to 6 dimensions, constant permutation"),
    "UNPACK": Op(move.unpack, _NO_INT64, f"equal scales; {_PLAIN}"),
}

_OPS: dict[str, Op] = {
    **_MOVES,
    "ADD": Op(elementwise.add, _BYTES, f"broadcasting; {_ACTIVATIONS}"),
    "AVERAGE_POOL_2D": Op(reduce.average_pool_2d, _BYTES, f"equal scales; {_ACTIVATIONS}"),
    "CONCATENATION": Op(shape.concatenation, _WHOLE, "int8: equal scales; no fused activation"),
    "CONV_2D": Op(conv.conv_2d, _QUANTIZED, f"any stride, dilation; not grouped; {_ACTIVATIONS}"),
    "DEPTHWISE_CONV_2D": Op(conv.depthwise_conv_2d, _QUANTIZED, f"any multiplier, dilation; {_ACTIVATIONS}"),
    "DEQUANTIZE": Op(elementwise.dequantize, "uint8, int8 -> float32"),
    "EXPAND_DIMS": Op(shape.reshape, _WHOLE, "a view: no bytes move"),
    "FULLY_CONNECTED": Op(
        conv.fully_connected,
        f"{_QUANTIZED} or per tensor",
        _ACTIVATIONS,
        "exact: 2.14; f64 variant by option",
    ),
    "MAX_POOL_2D": Op(reduce.max_pool_2d, _BYTES, f"equal scales; {_ACTIVATIONS}"),
    "MEAN": Op(reduce.mean, _BYTES, "any axes"),
    "PAD": Op(shape.pad, _WHOLE),
    "PADV2": Op(shape.pad, _WHOLE, "a constant value"),
    "QUANTIZE": Op(elementwise.quantize, "float32, uint8, int8 -> uint8, int8"),
    "RESHAPE": Op(shape.reshape, _WHOLE, "a view: no bytes move"),
    "SOFTMAX": Op(reduce.softmax, _BYTES, "output scale 1/256"),
    "SQUEEZE": Op(shape.reshape, _WHOLE, "a view: no bytes move"),
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
