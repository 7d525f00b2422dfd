"""Every verb of pilite: check arguments, call one function, print. `python3 run.py --list` shows them.

Tasks leave their results in files below artifacts/, so `build deploy bench` equals three commands.
Exit codes: 0 done, 1 the check failed, 2 wrong use. Heavy imports are inside the task that needs them.
"""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context
from invoke.tasks import task

from pilite.commandline import CommandLine, Namespace, failures_as_text
from pilite.console import Steps, chosen, show_table, whole_number, whole_numbers, write_json
from pilite.errors import CheckFailed

if TYPE_CHECKING:
    from models import Source
    from pilite.lab.boards import Board
    from pilite.lab.connection import Connection
    from pilite.lab.fleet import Outcome
    from pilite.lab.oracle import Oracle

ROOT = Path(__file__).resolve().parent
ARTIFACTS = ROOT / "artifacts"
SHARED_MODELS = Path(os.environ.get("PILITE_MODELS", ROOT.parent / "shared" / "models"))
SHARED_IMAGES = SHARED_MODELS.parent / "images"
DEFAULT_BOARDS = ("local",)
RIVALS = ("tflite", "litert")
ESTIMATED_RIVALS = (*RIVALS, "litert-builtin")
ESTIMATED_CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
CHECKS = (  # what `lint` runs, in this order
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
)

HELP = {
    "against": "RUNTIME or RUNTIME@CPU to compare with, such as litert@cortex-a72; default: the promised one",
    "artifact": "model.so to run; default: the default model's for this machine",
    "board": "name in boards/; repeatable but for bench; default: local",
    "cpu": "name in toolchains/; repeatable; default: this machine's",
    "fast": "under two minutes: leave out tests marked slow, docker or qemu",
    "gate": "file of budgets; fails more than 2 % above one, keeps gains except under CI=true",
    "fully-connected": "q31 as tflite-runtime 2.14, f64 as newer reference kernels",
    "input": "F.npy, a picture or random:SEED; repeatable, one per input of the model",
    "json": "also write the result to this file",
    "layers": "compare every operator's output, not only the model's",
    "model": "name in models/models.toml or path of a .tflite; repeatable; default: the zoo's MobileNet V2",
    "numerics": "whose rounding: ref",
    "output": "write the outputs to this .npz",
    "rival": f"comma-separated, of {', '.join(RIVALS)}",
    "threads": "thread counts, comma-separated where several are allowed",
}


def verb(*repeatable: str) -> Callable[[Callable[..., None]], Any]:
    """Make an invoke task: long options only, each with its text of HELP, failures without a traceback."""

    def wrap(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def body(*arguments: Any, **options: Any) -> None:
            with failures_as_text():
                function(*arguments, **options)

        signature = inspect.signature(function)
        # Invoke takes an option for a list only if its default is one.
        body.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                one.replace(default=[]) if one.name in repeatable else one
                for one in signature.parameters.values()
            ]
        )
        texts = {name: HELP[name.replace("_", "-")] for name in signature.parameters if name != "c"}
        return task(help=texts, iterable=list(repeatable), auto_shortflags=False)(body)

    return wrap


def sources(names: Sequence[str]) -> list[Source]:
    """The models called `names`, or the default one."""
    import models as catalogue

    return [catalogue.resolve(name, ARTIFACTS, SHARED_MODELS) for name in names or [catalogue.DEFAULT_MODEL]]


def cpus_of(boards: Sequence[str], cpus: Sequence[str]) -> list[str]:
    """The CPUs asked for, by name or through a board; the local board's if nothing is asked for."""
    from pilite.lab import boards as inventory

    wanted = boards or (() if cpus else DEFAULT_BOARDS)
    return list(dict.fromkeys([*cpus, *(inventory.load(name, ARTIFACTS).cpu for name in wanted)]))


def built(source: Source, cpu: str, **options: Any) -> Path:
    """The artifact of one model for one CPU, built now if anything has changed; says which."""
    from pilite.compiler import pipeline

    with Steps(f"{source.name} for {cpu}{', every operator' if options.get('layers') else ''}") as steps:
        done = pipeline.build(
            source.path, source.name, cpu, artifacts=ARTIFACTS, progress=steps.show, **options
        )
        steps.end(f"{'nothing changed, kept' if done.reused else 'built'} {done.path}")
    return done.path


@verb("model", "board", "cpu")
def build(
    c: Context,
    model: Sequence[str] = (),
    board: Sequence[str] = (),
    cpu: Sequence[str] = (),
    numerics: str = "ref",
    fully_connected: str = "q31",
) -> None:
    """Compile models into artifacts/<model>/<cpu>/<numerics>/model.so."""
    cpus = cpus_of(board, cpu)
    for source in sources(model):
        for name in cpus:
            built(source, name, numerics=numerics, fully_connected=fully_connected)


@verb("input")
def run(
    c: Context, artifact: str = "", input: Sequence[str] = (), output: str = "", threads: str = "1"
) -> None:
    """Run one artifact on this machine; an aarch64 one under qemu-user when the host is x86."""
    count = whole_number(threads, "--threads")
    import models as catalogue
    from pilite.lab import artifact as artifacts
    from pilite.lab import run as running

    default = artifacts.place(ARTIFACTS, catalogue.DEFAULT_MODEL, cpus_of((), ())[0], "ref")
    ran = running.run(Path(artifact) if artifact else default, input or ["random:0"], count, ARTIFACTS)
    show_table(str(ran.artifact.path), ran.rows())
    if output:
        running.save(ran, Path(output))
        print(output)


@verb("model", "cpu", "input")
def compare(
    c: Context,
    model: Sequence[str] = (),
    cpu: Sequence[str] = (),
    numerics: str = "ref",
    fully_connected: str = "q31",
    threads: str = "1,4",
    input: Sequence[str] = (),
    layers: bool = False,
    against: str = "",
    json: str = "",
) -> None:
    """Compare outputs with TFLite's, byte by byte; exit 1 if a promised one differs."""
    counts = whole_numbers(threads, "--threads")
    options = {"numerics": numerics, "fully_connected": fully_connected}
    cpus = cpus_of((), cpu)
    from pilite.lab import artifact, oracle
    from pilite.lab import compare as comparison

    done = []
    for source in sources(model):
        plain = {name: built(source, name, **options) for name in cpus}
        shown = {name: built(source, name, layers=True, **options) for name in cpus if layers}
        sets = comparison.cases(artifact.read(plain[cpus[0]]).inputs, SHARED_IMAGES, input)
        truths: dict[Oracle, comparison.Truth] = {}
        for name in cpus:
            judge = oracle.judge(against, numerics, fully_connected, name)
            right = truths.setdefault(judge, comparison.Truth(source.path, judge, sets, ARTIFACTS))
            pair = comparison.Built(plain[name], shown.get(name))
            done.append(comparison.compare(pair, right, counts, ARTIFACTS))
    comparison.show(done)
    if json:
        write_json(Path(json), comparison.document(done))
    comparison.verify(done)


@verb("board", "model")
def deploy(c: Context, board: Sequence[str] = (), model: Sequence[str] = (), numerics: str = "ref") -> None:
    """Put built artifacts on boards: checked and tried there, then switched to; the previous one is kept."""
    found = sources(model)
    from pilite.lab import deploy as deployment
    from pilite.lab import fleet, health

    def put(where: Board, connection: Connection, source: Source) -> dict[str, object]:
        made = deployment.built_artifact(where, source.name, ARTIFACTS, numerics)
        right = health.expected(made, source.path, ARTIFACTS)
        done = deployment.deploy(where, connection, source.name, ARTIFACTS, numerics=numerics, expected=right)
        return done.row()

    def act(where: Board, connection: Connection) -> list[dict[str, object]]:
        return [put(where, connection, source) for source in found]

    finish("Deployed", fleet.each(board or DEFAULT_BOARDS, ARTIFACTS, act))


@verb("board", "model")
def rollback(c: Context, board: Sequence[str] = (), model: Sequence[str] = ()) -> None:
    """Switch boards back to the release before the current one."""
    found = sources(model)
    from pilite.lab import deploy as deployment
    from pilite.lab import fleet

    def act(where: Board, connection: Connection) -> list[dict[str, object]]:
        return [deployment.rollback(where, connection, one.name).row() for one in found]

    finish("Rolled back", fleet.each(board or DEFAULT_BOARDS, ARTIFACTS, act))


def finish(title: str, outcome: Outcome) -> None:
    """Show what boards did; raise what the others said."""
    if outcome.rows:
        show_table(title, outcome.rows)
    outcome.raise_failures()


@verb("model")
def bench(
    c: Context,
    board: str = "local",
    model: Sequence[str] = (),
    threads: str = "1,4",
    rival: str = "tflite,litert",
    json: str = "",
) -> None:
    """Measure deployed models beside their rivals, and check every output byte in the same run."""
    counts, rivals = whole_numbers(threads, "--threads"), chosen(rival, RIVALS, "--rival")
    from pilite.lab import bench as measuring
    from pilite.lab import boards, report, trial

    where = boards.load(board, ARTIFACTS)
    subjects = [trial.Subject(source.name, source.path) for source in sources(model)]
    with boards.connect(where, ARTIFACTS) as connection:
        done = measuring.bench(
            where, connection, subjects, ARTIFACTS, threads=counts, rivals=rivals, say=print
        )
    show_table("Times", report.timing_rows(done.document))
    show_table("pilite against its rivals", report.ratio_rows(done.document))
    show_table("Outputs", report.check_rows(done.document))
    print("\n".join(report.remarks(done.document)))
    print(f"{done.folder}/result.json")
    if json:
        write_json(Path(json), done.document)
    done.verify()


@verb("model", "cpu")
def estimate(
    c: Context,
    model: Sequence[str] = (),
    cpu: Sequence[str] = (),
    rival: str = ",".join(ESTIMATED_RIVALS),
    numerics: str = "ref",
    threads: str = "1",
    layers: bool = False,
    gate: str = "",
    json: str = "",
) -> None:
    """Count instructions and model cycles on Pi cores, beside the rivals; needs no board, and is no time."""
    rivals, count = chosen(rival, ESTIMATED_RIVALS, "--rival"), whole_number(threads, "--threads")
    from pilite.lab.estimate import budgets, report
    from pilite.lab.estimate import estimate as estimating

    subjects = [
        estimating.Subject(s.name, s.path, core, built(s, core, numerics=numerics, markers=True))
        for s in sources(model)
        for core in cpu or ESTIMATED_CPUS
    ]
    rows = estimating.estimate(subjects, rivals, ARTIFACTS, threads=count, say=print)
    for row in rows if layers else ():
        show_table(f"{row.model} on {row.cpu}", report.layer_table(row))
    show_table("Estimates", report.table(rows))
    show_table("pilite against the fastest rival", report.speedups(rows))
    report.plot(rows, ARTIFACTS / "estimate" / "cycles.svg")
    if json:
        write_json(Path(json), estimating.document(rows))
    if gate:
        budgets.gate(rows, Path(gate), lower=os.environ.get("CI") != "true")


@verb()
def doctor(c: Context, json: str = "") -> None:
    """Say what this machine has and what each missing part costs; exit 1 if a required one is missing."""
    from pilite.lab import doctor as surgery

    findings = surgery.examine(surgery.Places(ROOT, SHARED_MODELS))
    show_table("What is here", [finding.row() for finding in findings])
    if json:
        write_json(Path(json), surgery.document(findings))
    missing = [finding.name for finding in findings if finding.required and not finding.found]
    if missing:
        raise CheckFailed(f"required and missing: {', '.join(missing)}; the table says what to do.")


@verb()
def ops(c: Context) -> None:
    """Print the operators that are compiled."""
    from pilite.compiler import ops as operators

    show_table("Operators", operators.table())


@verb()
def kernels(c: Context) -> None:
    """Print the kernels, in the order in which they are tried."""
    from pilite.compiler import kernels as family

    show_table("Kernels", family.table())


@verb()
def models(c: Context) -> None:
    """Print the models that have a name."""
    import models as catalogue

    show_table("Models", catalogue.table())


@verb()
def test(c: Context, fast: bool = False) -> None:
    """Run every test that this machine can; under CI=true a skip for a missing part is a failure."""
    selection = ["-m", "not slow and not docker and not qemu"] if fast else []
    if python_module("pytest", *selection) != 0:
        raise CheckFailed("tests failed.")


@verb()
def lint(c: Context) -> None:
    """Run ruff (rules and format) and mypy over the tree."""
    failed = [" ".join(check) for check in CHECKS if python_module(*check) != 0]
    if failed:
        raise CheckFailed(f"failed: {', '.join(failed)}.")


def python_module(*command: str) -> int:
    """Run `python -m COMMAND` of this environment in the checkout; the exit code."""
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    here = Namespace.from_module(sys.modules["__main__"])
    CommandLine(name="pilite", binary="run.py", namespace=here).run()
