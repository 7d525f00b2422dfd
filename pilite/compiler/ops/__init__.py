"""OPS: TFLite operator name -> how it is lowered. The importer accepts exactly the names of this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pilite.compiler.graph import Node
from pilite.compiler.ops import conv, elementwise, reduce, shape
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

OPS: dict[str, Op] = {
    "ADD": Op(elementwise.add, _BYTES, f"broadcasting; {_ACTIVATIONS}"),
    "AVERAGE_POOL_2D": Op(reduce.average_pool_2d, _BYTES, f"equal scales; {_ACTIVATIONS}"),
    "CONCATENATION": Op(shape.concatenation, _BYTES, "int8: equal scales; no fused activation"),
    "CONV_2D": Op(conv.conv_2d, _QUANTIZED, f"any stride, dilation; not grouped; {_ACTIVATIONS}"),
    "DEPTHWISE_CONV_2D": Op(conv.depthwise_conv_2d, _QUANTIZED, f"any multiplier, dilation; {_ACTIVATIONS}"),
    "DEQUANTIZE": Op(elementwise.dequantize, "uint8, int8 -> float32"),
    "EXPAND_DIMS": Op(shape.reshape, _BYTES, "a view: no bytes move"),
    "FULLY_CONNECTED": Op(
        conv.fully_connected,
        f"{_QUANTIZED} or per tensor",
        _ACTIVATIONS,
        "exact: 2.14; f64 variant by option",
    ),
    "MAX_POOL_2D": Op(reduce.max_pool_2d, _BYTES, f"equal scales; {_ACTIVATIONS}"),
    "MEAN": Op(reduce.mean, _BYTES, "any axes"),
    "PAD": Op(shape.pad, _BYTES),
    "PADV2": Op(shape.pad, _BYTES),
    "QUANTIZE": Op(elementwise.quantize, "float32, uint8, int8 -> uint8, int8"),
    "RESHAPE": Op(shape.reshape, _BYTES, "a view: no bytes move"),
    "SOFTMAX": Op(reduce.softmax, _BYTES, "output scale 1/256"),
    "SQUEEZE": Op(shape.reshape, _BYTES, "a view: no bytes move"),
}


def table() -> list[dict[str, str]]:
    """The rows of `invoke ops`."""
    return [
        {"operator": name, "dtypes": op.dtypes, "limits": op.limits, "numerics": op.numerics}
        for name, op in OPS.items()
    ]
