"""The verbs that hold outputs against TFLite's; tasks.py offers them. Heavy imports are inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from pilite.console import show_table, whole_numbers, write_json
from pilite.errors import PiliteError
from pilite.verbs import ARTIFACTS, SHARED_IMAGES, built, cpus_of, sources, verb

if TYPE_CHECKING:
    from models import Source
    from pilite.lab.oracle import Oracle

JUDGES = "tflite,litert"  # whom `accuracy` asks beside pilite


@verb("model", "cpu", "input", "input_shape", "rounding")
def compare(
    c: Context,
    model: Sequence[str] = (),
    cpu: Sequence[str] = (),
    numerics: str = "ref",
    fully_connected: str = "q31",
    threads: str = "1,4",
    input: Sequence[str] = (),
    input_shape: Sequence[str] = (),
    layers: bool = False,
    against: str = "",
    rounding: Sequence[str] = (),
    json: str = "",
) -> None:
    """Compare outputs with TFLite's, byte by byte; exit 1 if a promised one differs."""
    counts = whole_numbers(threads, "--threads")
    options = {"numerics": numerics, "fully_connected": fully_connected, "rounding": exceptions(rounding)}
    cpus = cpus_of((), cpu)
    from pilite.lab import artifact, drift, oracle
    from pilite.lab import compare as comparison

    done = []
    for source in sources(model, input_shape):
        plain = {name: built(source, name, **options) for name in cpus}
        shown = {name: built(source, name, layers=True, chains="off", **options) for name in cpus if layers}
        sets = comparison.cases(artifact.read(plain[cpus[0]]).inputs, SHARED_IMAGES, input)
        truths: dict[Oracle, comparison.Truth] = {}
        for name in cpus:
            judge = oracle.judge(against, numerics, fully_connected, name)
            right = truths.setdefault(judge, comparison.Truth(source.path, judge, sets, ARTIFACTS))
            pair = comparison.Built(plain[name], shown.get(name))
            apart = Isolated(source, name, options)
            done.append(comparison.compare(pair, right, counts, ARTIFACTS, apart))
    comparison.show(done)
    for one in done:
        if one.operators:
            plotted = drift.plot(one, ARTIFACTS / "compare")
            write_json(plotted.with_suffix(".json"), comparison.document([one]))  # for `report`
            print(plotted)
    if json:
        write_json(Path(json), comparison.document(done))
    comparison.verify(done)


@dataclass(frozen=True)
class Isolated:
    """Compiles operators of one model on their own, as pilite.lab.layers asks for them."""

    source: Source
    cpu: str
    options: Mapping[str, Any]

    @property
    def families(self) -> tuple[str, ...]:
        from pilite.compiler.numerics import FAMILIES

        return tuple(FAMILIES)

    def __call__(self, operators: Sequence[int], family: str = "") -> list[Path]:
        from pilite.compiler import pipeline

        rounding = dict.fromkeys(operators, family) if family else self.options["rounding"]
        options = {**self.options, "rounding": rounding}
        return pipeline.build_isolated(
            self.source.path, operators, self.source.name, self.cpu, artifacts=ARTIFACTS, **options
        )


def exceptions(texts: Sequence[str]) -> dict[int, str]:
    """--rounding OPERATOR:FAMILY as a table. Raises PiliteError for another form."""
    pairs = [text.partition(":") for text in texts]
    for number, _, family in pairs:
        if not (number.isascii() and number.isdecimal() and family):
            raise PiliteError(f"--rounding {number}: write OPERATOR:FAMILY, such as 12:ties-up.")
    return {int(number): family for number, _, family in pairs}


@verb("model")
def accuracy(
    c: Context,
    images: str = str(SHARED_IMAGES),
    labels: str = str(SHARED_IMAGES / "imagenet_labels.txt"),
    model: Sequence[str] = (),
    cpu: str = "",
    numerics: str = "ref",
    against: str = JUDGES,
    json: str = "",
) -> None:
    """Top-5 classes of pictures by pilite and each runtime, and where they disagree."""
    (name,) = cpus_of((), [cpu] if cpu else ())
    from pilite.lab import accuracy as judging
    from pilite.lab import artifact, oracle

    judges = [oracle.choose(text, name) for text in against.split(",") if text]
    found = judging.pictures(Path(images))
    for source in sources(model):
        made = artifact.read(built(source, name, numerics=numerics))
        result = judging.judge(made, source.path, found, judging.names(Path(labels), made), judges, ARTIFACTS)
        print(result.preprocessing)
        for title, rows in result.tables():
            show_table(title, rows)
        if json:
            write_json(Path(json), result.document())
