"""Which kernel and tile a class of operators gets: KERNELS in its order, unless `tune` chose otherwise.

A class joins operators that want the same tile. It knows no model: the kind of product, the number of pixels,
the length of its sums and what the number of channels is a multiple of, each as a power of two.
"""

from __future__ import annotations

from pilite.compiler import spec as s
from pilite.compiler.cpu import Cpu
from pilite.compiler.kernels import KERNELS, Kernel, select
from pilite.compiler.kernels.families import Depthwise, Gemm
from pilite.compiler.layout import Layout

# Longer sums, more pixels, wider rows and larger multiples make no class of their own.
LONGEST, LARGEST, WIDEST, MOST = 1024, 256, 32, 16
ROWS = {"neon": (1, 2, 3, 4, 5, 6, 7, 8)}  # what `tune` tries, by instruction set
FEW_ROWS = (1, 2, 3, 4)  # elsewhere: the scratch of a taller tile does not fit the stack


def class_of(spec: s.Spec, arrays: s.Arrays, y: Layout) -> str:
    """The class of an operator with output `y`; "" if its kernels have no tile.

    "conv 1x1 m256 k64 n16": many output pixels, sums of at most 64 products, a multiple of 16 channels.
    "depthwise 3x3 s2 w16": stride 2, rows of at most 16 output pixels.
    """
    if isinstance(spec, s.QConv2D):
        channels, *window = arrays["weight"].shape
        kind = "1x1" if window[:2] == [1, 1] else "window"
        m, k = _power(y.elements // channels, LARGEST), _power(window[0] * window[1] * window[2], LONGEST)
        return f"conv {kind} m{m} k{k} n{_multiple(channels)}"
    if isinstance(spec, s.QDepthwiseConv2D):
        (kh, kw), stride = spec.window.kernel, spec.window.stride[1]
        return f"depthwise {kh}x{kw} s{stride} w{_power(y.nhwc.shape[2], WIDEST)}"
    return ""


def _power(n: int, most: int) -> int:
    """The next power of two from `n` on, at most `most`."""
    return min(1 << (n - 1).bit_length(), most)


def _multiple(n: int) -> int:
    """The largest power of two that divides `n`, at most MOST."""
    return min(n & -n, MOST)


def choose(spec: s.Spec, arrays: s.Arrays, y: Layout, cpu: Cpu) -> tuple[Kernel, Cpu]:
    """The kernel of an operator, and the CPU with the rows of its tile."""
    wanted = cpu.choice(class_of(spec, arrays, y))
    for kernel in KERNELS if wanted else ():
        if wanted and kernel.name == wanted.kernel and _can(kernel, spec, arrays, cpu):
            return kernel, cpu.with_rows(wanted.rows)
    return select(spec, arrays, cpu), cpu


def _can(kernel: Kernel, spec: s.Spec, arrays: s.Arrays, cpu: Cpu) -> bool:
    return kernel.spec is type(spec) and kernel.fits(cpu) and kernel.wants(spec, arrays)


def candidates(cpu: Cpu) -> list[str]:
    """ "KERNEL@ROWS" of everything that `tune` may choose for a CPU."""
    tiled = [
        kernel.name for kernel in KERNELS if kernel.fits(cpu) and isinstance(kernel.family, Gemm | Depthwise)
    ]
    return [f"{name}@{rows}" for name in tiled for rows in ROWS.get(cpu.isa, FEW_ROWS)]
