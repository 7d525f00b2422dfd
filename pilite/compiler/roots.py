"""1 / sqrt(n) of an integer in gemmlowp's 32-bit fixed point, as TFLite's RSQRT has it."""

from __future__ import annotations

from pilite.compiler.fixedpoint import INT32_MAX, Multiplier

ONE, THREE_HALVES = 1 << 28, (1 << 28) + (1 << 27)  # with 3 integer bits
HALF_ROOT_2 = 1518500250  # Q0.31
MOST = 1 << 29  # of what needs no division by 4


def inverse_root(n: int) -> Multiplier:
    """internal/common.h GetInvSqrtQuantizedMultiplierExp of n in [0, 2**29): five Newton steps from 1.

    0 and 1 give the largest mantissa. kernels/normalize.py has the same for a sum that is known at run time.
    """
    assert 0 <= n < MOST
    if n <= 1:
        return Multiplier(INT32_MAX, 0)
    pairs = (31 - n.bit_length()) // 2 - 1
    half = (((n << 2 * pairs) >> 1) + 1) >> 1
    x = ONE
    for _ in range(5):
        cube = _high_mul(_high_mul(x, x), x) << 6
        x = (_high_mul(THREE_HALVES, x) - _high_mul(half, cube)) << 3
    left = max(pairs - 11, 0)
    return Multiplier(_high_mul(x, HALF_ROOT_2) << left, -max(11 - pairs, 0))


def _high_mul(a: int, b: int) -> int:
    return (a * b + (1 << 30)) >> 31
