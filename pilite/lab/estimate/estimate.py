"""Count instructions and model cycles of our artifacts and of their rivals: rows, and the JSON of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import tflite

from pilite import seal
from pilite.errors import PiliteError
from pilite.lab import artifact as artifacts_module
from pilite.lab.estimate import caches, guests, plugin
from pilite.lab.estimate.count import Counted, Result, count
from pilite.lab.estimate.guests import RIVALS
from pilite.lab.estimate.models import MODELS

Json = dict[str, Any]

SCHEMA = "pilite.estimate/1"
SCHEMA_FILE = Path(__file__).parents[1] / "schemas" / "estimate-1.json"
OURS = "pilite"


@dataclass(frozen=True)
class Subject:
    """One model on one core: the source that rivals run, and our artifact of it (None: rivals alone)."""

    model: str
    tflite: Path
    cpu: str
    artifact: Path | None


@dataclass(frozen=True)
class Layer:
    """One operator of the model, -1 for the model's own ends, with the kernels that ran for it."""

    index: int
    op: str
    kernels: tuple[str, ...]
    counted: Counted


@dataclass(frozen=True)
class Row:
    """One runtime with one model on one core."""

    model: str
    dtype: str
    cpu: str
    numerics: str | None
    runtime: str
    runtime_version: str
    threads: int
    counted: Counted
    balance: float
    layers: tuple[Layer, ...] = ()

    @property
    def claim(self) -> float:
        """Cycles of the core model that claims are made on."""
        return self.counted.cycles[MODELS[self.cpu][0].name]


def estimate(
    subjects: Sequence[Subject],
    rivals: Sequence[str],
    artifacts: Path,
    *,
    threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """One row per subject and runtime, ours first.

    Raises:
        PiliteError: a tool is missing, a CPU has no core model.
        CheckFailed: a program failed under QEMU.
    """
    rows = []
    for subject in subjects:
        if subject.cpu not in MODELS:
            raise PiliteError(f"no core model for {subject.cpu}: estimate knows {', '.join(sorted(MODELS))}.")
        say(f"{subject.model} on {subject.cpu}: {OURS}")
        rows += [] if subject.artifact is None else [ours(subject, subject.artifact, artifacts, threads)]
        for name in rivals:
            say(f"{subject.model} on {subject.cpu}: {name}")
            rows.append(theirs(subject, name, artifacts, threads))
    return rows


def ours(subject: Subject, path: Path, artifacts: Path, threads: int) -> Row:
    """The row of our artifact; by operator if it was built with marks."""
    about = artifacts_module.read(path)
    result = _run(guests.pilite(path, subject.cpu, artifacts, threads), subject.cpu, artifacts)
    return Row(
        subject.model,
        dtype_of(subject.tflite),
        subject.cpu,
        about.numerics,
        OURS,
        about.build_id[:12],
        threads,
        result.whole,
        result.balance,
        layers(_stages(path), result.sections),
    )


def theirs(subject: Subject, name: str, artifacts: Path, threads: int) -> Row:
    """The row of a rival."""
    guest = guests.rival(name, subject.tflite, subject.cpu, artifacts, threads)
    result = _run(guest, subject.cpu, artifacts)
    version = RIVALS[name].version
    dtype = dtype_of(subject.tflite)
    return Row(subject.model, dtype, subject.cpu, None, name, version, threads, result.whole, result.balance)


def dtype_of(model: Path) -> str:
    """What most quantized tensors of a model are: "uint8" or "int8"; an int8 model may have uint8 ends."""
    graph = tflite.Model.GetRootAs(model.read_bytes(), 0).Subgraphs(0)
    types = [graph.Tensors(i).Type() for i in range(graph.TensorsLength())]
    unsigned = types.count(tflite.TensorType.UINT8)
    return "uint8" if unsigned > types.count(tflite.TensorType.INT8) else "int8"


def _run(guest: plugin.Guest, cpu: str, artifacts: Path) -> Result:
    levels = [level.option for level in caches.LEVELS[cpu]]
    return count(plugin.run(guest, levels, artifacts), MODELS[cpu])


def _stages(path: Path) -> list[Json]:
    """What each marked section is: section i + 1 is stage i. Empty for an artifact without marks."""
    manifest = seal.unseal(path.read_bytes())[1]
    return list(manifest.get("stages", ())) if manifest.get("options", {}).get("markers") else []


def layers(stages: Sequence[Json], sections: dict[int, Counted]) -> tuple[Layer, ...]:
    """Stages added up by operator, in the order of the model; what lies outside them belongs to the ends."""
    if not stages:
        return ()
    nothing = Counted(cycles={name: 0.0 for counted in sections.values() for name in counted.cycles})
    found = {-1: Layer(-1, "", (), sections.get(0, nothing))}
    for label, stage in enumerate(stages, 1):
        index = int(stage["operator"])
        before = found.get(index, Layer(index, str(stage["op"]), (), nothing))
        names = (*before.kernels, str(stage["kernel"]))
        found[index] = Layer(index, before.op, names, before.counted + sections.get(label, nothing))
    return tuple(found[index] for index in sorted(found))


def document(rows: Iterable[Row]) -> Json:
    """The rows as in schemas/estimate-1.json, checked against it."""
    found = {
        "schema": SCHEMA,
        "emulator": plugin.emulator_version(),
        "core_models": {model.name: model.about for models in MODELS.values() for model in models},
        "rows": [_row(row) for row in rows],
    }
    jsonschema.validate(found, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    return found


def _row(row: Row) -> Json:
    fields = ("model", "dtype", "cpu", "numerics", "runtime", "runtime_version", "threads")
    return {
        **{name: getattr(row, name) for name in fields},
        **_counted(row.counted),
        "balance": round(row.balance, 4),
        "layers": [
            {"index": layer.index, "op": layer.op, "kernels": list(layer.kernels), **_counted(layer.counted)}
            for layer in row.layers
        ],
    }


def _counted(counted: Counted) -> Json:
    """Cycles in whole numbers: the models are no better than that."""
    values = dataclasses.asdict(counted)
    return {**values, "cycles": {name: round(cycles) for name, cycles in counted.cycles.items()}}
