"""Count instructions and model cycles of our artifacts and of their rivals: rows, and the JSON of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import tflite

from pilite import seal
from pilite.errors import PiliteError
from pilite.lab import artifact as artifacts_module
from pilite.lab.estimate import guests, kept, plugin
from pilite.lab.estimate.count import Counted, Result, Thread
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
    by_thread: tuple[Thread, ...] = ()

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
    for subject in subjects:
        if subject.cpu not in MODELS:
            raise PiliteError(f"no core model for {subject.cpu}: estimate knows {', '.join(sorted(MODELS))}.")
    pairs = [(subject, runtime) for subject in subjects for runtime in (OURS, *rivals)]
    wanted = [(subject, runtime) for subject, runtime in pairs if subject.artifact or runtime != OURS]
    return list(_rows(wanted, artifacts, threads, say))


def _rows(
    wanted: Sequence[tuple[Subject, str]], artifacts: Path, threads: int, say: Callable[[str], None]
) -> Iterator[Row]:
    """The row of each subject and runtime; what has to run first is announced."""
    for number, (subject, runtime) in enumerate(wanted, 1):
        guest = _guest(subject, runtime, artifacts, threads)
        if not kept.place(guest, subject.cpu, artifacts).is_file():
            say(f"[{number} of {len(wanted)}] {subject.model} on {subject.cpu}: {runtime} ...")
        yield _row_of(subject, runtime, threads, kept.result(guest, subject.cpu, artifacts))


def _guest(subject: Subject, runtime: str, artifacts: Path, threads: int) -> plugin.Guest:
    if runtime != OURS:
        return guests.rival(runtime, subject.tflite, subject.cpu, artifacts, threads)
    assert subject.artifact is not None
    return guests.pilite(subject.artifact, subject.cpu, artifacts, threads)


def _row_of(subject: Subject, runtime: str, threads: int, result: Result) -> Row:
    """Ours by operator, if the artifact was built with marks."""
    row = Row(
        model=subject.model,
        dtype=dtype_of(subject.tflite),
        cpu=subject.cpu,
        numerics=None,
        runtime=runtime,
        runtime_version=RIVALS[runtime].version if runtime in RIVALS else "",
        threads=threads,
        counted=result.whole,
        balance=result.balance,
        by_thread=result.threads,
    )
    if runtime != OURS or subject.artifact is None:
        return row
    about = artifacts_module.read(subject.artifact)
    found = layers(_stages(subject.artifact), result.sections)
    return replace(row, numerics=about.numerics, runtime_version=about.build_id[:12], layers=found)


def dtype_of(model: Path) -> str:
    """What most quantized tensors of a model are: "uint8" or "int8"; an int8 model may have uint8 ends."""
    graph = tflite.Model.GetRootAs(model.read_bytes(), 0).Subgraphs(0)
    types = [graph.Tensors(i).Type() for i in range(graph.TensorsLength())]
    unsigned = types.count(tflite.TensorType.UINT8)
    return "uint8" if unsigned > types.count(tflite.TensorType.INT8) else "int8"


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
        op = max(
            before.op, str(stage["op"]), key=len
        )  # a border is filled for the first of several operators
        found[index] = Layer(index, op, names, before.counted + sections.get(label, nothing))
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
        "by_thread": [
            {"instructions": thread.instructions, "cycles": _whole(thread.cycles)} for thread in row.by_thread
        ],
        "layers": [
            {"index": layer.index, "op": layer.op, "kernels": list(layer.kernels), **_counted(layer.counted)}
            for layer in row.layers
        ],
    }


def _counted(counted: Counted) -> Json:
    """Cycles in whole numbers: the models are no better than that."""
    return {**dataclasses.asdict(counted), "cycles": _whole(counted.cycles)}


def _whole(cycles: dict[str, float]) -> dict[str, int]:
    return {name: round(n) for name, n in cycles.items()}
