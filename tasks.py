"""Every verb of pilite: check arguments, call one function, print. `python3 run.py --list` shows them.

Tasks leave their results in files below artifacts/, so `build deploy bench` equals three commands.
Exit codes: 0 done, 1 the check failed, 2 wrong use. Heavy imports are inside the task that needs them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from invoke.context import Context

from pilite.benchtasks import bench
from pilite.boardtasks import deploy, facts, onboard, rollback, stop
from pilite.commandline import CommandLine, Namespace
from pilite.comparetasks import accuracy, compare
from pilite.console import show_table, whole_number, write_json, write_text
from pilite.errors import CheckFailed
from pilite.estimatetasks import estimate, tune
from pilite.maketasks import build, release, toolchain, verify_release
from pilite.measuretasks import history, profile, regressions, report, selfcheck
from pilite.verbs import ARTIFACTS, ROOT, SHARED_MODELS, cpus_of, verb

BOARD_TASKS = (onboard, facts, deploy, rollback, stop)
COMPARE_TASKS = (compare, accuracy)
MEASURE_TASKS = (bench, history, profile, regressions, report, selfcheck)
MAKE_TASKS = (build, toolchain, release, verify_release)
ESTIMATE_TASKS = (estimate, tune)
PARALLEL = ("-n", "auto", "--dist", "loadfile")  # what a file's tests keep is made once
CHECKS = (  # what `lint` runs, in this order
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
)


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
def ops(c: Context, output: str = "") -> None:
    """Print the operators that are compiled; docs/ops.md has the same table."""
    from pilite.compiler import ops as operators

    show_table("Operators", operators.table())
    if output:
        from pilite.compiler.ops import page

        write_text(Path(output), page.page())


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
def test(c: Context, fast: bool = False, long: bool = False, faults: bool = False) -> None:
    """Run every test that this machine can; under CI=true a skip for a missing part is a failure."""
    quick = "not slow and not docker and not qemu and not long"
    selection = quick if fast else "fault" if faults else "" if long else "not long"
    page = ("--fault-page=artifacts/faults.md",) if faults else ()  # two words: a path of tests
    if python_module("pytest", *PARALLEL, "-m", selection, *page) != 0:
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
