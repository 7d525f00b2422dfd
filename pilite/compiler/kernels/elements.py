"""Element by element over operands that broadcast: products, comparisons, choices, conversions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from pilite.compiler.fixedpoint import Multiplier
from pilite.compiler.kernels.copy import nested
from pilite.compiler.kernels.emit import (
    PARALLEL_ELEMENTS,
    Param,
    constant,
    function,
    load,
    loop,
    store,
    store_first,
)
from pilite.compiler.kernels.isa import Isa, call
from pilite.compiler.kernels.pointwise import narrow, pieces, scale
from pilite.compiler.layout import Layout
from pilite.compiler.spec import Cast, Elementwise, QCompare, QMul, QPrelu
from pilite.compiler.spec16 import QAdd16, QMul16

COMPARE_LEFT_SHIFT = 8  # TFLite's comparisons.cc

# fetch(operand, lanes) -> its elements; put(value, lanes) stores the result: one step of the innermost loop.
Step = Callable[[Callable[[int, int], Any], Callable[[Any, int], None], int], None]


def q_mul(name: str, isa: Isa, spec: QMul, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    def value(a: Any, b: Any) -> Any:
        pairs = zip(_centred(isa, a, spec.zero_points[0]), _centred(isa, b, spec.zero_points[1]), strict=True)
        return narrow(isa, [scale(isa, p * q, spec.multiplier) for p, q in pairs], spec.requant)

    return _in_eights(name, xs, y, value)


def q_prelu(name: str, isa: Isa, spec: QPrelu, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    def value(a: Any, b: Any) -> Any:
        pairs = zip(_centred(isa, a, spec.zero_points[0]), _centred(isa, b, spec.zero_points[1]), strict=True)
        chosen = [
            tirx.Select(x >= isa.fill(0), scale(isa, x, spec.positive), scale(isa, x * slope, spec.negative))
            for x, slope in pairs
        ]
        return narrow(isa, chosen, spec.requant)

    return _in_eights(name, xs, y, value)


def q_compare(name: str, isa: Isa, spec: QCompare, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    def side(x: Any, i: int) -> list[Any]:
        m: Multiplier = spec.multipliers[i]
        wide = _centred(isa, x, spec.zero_points[i])
        return [scale(isa, v << isa.fill(COMPARE_LEFT_SHIFT), m) for v in wide]

    def value(a: Any, b: Any) -> Any:
        one, zero = isa.fill(1), isa.fill(0)
        found = [
            tirx.Select(CONDITIONS[spec.kind](p, q), one, zero)
            for p, q in zip(side(a, 0), side(b, 1), strict=True)
        ]
        return isa.narrow8(found, 0, 0, 1)

    return _in_eights(name, xs, y, value)


def _centred(isa: Isa, x: Any, zero_point: int) -> list[Any]:
    return [v - isa.fill(zero_point) for v in isa.widen8(x)]


def _in_eights(name: str, xs: Sequence[Layout], y: Layout, value: Callable[..., Any]) -> tirx.PrimFunc:
    """int8 operands, eight at a time; a shorter group reads on behind its operands and stores its part."""

    def step(fetch: Callable[[int, int], Any], put: Callable[[Any, int], None], count: int) -> None:
        put(value(*(fetch(i, 8) for i in range(len(xs)))), count)

    return _broadcasting(name, xs, y, step, whole=True)


# --- 16-bit values, in 64 bits ---------------------------------------------------------------------------


def q_add16(name: str, spec: QAdd16, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    def value(*operands: Any, lanes: int) -> Any:
        shift = constant(spec.left_shift, "int64", lanes)
        pairs = zip(operands, spec.multipliers, strict=True)
        a, b = (scaled64(_wide64(v, lanes) << shift, m, lanes) for v, m in pairs)
        return _narrow16(scaled64(a - b if spec.subtract else a + b, spec.output, lanes), spec, lanes)

    return _in_numbers(name, xs, y, value)


def q_mul16(name: str, spec: QMul16, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    def value(a: Any, b: Any, lanes: int) -> Any:
        product = _wide64(a, lanes) * _wide64(b, lanes)
        return _narrow16(scaled64(product, spec.multiplier, lanes), spec, lanes)

    return _in_numbers(name, xs, y, value)


def _wide64(x: Any, lanes: int) -> Any:
    return T.Cast(_vector("int64", lanes), x)


def scaled64(x: Any, m: Multiplier, lanes: int) -> Any:
    """gemmlowp's product of 32 bits: the high half with ties up, then a shift with ties away from zero."""

    def fill(value: int) -> Any:
        return constant(value, "int64", lanes)

    high = ((x << fill(m.left)) * fill(m.mantissa) + fill(1 << 30)) >> fill(31)
    if not m.right:
        return high
    mask = (1 << m.right) - 1
    threshold = tirx.Select(high < fill(0), fill((mask >> 1) + 1), fill(mask >> 1))
    return (high >> fill(m.right)) + tirx.Select((high & fill(mask)) > threshold, fill(1), fill(0))


def _narrow16(x: Any, spec: QAdd16 | QMul16, lanes: int) -> Any:
    low, high = (constant(limit, "int64", lanes) for limit in (spec.clamp_min, spec.clamp_max))
    return T.Cast(_vector("int16", lanes), tirx.max(tirx.min(x, high), low))


# --- plain numbers -------------------------------------------------------------------------------------


def elementwise(name: str, spec: Elementwise, xs: Sequence[Layout], y: Layout) -> tirx.PrimFunc:
    """Exactly as many elements as there are."""

    def value(*operands: Any, lanes: int) -> Any:
        if spec.kind in CONDITIONS:
            return _truth(CONDITIONS[spec.kind](*operands), lanes)
        n = Numbers(y.dtype, lanes)
        result = KINDS[spec.kind](n, *operands)
        if spec.low is not None:
            low = n.fill(spec.low)
            result = tirx.Select(result < low, low, result)
        if spec.high is not None:
            high = n.fill(spec.high)
            result = tirx.Select(high < result, high, result)
        return result

    return _in_numbers(name, xs, y, value)


def cast(name: str, spec: Cast, x: Layout, y: Layout) -> tirx.PrimFunc:
    """C's static_cast; where the target cannot hold the value, TFLite's result is undefined too."""

    def value(v: Any, lanes: int) -> Any:
        if spec.target == "bool":
            zero = -128 if spec.source == "uint8" else 0
            return _truth(v != constant(zero, x.dtype, lanes), lanes)
        if spec.source == "uint8":
            v = T.Cast(_vector("int32", lanes), v) + constant(128, "int32", lanes)
        if spec.target == "uint8":
            v = T.Cast(_vector("int32", lanes), v) - constant(128, "int32", lanes)
        elif spec.target == "int8":
            v = T.Cast(_vector("int32", lanes), v)
        return T.Cast(_vector(y.dtype, lanes), v)

    return _in_numbers(name, (x,), y, value)


def _truth(condition: Any, lanes: int) -> Any:
    return tirx.Select(condition, constant(1, "int8", lanes), constant(0, "int8", lanes))


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _in_numbers(name: str, xs: Sequence[Layout], y: Layout, value: Callable[..., Any]) -> tirx.PrimFunc:
    def step(fetch: Callable[[int, int], Any], put: Callable[[Any, int], None], count: int) -> None:
        put(value(*(fetch(i, count) for i in range(len(xs))), lanes=count), count)

    return _broadcasting(name, xs, y, step, whole=False)


@dataclass(frozen=True)
class Numbers:
    """The values of one step."""

    dtype: str
    lanes: int

    def fill(self, value: float) -> Any:
        return constant(value, self.dtype, self.lanes)

    def intrinsic(self, name: str, x: Any) -> Any:
        """A function of floats that is one instruction."""
        bits = self.dtype.removeprefix("float")
        suffix = f"f{bits}" if self.lanes == 1 else f"v{self.lanes}f{bits}"
        return call(_vector(self.dtype, self.lanes), f"llvm.{name}.{suffix}", x)

    def wrapping(self, op: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
        """a op b, of integers as two's complement: unsigned, since LLVM may assume that a signed sum fits."""
        if self.real:
            return op(a, b)
        unsigned = (T.Cast(_vector(f"u{self.dtype}", self.lanes), x) for x in (a, b))
        return T.Cast(_vector(self.dtype, self.lanes), op(*unsigned))

    @property
    def real(self) -> bool:
        return self.dtype == "float32"


def _floor_div(n: Numbers, a: Any, b: Any) -> Any:
    """floor(a / b), of floats in float64. Where an integer b is 0, TFLite fails; here the result is a."""
    if n.real:
        wide = Numbers("float64", n.lanes)
        x, d = (T.Cast(_vector("float64", n.lanes), v) for v in (a, b))
        return T.Cast(_vector("float32", n.lanes), wide.intrinsic("floor", x / d))
    x, d = _divisible(n.lanes, a, b)
    zero, one = (constant(value, "int64", n.lanes) for value in (0, 1))
    quotient = tirx.truncdiv(x, d)
    rest = x - quotient * d
    lower = tirx.Select(rest == zero, zero, tirx.Select((rest ^ d) < zero, one, zero))
    return T.Cast(_vector("int32", n.lanes), quotient - lower)


def _div(n: Numbers, a: Any, b: Any) -> Any:
    """a / b, truncated if integers. Where an integer b is 0, TFLite fails; here the result is a."""
    if n.real:
        return a / b
    return T.Cast(_vector("int32", n.lanes), tirx.truncdiv(*_divisible(n.lanes, a, b)))


def _square(n: Numbers, x: Any) -> Any:
    return n.wrapping(operator.mul, x, x)


def _divisible(lanes: int, a: Any, b: Any) -> tuple[Any, Any]:
    """In 64 bits, where no quotient overflows; a divisor of 0 becomes 1: both would end the process."""
    x, d = (T.Cast(_vector("int64", lanes), v) for v in (a, b))
    return x, tirx.Select(d == constant(0, "int64", lanes), constant(1, "int64", lanes), d)


CONDITIONS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": lambda a, b: a == b,
    "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "not_equal": lambda a, b: a != b,
}
# kind(numbers of y, *operands); a NaN goes where TFLite's comparisons send it.
KINDS: dict[str, Callable[..., Any]] = {
    "add": lambda n, a, b: n.wrapping(operator.add, a, b),
    "sub": lambda n, a, b: n.wrapping(operator.sub, a, b),
    "mul": lambda n, a, b: n.wrapping(operator.mul, a, b),
    "squared_difference": lambda n, a, b: _square(n, n.wrapping(operator.sub, a, b)),
    "div": _div,
    "floor_div": _floor_div,
    "maximum": lambda _, a, b: tirx.Select(a > b, a, b),
    "minimum": lambda _, a, b: tirx.Select(a < b, a, b),
    "select": lambda n, c, a, b: tirx.Select(c != constant(0, "int8", n.lanes), a, b),
    "logical_and": lambda _, a, b: a & b,
    "logical_or": lambda _, a, b: a | b,
    "logical_not": lambda n, a: a ^ n.fill(1),
    "neg": lambda n, a: n.wrapping(operator.mul, a, n.fill(-1)),
    "sqrt": lambda n, a: n.intrinsic("sqrt", a),
}


# --- loops ---------------------------------------------------------------------------------------------


def _broadcasting(name: str, xs: Sequence[Layout], y: Layout, step: Step, *, whole: bool) -> tirx.PrimFunc:
    """Loops around `step`. Layouts have y's number of dimensions; an operand's 1 is repeated.

    `whole`: eight lanes even where fewer elements are left.
    """
    *outer, (length, *inner) = _split(_merged(xs, y))
    assert all(stride in (0, 1) for stride in inner)  # the last axis of a value is contiguous

    def body(*buffers: Any) -> None:
        with nested([d[0] for d in outer], y.elements) as at:
            starts = [
                v.start + sum((i * d[1 + k] for i, d in zip(at, outer, strict=True)), 0)
                for k, v in enumerate((*xs, y))
            ]

            def group(offset: Any, count: int) -> None:
                def fetch(k: int, lanes: int) -> Any:
                    if inner[k]:
                        return load(buffers[k], starts[k] + offset, lanes)
                    one = buffers[k][starts[k]]
                    return one if lanes == 1 else T.broadcast(one, lanes)

                def put(value: Any, lanes: int) -> None:
                    if whole:
                        store_first(buffers[-1], starts[-1] + offset, value, 8, lanes)
                    else:
                        store(buffers[-1], starts[-1] + offset, value, lanes)

                step(fetch, put, count)

            if whole or length >= 8:
                pieces(length, group)
            else:
                with loop(length) as k:
                    group(k, 1)

    names = [*(f"x{i}" for i in range(len(xs))), "y"]
    return function(name, [Param(n, v.dtype, v.size) for n, v in zip(names, (*xs, y), strict=True)], body)


Dim = tuple[int, ...]  # extent, stride of each operand, stride of y


def _merged(xs: Sequence[Layout], y: Layout) -> list[Dim]:
    """Fewest loops; at least one."""
    merged: list[Dim] = []
    for axis, extent in enumerate(y.shape):
        if extent == 1:
            continue
        strides = (*(x.strides[axis] if x.shape[axis] > 1 else 0 for x in xs), y.strides[axis])
        if merged and all(big == extent * small for big, small in zip(merged[-1][1:], strides, strict=True)):
            merged[-1] = (merged[-1][0] * extent, *strides)
        else:
            merged.append((extent, *strides))
    return merged or [(1,) * (len(xs) + 2)]


def _split(dims: list[Dim]) -> list[Dim]:
    """A long single loop in pieces that threads can share."""
    length, *strides = dims[0]
    pieces = next((p for p in (16, 12, 8, 4) if length % (8 * p) == 0), 1)
    if len(dims) > 1 or length < PARALLEL_ELEMENTS or pieces == 1:
        return dims
    return [(pieces, *(length // pieces * s for s in strides)), (length // pieces, *strides)]
