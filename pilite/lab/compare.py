"""compare: pilite's bytes beside those of TFLite's reference kernels, operator by operator.

On both sides every operator's output is made an output of the model. TFLite's own way of showing intermediate
values (preserve_all_tensors) shows a later operator's value where that one computes in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from models.zoo.writer import with_outputs
from pilite.console import show_table
from pilite.errors import CheckFailed, PiliteError
from pilite.lab import artifact as artifact_file
from pilite.lab import execute, inputs, oracle
from pilite.lab.artifact import Artifact, TensorInfo
from pilite.lab.differences import Difference, difference, total
from pilite.lab.layers import Builder, Own, explain
from pilite.lab.oracle import Oracle

Array = npt.NDArray[Any]
Json = dict[str, Any]

SCHEMA = "pilite.compare/1"
SCHEMA_FILE = Path(__file__).with_name("schemas") / "compare-1.json"
SEEDS = (0, 1, 2)
PICTURES = {".bmp", ".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Built:
    """One model compiled for one CPU; `layers` also shows every operator's output."""

    plain: Path
    layers: Path | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """One set of inputs."""

    name: str
    arrays: tuple[Array, ...]


@dataclass(frozen=True)
class Row:
    """One comparison: an operator's output, or all outputs of the model (`operator` and `op` are None)."""

    model: str
    cpu: str
    numerics: str
    threads: int
    input: str
    operator: int | None
    op: str | None
    elements: int
    mismatches: int
    max_difference: float


# Inputs.


def cases(
    tensors: Sequence[TensorInfo], pictures: Path | None = None, texts: Sequence[str] = ()
) -> list[Case]:
    """`texts` (values of --input) as one set; else three random sets, and `pictures` if the model takes one.

    pictures: a folder. Raises PiliteError for a text that is no input of the model.
    """
    if texts:
        return [Case(" ".join(texts), tuple(inputs.parse(texts, tensors)))]
    random = [Case(f"random:{seed}", tuple(inputs.random_inputs(tensors, seed))) for seed in SEEDS]
    return random + [Case(p.name, (inputs.picture(p, tensors[0]),)) for p in _pictures(tensors, pictures)]


def _pictures(tensors: Sequence[TensorInfo], folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir() or len(tensors) != 1 or not _takes_picture(tensors[0]):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _takes_picture(tensor: TensorInfo) -> bool:
    return len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.shape[3] == 3


# What is right.


class Truth:
    """What the oracle gives for a model; computed once, whatever artifacts are compared with it."""

    def __init__(self, model: Path, found: Oracle, sets: Sequence[Case], artifacts: Path) -> None:
        self.cases = tuple(sets)
        self._artifacts = artifacts
        self.oracle = found
        self._model = model.read_bytes()
        self.sha256 = hashlib.sha256(self._model).hexdigest()
        self._known: dict[tuple[int, ...] | None, list[list[Array]]] = {}

    @property
    def inputs(self) -> list[Sequence[Array]]:
        """By case."""
        return [case.arrays for case in self.cases]

    def outputs(self, tensors: tuple[int, ...] | None = None) -> list[list[Array]]:
        """By case: the values of `tensors`, or the model's own outputs."""
        if tensors not in self._known:
            self._known[tensors] = self._computed(tensors)
        return self._known[tensors]

    def _computed(self, tensors: tuple[int, ...] | None) -> list[list[Array]]:
        with tempfile.TemporaryDirectory() as folder:
            shown = Path(folder) / "model.tflite"
            shown.write_bytes(self._model if tensors is None else with_outputs(self._model, tensors))
            return oracle.compute(self.oracle, shown, self.inputs, self._artifacts)


# The comparison.


@dataclass(frozen=True)
class Comparison:
    """One model for one CPU, compared with `oracle`."""

    oracle: Oracle
    artifacts: tuple[Artifact, ...]  # the one that shows every operator first, if there is one
    rows: tuple[Row, ...]
    own: tuple[Own, ...] = ()  # operators on the oracle's values; none where nothing differs

    @property
    def title(self) -> str:
        one = self.artifacts[0]
        return f"{one.model} for {one.cpu}, {one.numerics}"

    @property
    def promise(self) -> tuple[str, str]:
        """What decides whose bytes are promised: numerics and FULLY_CONNECTED variant."""
        return self.artifacts[0].numerics, self.artifacts[0].fully_connected

    @property
    def is_broken(self) -> bool:
        """Whether something differs that is promised not to."""
        promised = oracle.is_promised(self.oracle, *self.promise, self.artifacts[0].cpu)
        return (promised or oracle.stands_in(self.oracle, *self.promise)) and bool(self.wrong)

    @property
    def origin(self) -> Own | None:
        """The first operator that differs by itself."""
        return next((own for own in self.own if own.mismatches), None)

    @property
    def operators(self) -> list[Row]:
        """One row per operator: sums over inputs and numbers of threads."""
        return _summed(row for row in self.rows if row.operator is not None)

    @property
    def wrong(self) -> list[Row]:
        """What differs; operators in their order, then the model's outputs."""
        found = [row for row in self.rows if row.mismatches]
        return sorted(found, key=lambda row: (row.operator is None, row.operator, row.threads))


def compare(
    built: Built, truth: Truth, threads: Sequence[int], artifacts: Path, isolated: Builder | None = None
) -> Comparison:
    """Every case at every number of threads: the operators of `layers`, then the outputs of `plain`.

    Where operators differ, `isolated` compiles them on their own, to tell an error from its consequences.

    Raises:
        PiliteError: an artifact was built from another model, or cannot run here.
        CheckFailed: a run failed or crashed, or gave another shape or type than TFLite.
    """
    shown = tuple(_read(path, truth) for path in (built.layers, built.plain) if path is not None)
    rows: list[Row] = []
    for artifact in shown:
        right = truth.outputs(tuple(layer.tensor for layer in artifact.layers) or None)
        for count in threads:
            ours = execute.outputs(artifact, [case.arrays for case in truth.cases], count, artifacts)
            for case, a, b in zip(truth.cases, ours, right, strict=True):
                rows += _rows(artifact, count, case.name, list(map(difference, a, b)))
    differs = any(row.mismatches for row in rows if row.operator is not None)
    if isolated is None or not differs:
        return Comparison(truth.oracle, shown, tuple(rows))
    own = explain(shown[0].layers, truth, isolated, artifacts)
    return Comparison(truth.oracle, shown, tuple(rows), tuple(own))


def _read(path: Path, truth: Truth) -> Artifact:
    found = artifact_file.read(path)
    if found.source_sha256 != truth.sha256:
        raise PiliteError(f"{path} was built from another .tflite than its oracle's. Build it again.")
    return found


def _rows(artifact: Artifact, threads: int, case: str, differences: Sequence[Difference]) -> list[Row]:
    one = (artifact.model, artifact.cpu, artifact.numerics, threads, case)
    if artifact.layers:
        return [Row(*one, x.operator, x.op, *d) for x, d in zip(artifact.layers, differences, strict=True)]
    return [Row(*one, None, None, *total(differences))]


def _summed(rows: Iterable[Row]) -> list[Row]:
    """Rows of one operator become one, in the order of operators."""
    groups: dict[tuple[int | None, str | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.operator, row.op), []).append(row)
    return [
        replace(group[0], elements=sums[0], mismatches=sums[1], max_difference=sums[2])
        for group in groups.values()
        for sums in [total((row.elements, row.mismatches, row.max_difference) for row in group)]
    ]


# The result.


def verify(comparisons: Sequence[Comparison]) -> None:
    """Raises CheckFailed if a promised byte differs; names the first such operator of every model and CPU.

    A difference from a runtime that nothing was promised about is an answer, not a failure.
    """
    broken = [_broken(one) for one in comparisons if one.is_broken]
    if broken:
        raise CheckFailed("\n".join(broken))


def _broken(one: Comparison) -> str:
    first = one.wrong[0]
    differs = f"{first.mismatches} of {first.elements} elements, by at most {first.max_difference:g}"
    where = f"with input {first.input} and {first.threads} thread(s)"
    if first.operator is not None:
        what = f"the first operator that differs is #{first.operator} {first.op}: {differs}, {where}."
        what += _explained(one)
    elif one.operators:
        what = f"every operator agrees, the outputs of the plain artifact do not: {differs}, {where}."
    else:
        what = f"the outputs differ: {differs}, {where}. `--layers` finds the operator."
    return f"{one.title}: not the bytes of {one.oracle.name}; {what}{_excuse(one)}"


def _explained(one: Comparison) -> str:
    """Where the difference comes from and which rounding explains it."""
    if one.origin is None:
        return ""
    own = one.origin
    share = f"{own.mismatches} of {own.elements} elements on the right inputs"
    return f" It starts at #{own.operator} {own.op} ({share}), which is rounded as {own.reason}."


def _excuse(one: Comparison) -> str:
    if not oracle.stands_in(one.oracle, *one.promise):
        return ""
    package = oracle.RUNTIMES[oracle.PROMISED[one.promise]].package
    return f" The promise is about {package}, which this Python has no wheel of: FULLY_CONNECTED may differ."


def document(comparisons: Sequence[Comparison]) -> Json:
    """The result as in schemas/compare-1.json."""
    rows = [asdict(row) for one in comparisons for row in one.rows]
    result = {
        "schema": SCHEMA,
        "elements": sum(row["elements"] for row in rows),
        "mismatches": sum(row["mismatches"] for row in rows),
        "builds": [_build(one, artifact) for one in comparisons for artifact in one.artifacts],
        "rows": rows,
        "own": [_own(one, own) for one in comparisons for own in one.own],
    }
    jsonschema.validate(result, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    return result


def _own(one: Comparison, own: Own) -> Json:
    about = one.artifacts[0]
    key = {"model": about.model, "cpu": about.cpu, "numerics": about.numerics}
    return {**key, **asdict(own), "ours": list(own.ours), "theirs": list(own.theirs)}


def _build(one: Comparison, artifact: Artifact) -> Json:
    return {
        "model": artifact.model,
        "cpu": artifact.cpu,
        "numerics": artifact.numerics,
        "layers": bool(artifact.layers),
        "build_id": artifact.build_id,
        "source_sha256": artifact.source_sha256,
        "against": one.oracle.name,
    }


def show(comparisons: Sequence[Comparison]) -> None:
    """A table per model and CPU of its operators, where they were compared; then one of everything."""
    console = Console(width=None if os.isatty(1) else 160, markup=False)
    for one in comparisons:
        if one.operators:
            console.print(f"{one.title}, against {one.oracle.name}", style="bold")
            console.print(_table(one))
    show_table("Against TFLite", [row for one in comparisons for row in _summary(one)])


def _table(one: Comparison) -> Table:
    """The operators; the first that differs stands out, because the others may only repeat its difference.

    "own" is what an operator does to the oracle's values, and the rounding that explains it.
    """
    table = Table(header_style="bold")
    explained = ("own mismatches", "own max", "rounded as") if one.own else ()
    for name in ("operator", "op", "elements", "mismatches", "max difference", *explained):
        table.add_column(name, justify="left" if name in ("op", "rounded as") else "right")
    own = {known.operator: known for known in one.own}
    styles = iter(("bold reverse red", *("red",) * len(one.operators)))
    for row in one.operators:
        known = own.get(row.operator or 0)
        cells = [row.operator, row.op, row.elements, row.mismatches, f"{row.max_difference:g}"]
        cells += [known.mismatches, f"{known.max_difference:g}", known.reason] if known else []
        table.add_row(*map(str, cells), style=next(styles) if row.mismatches else None)
    return table


def _summary(one: Comparison) -> list[Json]:
    """What the operators, and what the model's outputs, come to."""
    kinds = {
        f"{len(one.operators)} operators": [row for row in one.rows if row.operator is not None],
        "outputs": [row for row in one.rows if row.operator is None],
    }
    return [
        {
            "model": rows[0].model,
            "cpu": rows[0].cpu,
            "numerics": rows[0].numerics,
            "compared": kind,
            "inputs": len({row.input for row in rows}),
            "threads": ", ".join(map(str, sorted({row.threads for row in rows}))),
            "elements": sum(row.elements for row in rows),
            "mismatches": sum(row.mismatches for row in rows),
            "max difference": f"{max(row.max_difference for row in rows):g}",
        }
        for kind, rows in kinds.items()
        if rows
    ]
