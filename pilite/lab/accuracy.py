"""accuracy: what pilite and each runtime say about the same pictures, and where they disagree.

A picture in DIR/<label>/ is one of that class; in DIR itself its class is not known, and only agreement is
counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from pilite.errors import PiliteError
from pilite.lab import execute, inputs, oracle
from pilite.lab.artifact import Artifact
from pilite.lab.oracle import Oracle

Array = npt.NDArray[Any]
Json = dict[str, Any]
Run = Callable[[Sequence[Sequence[Array]]], list[list[Array]]]

SCHEMA = "pilite.accuracy/1"
SCHEMA_FILE = Path(__file__).with_name("schemas") / "accuracy-1.json"
SUFFIXES = {".bmp", ".jpg", ".jpeg", ".png"}
BEST = 5
TOGETHER = 8  # pictures between two steps of the progress bar
PILITE = "pilite"


@dataclass(frozen=True)
class Picture:
    """A file, and the name of its class if a folder says it."""

    path: Path
    label: str = ""


@dataclass(frozen=True)
class Answer:
    """The best classes of one picture, best first; equal scores in the order of classes."""

    runtime: str
    picture: Picture
    classes: tuple[int, ...]
    scores: tuple[float, ...]


# What is asked.


def pictures(folder: Path) -> list[Picture]:
    """Pictures in `folder` and in its folders, by name. Raises PiliteError if there is none."""
    if not folder.is_dir():
        raise PiliteError(f"--images {folder}: no such folder.")
    found = [
        Picture(path, "" if path.parent == folder else path.parent.name)
        for path in sorted(folder.glob("**/*"))
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise PiliteError(f"--images {folder}: no picture in it ({', '.join(sorted(SUFFIXES))}).")
    return found


def names(file: Path, made: Artifact) -> list[str]:
    """One label per class, from a file with one per line; a first line "background" may be one too many.

    Raises PiliteError for another number of labels than the model's first output has classes.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as problem:
        raise PiliteError(f"--labels {file}: {problem.strerror}.") from None
    classes = made.outputs[0].shape[-1] if made.outputs[0].shape else 1
    if len(lines) == classes + 1 and lines[0] == "background":
        return lines[1:]
    if len(lines) != classes:
        raise PiliteError(f"--labels {file}: {len(lines)} labels; {made.model} has {classes} classes.")
    return lines


# The answers.


def judge(
    made: Artifact,
    model: Path,
    found: Sequence[Picture],
    labels: Sequence[str],
    judges: Sequence[Oracle],
    artifacts: Path,
) -> Accuracy:
    """Ask pilite and every oracle about every picture, with a progress bar.

    Raises:
        PiliteError: the model takes no picture, or one cannot be read.
        CheckFailed, BoardError: a runtime refused or failed.
    """
    if len(made.inputs) != 1:
        raise PiliteError(
            f"{made.model} has {len(made.inputs)} inputs; `accuracy` needs a model of one picture."
        )
    runs: dict[str, Run] = {PILITE: lambda sets: execute.outputs(made, sets, 1, artifacts)}
    for one in judges:
        runs[one.name] = lambda sets, one=one: oracle.compute(one, model, sets, artifacts)  # type: ignore[misc]
    arrays = [[inputs.picture(picture.path, made.inputs[0])] for picture in found]
    answers = [answer for name, run in runs.items() for answer in _ask(name, run, found, arrays)]
    return Accuracy(made, tuple(labels), tuple(runs), tuple(answers))


def _ask(
    name: str, run: Run, found: Sequence[Picture], arrays: Sequence[Sequence[Array]]
) -> Iterator[Answer]:
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=len(found))
        for first in range(0, len(found), TOGETHER):
            part = found[first : first + TOGETHER]
            results = run(arrays[first : first + TOGETHER])
            for picture, outputs in zip(part, results, strict=True):
                yield best(name, picture, outputs[0])
            progress.advance(task, len(part))


def best(name: str, picture: Picture, output: Array) -> Answer:
    """The best classes of an output; equal scores in the order of classes."""
    scores = output.reshape(-1)
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:BEST]
    return Answer(name, picture, tuple(order.tolist()), tuple(scores[order].astype(float).tolist()))


# What they come to.


@dataclass(frozen=True)
class Accuracy:
    """Answers of all runtimes about the same pictures."""

    made: Artifact
    labels: tuple[str, ...]
    runtimes: tuple[str, ...]
    answers: tuple[Answer, ...]

    @property
    def preprocessing(self) -> str:
        (tensor,) = self.made.inputs
        return f"Pictures become {tensor.dtype} {list(tensor.shape)}: {inputs.PICTURE}."

    def tables(self) -> list[tuple[str, list[Json]]]:
        """Titles and rows for people."""
        shown = [("Top 5", self._shown()), ("Right", self.right()), ("Agreement", self.agreement())]
        return [(title, rows) for title, rows in (*shown, ("Disagreements", self.confusion())) if rows]

    def _shown(self) -> list[Json]:
        return [
            {
                "picture": answer.picture.path.name,
                "runtime": answer.runtime,
                "top 5": "; ".join(
                    f"{self.labels[i].split(',')[0]} ({score:g})"
                    for i, score in zip(answer.classes, answer.scores, strict=True)
                ),
            }
            for answer in sorted(self.answers, key=lambda answer: str(answer.picture.path))
        ]

    def by(self, runtime: str) -> list[Answer]:
        return [answer for answer in self.answers if answer.runtime == runtime]

    def right(self) -> list[Json]:
        """How often the class of the folder is the best, or among the five best, where folders say it."""
        rows = []
        for runtime in self.runtimes:
            known = [answer for answer in self.by(runtime) if answer.picture.label]
            best, among = (sum(self._hit(answer, count) for answer in known) for count in (1, BEST))
            if known:
                rows.append({"runtime": runtime, "pictures": len(known), "top1": best, "top5": among})
        return rows

    def _hit(self, answer: Answer, count: int) -> bool:
        return answer.picture.label in (self.labels[i] for i in answer.classes[:count])

    def agreement(self) -> list[Json]:
        """By pair of runtimes: pictures with the same best class, the same five, the same five in order."""
        return [
            {
                "a": a,
                "b": b,
                "pictures": len(self.by(a)),
                "top1": sum(x.classes[:1] == y.classes[:1] for x, y in self._pairs(a, b)),
                "top5": sum(set(x.classes) == set(y.classes) for x, y in self._pairs(a, b)),
                "order": sum(x.classes == y.classes for x, y in self._pairs(a, b)),
            }
            for a, b in combinations(self.runtimes, 2)
        ]

    def _pairs(self, a: str, b: str) -> Iterator[tuple[Answer, Answer]]:
        return zip(self.by(a), self.by(b), strict=True)

    def confusion(self) -> list[Json]:
        """How often one runtime's best class is another's other one."""
        counts = Counter(
            (a, b, x.classes[0], y.classes[0])
            for a, b in combinations(self.runtimes, 2)
            for x, y in self._pairs(a, b)
            if x.classes[0] != y.classes[0]
        )
        return [
            {"a": a, "b": b, "class_a": self.labels[i], "class_b": self.labels[j], "pictures": count}
            for (a, b, i, j), count in counts.most_common()
        ]

    def document(self) -> Json:
        """The result as in schemas/accuracy-1.json."""
        result = {
            "schema": SCHEMA,
            "model": self.made.model,
            "cpu": self.made.cpu,
            "numerics": self.made.numerics,
            "build_id": self.made.build_id,
            "preprocessing": self.preprocessing,
            "runtimes": list(self.runtimes),
            "answers": [
                {
                    "picture": answer.picture.path.name,
                    "label": answer.picture.label or None,
                    "runtime": answer.runtime,
                    "classes": list(answer.classes),
                    "labels": [self.labels[i] for i in answer.classes],
                    "scores": list(answer.scores),
                }
                for answer in self.answers
            ],
            "right": self.right(),
            "agreement": self.agreement(),
            "confusion": self.confusion(),
        }
        jsonschema.validate(result, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
        return result
