"""Per-channel constants in the order that kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilite.compiler.fixedpoint import DTYPES, Requant
from pilite.compiler.kernels.emit import Param
from pilite.compiler.kernels.isa import Isa
from pilite.compiler.spec import Arrays

Int: TypeAlias = npt.NDArray[np.integer[Any]]


def pick(values: Int, order: npt.NDArray[np.int64]) -> Int:
    """values[order] along the first axis; zero where order is -1."""
    picked: Int = values[np.maximum(order, 0)]
    picked[order < 0] = 0
    return picked


def channel_order(block: Sequence[int], channels: int) -> npt.NDArray[np.int64]:
    """Source channel of every packed column; -1 where the last block is padded."""
    count = -(-channels // len(block))
    order = np.concatenate([np.asarray(block) + b * len(block) for b in range(count)])
    return np.where(order < channels, order, -1)


def channel_constants(
    isa: Isa, requant: Requant, arrays: Arrays, order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], ...]:
    """bias and the requantization operands, by packed column."""
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.asarray(arrays[name]) for name in ("bias", *requant.operands)
    }
    if "right" in columns:
        columns["right"] = np.array([isa.encode_right(int(n)) for n in columns["right"]], np.int32)
    return tuple(pick(values, order) for values in columns.values())


def channel_params(requant: Requant, columns: int) -> list[Param]:
    """Parameters that `channel_constants` fills."""
    return [Param(name, DTYPES.get(name, "int32"), columns) for name in ("bias", *requant.operands)]
