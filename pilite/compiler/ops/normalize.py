"""L2_NORMALIZATION."""

from __future__ import annotations

from pilite.compiler.graph import Node
from pilite.compiler.ops.common import is_unsigned
from pilite.compiler.program import Builder, signed_zero_point
from pilite.compiler.spec import L2Norm

OUTPUT_BITS = 7  # the output's scale is 1/128


def l2(node: Node, b: Builder) -> None:
    """reference/l2normalization.h multiplies a uint8 by 128 first, reference/integer_ops/l2normalization.h
    makes the multiplier of an int8 128 times as large.
    """
    x = b.tensor(node.inputs[0])
    spec = L2Norm(signed_zero_point(x), OUTPUT_BITS if is_unsigned(x) else 0)
    b.emit(spec, (b.value(node.inputs[0]),), b.value(node.outputs[0]))
