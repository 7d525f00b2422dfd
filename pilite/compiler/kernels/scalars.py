"""gemmlowp's fixed-point arithmetic on one integer: roundings of values that are computed at run time."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T


def high_mul(a: Any, b: Any) -> Any:
    """floor((a * b + 2**30) / 2**31); no operand pair here is (-2**31, -2**31)."""
    product = T.Cast("int64", a) * T.Cast("int64", b) + T.int64(1 << 30)
    return T.Cast("int32", product >> T.int64(31))


def divide_pot(x: Any, bits: int) -> Any:
    return T.Cast("int32", divide_pot64(T.Cast("int64", x), T.int64(bits)))


def divide_pot64(x: Any, bits: Any) -> Any:
    """x / 2**bits, ties away from zero."""
    mask = (T.int64(1) << bits) - T.int64(1)
    threshold = (mask >> T.int64(1)) + tirx.Select(x < T.int64(0), T.int64(1), T.int64(0))
    return (x >> bits) + tirx.Select((x & mask) > threshold, T.int64(1), T.int64(0))


def saturate(x: Any) -> Any:
    return tirx.min(tirx.max(x, T.int64(-(1 << 31))), T.int64((1 << 31) - 1))
