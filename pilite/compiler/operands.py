"""Reading an operator's operands and stored fields: what every option record is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pilite.compiler.flatbuffer import Table
from pilite.compiler.graph import Tensor


class Refused(Exception):
    """The operator cannot be compiled; the text is the reason and the next step."""


class Unfit(Refused):
    """The operator does not fit together, as no converter writes it; the text is the reason alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; convert the model again")


class Mismatch(ValueError):
    """The shapes of an operator's operands do not fit together."""


INTEGERS = ("int32", "int64")  # what sizes, axes and indices are stored as
Operands: TypeAlias = Sequence[Tensor | None]  # None: left out
Completion: TypeAlias = Callable[[Table | None, Operands, Tensor], dict[str, Any]]


def number(stored: Table | None, slot: int, dtype: str, default: int = 0) -> int:
    return default if stored is None else stored.number(slot, dtype, default)


def operand(operands: Operands, i: int) -> Tensor:
    tensor = operands[i] if i < len(operands) else None
    if tensor is None:
        raise Refused(f"its operand {i} is missing; convert the model again")
    return tensor


def constant(operands: Operands, i: int, what: str) -> list[int]:
    tensor = operand(operands, i)
    if tensor.data is None:
        raise Refused(
            f"its {what} is computed at run time; only constants, and what the model computes from shapes "
            f"alone, can be compiled: convert the model with a fixed one"
        )
    if tensor.dtype not in INTEGERS:
        raise Refused(f"its {what} is {tensor.dtype} instead of int32; convert the model again")
    return [int(v) for v in tensor.data.reshape(-1).tolist()]


def vector(stored: Table | None, slot: int) -> list[int]:
    values = None if stored is None else stored.numbers(slot, "int32")
    return [] if values is None else [int(v) for v in values.tolist()]


def positive(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Unfit(f"axis {axis} is outside a tensor of {rank} dimensions")
    return axis % rank
