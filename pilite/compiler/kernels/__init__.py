"""KERNELS: every kernel, fastest first for its spec; the first that fits the CPU is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from pilite.compiler import spec as s
from pilite.compiler import spec16
from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels import (
    addition,
    copy,
    depthwise_dot,
    elements,
    image,
    lstm,
    normalize,
    pointwise,
    reduce,
    wide,
)
from pilite.compiler.kernels.depthwise import Madd16, Mull8
from pilite.compiler.kernels.depthwise_vnni import DepthwiseVnni
from pilite.compiler.kernels.detect import Detection
from pilite.compiler.kernels.families import Depthwise, DepthwiseDot, Family, Gemm, Plain
from pilite.compiler.kernels.gemm_avx2 import Madd
from pilite.compiler.kernels.gemm_neon import Dot, Mull, Pairs, PairsByHand
from pilite.compiler.kernels.gemm_vnni import DotUnsigned
from pilite.compiler.kernels.isa import ISAS
from pilite.compiler.kernels.isa_avx512 import Xmm, Ymm, Zmm

UNROLLED_TAPS = 128  # of a depthwise window: more would make long code, and are rare


@dataclass(frozen=True)
class Kernel:
    """Names follow <dtype>_<kind>_<MR>x<NR>c<KR>__<isa>; `isas` empty means every one."""

    name: str
    spec: type
    family: Family
    isas: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    instruction: str = ""  # the multiply that its loop must contain, by the assembler's name
    wants: Callable[[Any, s.Arrays], bool] = lambda spec, arrays: True  # the operators it is meant for
    in_order: bool | None = None  # the only kind of core it is meant for

    def fits(self, cpu: Cpu) -> bool:
        isa = not self.isas or cpu.isa in self.isas
        return isa and self.needs <= cpu.features and self.in_order in (None, cpu.in_order)


def whole_blocks(multiple: int) -> Callable[[Any, s.Arrays], bool]:
    """Output channels that fill blocks of `multiple`."""
    return lambda spec, arrays: arrays["weight"].shape[0] % multiple == 0


LSTM = (
    "input_weight",
    "recurrent_weight",
    "input_bias",
    "recurrent_bias",
    "sigmoid",
    "gate_tanh",
    "cell_tanh",
)


def full_blocks(columns: int) -> Callable[[Any, s.Arrays], bool]:
    """Output channels that leave at most an eighth of blocks of `columns` empty.

    Blocks of sixteen, the smallest there are, take every number of channels.
    """

    def wants(spec: s.QConv2D | s.QDepthwiseConv2D, arrays: s.Arrays) -> bool:
        channels = len(arrays["bias"])
        padded = -(-channels // columns) * columns
        return columns == 16 or (padded - channels) * 8 <= padded

    return wants


def small_window(columns: int) -> Callable[[Any, s.Arrays], bool]:
    """Windows whose taps can be unrolled, over channels that leave little of blocks of `columns` empty."""
    full = full_blocks(columns)
    return lambda spec, arrays: prod(spec.window.kernel) <= UNROLLED_TAPS and full(spec, arrays)


KERNELS: tuple[Kernel, ...] = (
    Kernel(
        "qs8_gemm_8x8c4__neondot",
        s.QConv2D,
        Gemm(Dot(), "gemm_dot", 8),
        ("neon",),
        frozenset({"dotprod"}),
        "sdot",
    ),
    Kernel(
        "qs8_gemm_4x16c2__neon",
        s.QConv2D,
        Gemm(Pairs(), "gemm_mull", 16),
        ("neon",),
        instruction="smlal",
        wants=whole_blocks(16),
        in_order=False,
    ),
    Kernel(
        "qs8_gemm_4x8c2__neon",
        s.QConv2D,
        Gemm(Pairs(), "gemm_mull", 8),
        ("neon",),
        instruction="smlal",
        wants=whole_blocks(8),
        in_order=False,
    ),
    Kernel(
        "qs8_gemm_4x8c2__neon_a53",
        s.QConv2D,
        Gemm(PairsByHand(), "gemm_pairs", 8),
        ("neon",),
        instruction="smlal",
        in_order=True,
    ),
    Kernel("qs8_gemm_4x4c16__neon", s.QConv2D, Gemm(Mull(), "gemm_mull", 4), ("neon",), instruction="smlal"),
    *(
        Kernel(
            f"qs8_gemm_{rows}x{columns}c4__avx512vnni",
            s.QConv2D,
            Gemm(DotUnsigned(), f"gemm_vnni_{columns}", columns),
            ("avx512",),
            frozenset({"avx512vnni"}),
            "vpdpbusd",
            wants=full_blocks(columns),
        )
        for rows, columns in ((4, 64), (8, 32), (16, 16))
    ),
    Kernel(
        "qs8_gemm_4x16c2__avx2", s.QConv2D, Gemm(Madd(), "gemm_madd", 16), ("avx2",), instruction="vpmaddwd"
    ),
    Kernel(
        "qs8_dwconv_3x2x8c4__neondot",
        s.QDepthwiseConv2D,
        DepthwiseDot(),
        ("neon",),
        frozenset({"dotprod"}),
        "sdot",
        wants=depthwise_dot.wants,
    ),
    Kernel("qs8_dwconv_4x8__neon", s.QDepthwiseConv2D, Depthwise(Mull8()), ("neon",), instruction="smlal"),
    *(
        Kernel(
            f"qs8_dwconv_4x{4 * isa.lanes}c4__avx512vnni",
            s.QDepthwiseConv2D,
            DepthwiseVnni(isa),
            ("avx512",),
            frozenset({"avx512vnni"}),
            "vpdpbusd",
            wants=small_window(4 * isa.lanes),
        )
        for isa in (Zmm(), Ymm(), Xmm())
    ),
    Kernel(
        "qs8_dwconv_4x16__avx2",
        s.QDepthwiseConv2D,
        Depthwise(Madd16()),
        ("avx2", "avx512"),
        instruction="vpmaddwd",
    ),
    *(
        Kernel(
            f"qs8_linear_add_{size}__{isa}",
            s.QAdd,
            Plain(
                lambda n, p, x, y, c, size=size: addition.add(n, ISAS[c.isa], p, x[0], x[1], y, size),  # type: ignore[misc]
                share=8,
            ),
            (isa,),
            instruction=instruction,
            wants=addition.wants,
        )
        for isa, size, instruction in (
            ("neon", 8, "mla"),
            ("avx512", addition.WIDE, "vpmulld"),
            ("avx2", 8, "vpmulld"),
        )
    ),
    Kernel(
        "qs8_add_8",
        s.QAdd,
        Plain(lambda n, p, x, y, c: pointwise.add(n, ISAS[c.isa], p, x[0], x[1], y), share=8),
    ),
    Kernel(
        "qs8_weighted_add_8",
        s.QWeightedAdd,
        Plain(lambda n, p, x, y, c: pointwise.weighted_add(n, ISAS[c.isa], p, x[0], x[1], y), share=8),
    ),
    Kernel("qs8_mul_8", s.QMul, Plain(lambda n, p, x, y, c: elements.q_mul(n, ISAS[c.isa], p, x, y))),
    Kernel("q16_add_8", spec16.QAdd16, Plain(lambda n, p, x, y, c: elements.q_add16(n, p, x, y))),
    Kernel("q16_mean", spec16.QMean16, Plain(lambda n, p, x, y, c: wide.mean(n, p, x[0], y))),
    Kernel(
        "s16_softmax",
        spec16.Softmax16,
        Plain(lambda n, p, x, y, c: wide.softmax(n, p, x[0], y), ("exp", "reciprocal")),
    ),
    Kernel("q16_mul_8", spec16.QMul16, Plain(lambda n, p, x, y, c: elements.q_mul16(n, p, x, y))),
    Kernel("qs8_prelu_8", s.QPrelu, Plain(lambda n, p, x, y, c: elements.q_prelu(n, ISAS[c.isa], p, x, y))),
    Kernel(
        "qs8_compare_8", s.QCompare, Plain(lambda n, p, x, y, c: elements.q_compare(n, ISAS[c.isa], p, x, y))
    ),
    Kernel("x_elementwise_8", s.Elementwise, Plain(lambda n, p, x, y, c: elements.elementwise(n, p, x, y))),
    Kernel("x_cast_8", s.Cast, Plain(lambda n, p, x, y, c: elements.cast(n, p, x[0], y))),
    Kernel(
        "qs8_bilinear_8",
        s.Bilinear,
        Plain(
            lambda n, p, x, y, c: image.bilinear(n, p, x[0], y),
            ("rows", "row_weights", "columns", "column_weights"),
        ),
    ),
    Kernel("qs8_lstm", s.QLstm, Plain(lambda n, p, x, y, c: lstm.emit(n, p, x, y), LSTM, lstm.scratch)),
    Kernel("x_arg_extreme", s.ArgExtreme, Plain(lambda n, p, x, y, c: image.arg_extreme(n, p, x[0], y))),
    Kernel("s8_pool_8", s.Pool, Plain(lambda n, p, x, y, c: reduce.pool(n, ISAS[c.isa], p, x[0], y))),
    Kernel("x_reduce_8", s.Reduce, Plain(lambda n, p, x, y, c: reduce.plain(n, p, x[0], y))),
    Kernel("qs8_mean_8", s.QMean, Plain(lambda n, p, x, y, c: reduce.mean(n, ISAS[c.isa], p, x[0], y))),
    Kernel(
        "qs8_mean_f32_8",
        s.QMeanFloat,
        Plain(lambda n, p, x, y, c: reduce.mean_float(n, ISAS[c.isa], p, x[0], y)),
    ),
    Kernel("s8_softmax", s.Softmax, Plain(lambda n, p, x, y, c: reduce.softmax(n, p, x[0], y), ("exp",))),
    Kernel("qs8_l2_norm", s.L2Norm, Plain(lambda n, p, x, y, c: normalize.l2(n, p, x[0], y))),
    Kernel(
        "s8_softmax_table",
        s.SoftmaxTable,
        Plain(lambda n, p, x, y, c: reduce.softmax_table(n, p, x[0], y), ("exp",)),
    ),
    Kernel("s8_table", s.Table, Plain(lambda n, p, x, y, c: pointwise.table(n, x[0], y), ("table",))),
    Kernel(
        "f32_qs8_8", s.QuantizeFloat, Plain(lambda n, p, x, y, c: pointwise.quantize_float(n, p, x[0], y))
    ),
    Kernel(
        "f32_qs8_even_8",
        s.QuantizeFloatEven,
        Plain(lambda n, p, x, y, c: pointwise.quantize_float_even(n, p, x[0], y)),
    ),
    Kernel(
        "qs8_f32_8", s.DequantizeFloat, Plain(lambda n, p, x, y, c: pointwise.dequantize_float(n, p, x[0], y))
    ),
    Kernel("f32_detect", s.Detect, Detection()),
    Kernel(
        "q16_conv_f64",
        s.QConv16,
        Plain(lambda n, p, x, y, c: wide.conv(n, p, x[0], y), ("weight", "bias", "scale")),
        wants=lambda spec, arrays: spec.scaling == "float64",
    ),
    Kernel(
        "q16_conv",
        s.QConv16,
        Plain(lambda n, p, x, y, c: wide.conv(n, p, x[0], y), ("weight", "bias", "mantissa", "right")),
    ),
    Kernel("x_move_16", s.Move, Plain(lambda n, p, x, y, c: pointwise.move(n, p, x[0], y))),
    Kernel("x_broadcast_16", s.Broadcast, Plain(lambda n, p, x, y, c: pointwise.broadcast(n, p, x[0], y))),
    Kernel("x_copy_16", s.Copy, Plain(lambda n, p, x, y, c: copy.strided(n, p, x[0], y))),
    Kernel("x_pick_16", s.Pick, Plain(lambda n, p, x, y, c: copy.pick(n, p, x[0], y), ("index",))),
    Kernel("x_gather_16", s.Gather, Plain(lambda n, p, x, y, c: copy.gather(n, p, x[0], x[1], y))),
    Kernel("x_fill_16", s.Fill, Plain(lambda n, p, x, y, c: pointwise.fill(n, p, y))),
)


def select(spec: s.Spec, arrays: s.Arrays, cpu: Cpu) -> Kernel:
    """The fastest kernel for `spec` with these constants on `cpu`."""
    for kernel in KERNELS:
        if kernel.spec is type(spec) and kernel.fits(cpu) and kernel.wants(spec, arrays):
            return kernel
    raise LookupError(
        f"no kernel for {type(spec).__name__} fits {cpu.name} ({cpu.isa}, {sorted(cpu.features)})"
    )


def table() -> list[dict[str, str]]:
    """The rows of `invoke kernels`."""
    return [
        {
            "kernel": k.name,
            "computes": k.spec.__name__,
            "instruction sets": ", ".join(k.isas) or "all",
            "needs": ", ".join(sorted(k.needs)) or "-",
            "multiply": k.instruction or "-",
        }
        for k in KERNELS
    ]
