"""What an operator does to TFLite's own values: its own error, apart from errors that came in, and why.

Isolated operators get the oracle's values. Where their outputs still differ, every rounding family is tried
in their place: the one that gives the oracle's bytes is how the oracle rounds, the one that gives ours is
how we do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pilite.lab import artifact, execute
from pilite.lab.artifact import Artifact, Layer
from pilite.lab.differences import Difference, difference, total

Array = npt.NDArray[Any]
MAX_EXPLAINED = 12  # operators, in their order: trying a family means compiling them


class Builder(Protocol):
    """Compiles operators of one model for one CPU, isolated; as one of `families` if that is given."""

    @property
    def families(self) -> tuple[str, ...]: ...

    def __call__(self, operators: Sequence[int], family: str = "") -> list[Path]: ...


class Oracle(Protocol):
    """The inputs of every case, and the oracle's value of tensors by case."""

    @property
    def inputs(self) -> list[Sequence[Array]]: ...

    def outputs(self, tensors: tuple[int, ...]) -> list[list[Array]]: ...


@dataclass(frozen=True)
class Own:
    """One operator on the oracle's values. `ours`, `theirs`: families with exactly these bytes."""

    operator: int
    op: str
    elements: int
    mismatches: int
    max_difference: float
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """How both sides round, as far as it is known."""
        if not self.mismatches:
            return ""
        theirs, ours = (" or ".join(names) or "no known rounding" for names in (self.theirs, self.ours))
        return f"{theirs} where this artifact has {ours}"


def explain(layers: Sequence[Layer], truth: Oracle, build: Builder, artifacts: Path) -> list[Own]:
    """Every operator of `layers` (all of a model) on the oracle's values. Raises what its helpers raise."""
    tensors = tuple(layer.tensor for layer in layers)
    values = [dict(zip(tensors, row, strict=True)) for row in truth.outputs(tensors)]
    alone = _Alone(truth, values, artifacts)
    found = alone.run(build(sorted({layer.operator for layer in layers})))
    wrong = [i for i, (own, _) in found.items() if own.mismatches][:MAX_EXPLAINED]
    return [own for own, _ in (_explained(found, alone, build, wrong) if wrong else found).values()]


Found = dict[int, tuple[Own, list[list[Array]]]]  # by operator: its error, and our values by case


@dataclass(frozen=True)
class _Alone:
    """Runs isolated artifacts on the oracle's values."""

    truth: Oracle
    values: Sequence[dict[int, Array]]
    artifacts: Path

    def run(self, paths: Sequence[Path]) -> Found:
        found: Found = {}
        for path in paths:
            made = artifact.read(path)
            sets = [list(self._operands(made, i)) for i in range(len(self.values))]
            results = execute.outputs(made, sets, 1, self.artifacts)
            for own, ours in self._judged(made, results):
                old, before = found.get(own.operator, (None, None))
                found[own.operator] = (own, ours) if old is None else (_sum(old, own), _join(before, ours))
        return found

    def _operands(self, made: Artifact, case: int) -> Iterator[Array]:
        for operand in made.operands:
            given = operand.position >= 0
            yield self.truth.inputs[case][operand.position] if given else self.values[case][operand.tensor]

    def _judged(
        self, made: Artifact, results: Sequence[Sequence[Array]]
    ) -> Iterator[tuple[Own, list[list[Array]]]]:
        for i, layer in enumerate(made.layers):
            ours = [row[i] for row in results]
            apart = [difference(a, known[layer.tensor]) for a, known in zip(ours, self.values, strict=True)]
            yield Own(layer.operator, layer.op, *total(apart)), [[a] for a in ours]


def _sum(a: Own, b: Own) -> Own:
    """Two outputs of one operator."""
    one, two = (_difference(x) for x in (a, b))
    elements, mismatches, largest = total([one, two])
    return replace(a, elements=elements, mismatches=mismatches, max_difference=largest)


def _difference(own: Own) -> Difference:
    return own.elements, own.mismatches, own.max_difference


def _join(a: list[list[Array]] | None, b: list[list[Array]]) -> list[list[Array]]:
    return [x + y for x, y in zip(a or [[]] * len(b), b, strict=True)]


def _explained(found: Found, alone: _Alone, build: Builder, wrong: Sequence[int]) -> Found:
    """`found` with the families that explain the operators in `wrong`."""
    tried = {family: alone.run(build(wrong, family)) for family in build.families}
    for index in wrong:
        own, ours = found[index]
        same = tuple(f for f, result in tried.items() if _equal(result[index][1], ours))
        right = tuple(f for f, result in tried.items() if not result[index][0].mismatches)
        found[index] = replace(own, ours=same, theirs=right), ours
    return found


def _equal(a: Sequence[Sequence[Array]], b: Sequence[Sequence[Array]]) -> bool:
    pairs = ((x, y) for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True))
    return all(np.array_equal(x, y) for x, y in pairs)
