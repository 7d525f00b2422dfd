"""How two arrays differ, counted in their bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.errors import CheckFailed

Array = npt.NDArray[Any]
Difference: TypeAlias = tuple[int, int, float]  # elements, how many differ in their bytes, the largest
FLOAT_MAX = float(np.finfo(np.float64).max)  # the difference to a NaN: JSON has none


def difference(ours: Array, right: Array) -> Difference:
    """How two arrays differ. Raises CheckFailed if they have different shapes or types."""
    if ours.shape != right.shape or ours.dtype != right.dtype:
        raise CheckFailed(
            f"An output is {ours.dtype} {list(ours.shape)}, TFLite's is {right.dtype} {list(right.shape)}: "
            "a mistake of the compiler. Report it with the model."
        )
    bits = f"u{ours.dtype.itemsize}"
    unequal = np.ascontiguousarray(ours).view(bits) != np.ascontiguousarray(right).view(bits)
    return ours.size, int(unequal.sum()), _largest(ours[unequal], right[unequal])


def _largest(a: Array, b: Array) -> float:
    if not a.size:
        return 0
    if a.dtype.kind in "iub":
        return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())
    apart = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float(np.nan_to_num(apart, nan=FLOAT_MAX).max())


def total(differences: Iterable[Difference]) -> Difference:
    elements, mismatches, largest = zip(*differences, strict=True)
    return sum(elements), sum(mismatches), max(largest)
