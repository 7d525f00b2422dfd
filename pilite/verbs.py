"""What the verbs share: their decorator, texts of options, models, builds."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.tasks import task

from pilite.commandline import failures_as_text
from pilite.console import Steps, aside
from pilite.errors import PiliteError

if TYPE_CHECKING:
    from models import Source

ROOT = Path(__file__).resolve().parents[1]
ARTIFACTS = ROOT / "artifacts"
SHARED_MODELS = Path(os.environ.get("PILITE_MODELS", ROOT.parent / "shared" / "models"))
SHARED_IMAGES = SHARED_MODELS.parent / "images"
DEFAULT_BOARDS = ("local",)
RIVALS = ("tflite", "litert")

HELP = {
    "against": "RUNTIME or RUNTIME@CPU to compare with, such as litert@cortex-a72; default: the promised one",
    "artifact": "model.so to run; default: the default model's for this machine",
    "bench": "a run's name, its folder below artifacts/bench/; repeatable; default: the newest",
    "base": "the toolchain image starts from mmdebstrap (Debian's packages) or debian (pulled by digest)",
    "board": "name or group of boards/, or all; repeatable; default: local",
    "effort": "quick (30 s a model), default, or official (600 s and 1,024 runs of every row)",
    "compare": "two runs of the history, with a comma between them",
    "cache": "build although the image is there (--no-cache)",
    "cpu": "name in toolchains/; repeatable; default: this machine's",
    "docker": "compile in the toolchain image, without network; the bytes are the same",
    "dry-run": "show which files would change, and change nothing",
    "estimated": "cycles of estimate's core models instead of time on a board; see --cpu",
    "explain": "show which operators are computed together, and why others are not",
    "export": "write the history to this .jsonl or .parquet file",
    "faults": "only what goes wrong with boards (docs/faults.md), on a vm too; writes artifacts/faults.md",
    "fast": "under two minutes: leave out tests marked slow, docker or qemu",
    "long": "also what takes minutes a test: virtual machines, the toolchain image, releases in bare Debians",
    "folder": "of the release",
    "force": "measure also a board that is throttled, hot or busy; the result says so",
    "fingerprint": "SHA256:... of the host key, read on the board's screen; without it: it is shown, no more",
    "fuse": "compute operators together: auto (default; where it saves), off, all",
    "gate": "file of budgets; fails more than 2 % above one, keeps gains except under CI=true; no rivals",
    "fully-connected": "q31 as tflite-runtime 2.14, f64 as newer reference kernels",
    "host": "address of a new board; without it, --name is one of boards/",
    "import-": "add the runs of this .jsonl or .parquet file to the history",
    "images": "folder of pictures; those in a folder LABEL below it are of that class",
    "input": "F.npy, a picture or random:SEED; repeatable, one per input of the model",
    "input-shape": "NAME=1,224,224,3: another shape of this input, also a dynamic one; repeatable",
    "jobs": "how many compilations run side by side; default: the CPUs of this machine",
    "json": "also write the result to this file; -: to standard output, and all else to standard error",
    "keep": "releases that stay on a board",
    "key": "private key file: that the board's user accepts, or that signs the release",
    "labgrid": "HOST:PORT of a labgrid coordinator that lends a board; see --tag. Builds and deploys first",
    "last": "how many of the newest rows are shown",
    "kernel": "name of `kernels` whose tiles are tried; repeatable; default: all of the CPU",
    "labels": "file with one label per line and class",
    "layers": "compare every operator's output, not only the model's",
    "limit": "only boards that match: comma-separated names, groups or patterns such as pi4-*",
    "model": "name in models/models.toml or path of a .tflite; repeatable; default: the zoo's MobileNet V2",
    "name": "what the board is to be called, or is called",
    "numerics": "whose rounding: ref (TFLite's reference kernels) or xnnpack (LiteRT's default on aarch64)",
    "page": "also write the results page to this file; without --model: of the models with a goal",
    "output": "write to this file: outputs as .npz, a report as .html, operators as .md",
    "port": "of the board's SSH server; of report --serve",
    "rebuild": "also build it again from its provenance, and compare the bytes",
    "relock": "first make docker/toolchain/packages.*.lock anew from what Debian has today",
    "rival": f"comma-separated, of {', '.join(RIVALS)}, litert-builtin; bench also tvm-stock",
    "rounds": "how often a board runs every candidate in turn; the median counts",
    "runtime": "pilite or a rival; repeatable",
    "rounding": "OPERATOR:FAMILY, such as 12:ties-up; repeatable; breaks an operator, for tests",
    "serve": "show the history, with filters, to a browser on this machine",
    "seed": "of the order of turns; default: drawn, and recorded",
    "signers": "whose signature counts: an allowed-signers file; default: artifacts/keys/allowed_signers",
    "threshold": "smallest change that counts, in percent",
    "suite": "a set of models, built and deployed first: forum (MobileNets, Inceptions, ResNet-50)",
    "tag": "KEY=VALUE that the lent place must have, such as cpu=cortex-a72; repeatable",
    "threads": "thread counts, comma-separated where several are allowed",
    "to": "folder to write; default: artifacts/release",
    "user": "who logs in there",
}


def verb(*repeatable: str) -> Callable[[Callable[..., None]], Any]:
    """Make an invoke task: long options only, each with its text of HELP, failures without a traceback."""

    def wrap(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def body(*arguments: Any, **options: Any) -> None:
            with failures_as_text(), aside(options.get("json")):
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


def sources(names: Sequence[str], input_shapes: Sequence[str] = ()) -> list[Source]:
    """The models called `names`, or the default one, with the shapes of inputs that are given."""
    import models as catalogue

    wanted = names or [catalogue.DEFAULT_MODEL]
    found = list(dict.fromkeys(catalogue.resolve(name, ARTIFACTS, SHARED_MODELS) for name in wanted))
    refuse_namesakes(found)
    shapes = shapes_of(input_shapes)
    return [with_shapes(source, shapes) for source in found] if shapes else found


def refuse_namesakes(found: Sequence[Source]) -> None:
    """Artifacts are kept by the model's name. Raises PiliteError for two files of one name."""
    of_name: dict[str, Source] = {}
    for source in found:
        first = of_name.setdefault(source.name, source)
        if first is not source:
            raise PiliteError(
                f"--model: {first.path} and {source.path} are both called '{source.name}', the name by which "
                f"artifacts are kept. Rename one of the files."
            )


def shapes_of(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """--input-shape NAME=1,224,224,3 as a table. Raises PiliteError for another form."""
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        numbers = sizes.split(",")
        if not name or not all(n.isascii() and n.isdecimal() and 0 < int(n) < 2**31 for n in numbers):
            raise PiliteError(
                f"--input-shape {text}: write NAME=SIZE,SIZE,... with sizes from 1, as in image=1,224,224,3."
            )
        shapes[name] = tuple(map(int, numbers))
    return shapes


def with_shapes(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> Source:
    """The model as a file of its own, in which these inputs have these shapes. Raises ModelError."""
    from models import store
    from pilite.compiler import resize

    data = resize.resized(source.path.read_bytes(), shapes, source.path.name)
    folder = ARTIFACTS / "models" / "resized" / hashlib.sha256(data).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    store.write(folder / f"{source.name}.tflite", data)
    return replace(source, path=folder / f"{source.name}.tflite")


def cpus_of(boards: Sequence[str], cpus: Sequence[str]) -> list[str]:
    """The CPUs asked for, by name or through a board; the local board's if nothing is asked for."""
    from pilite.lab import boards as inventory

    wanted = boards or (() if cpus else DEFAULT_BOARDS)
    return list(dict.fromkeys([*cpus, *(board.cpu for board in inventory.select(wanted, ARTIFACTS))]))


def built(source: Source, cpu: str, **options: Any) -> Path:
    """The artifact of one model for one CPU, built now if anything has changed; says which."""
    from pilite.compiler import pipeline

    with Steps(f"{source.name} for {cpu}{', every operator' if options.get('layers') else ''}") as steps:
        done = pipeline.build(
            source.path, source.name, cpu, artifacts=ARTIFACTS, progress=steps.show, **options
        )
        steps.end(f"{done.result} {done.path}")
    return done.path


def alone(source: Source, cpu: str, **options: Any) -> Path:
    """An artifact with marks between its operators, none of which is computed together with another."""
    from pilite.compiler import fuse

    return built(source, cpu, numerics="ref", markers=True, chains=fuse.OFF, **options)
