"""The verbs that make things: artifacts, the toolchain image, releases. tasks.py offers them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke.context import Context

from pilite import matrix
from pilite.console import Steps, show_table, whole_number, write_json
from pilite.errors import PiliteError
from pilite.verbs import ARTIFACTS, built, cpus_of, sources, verb

if TYPE_CHECKING:
    from models import Source
    from pilite.job import Compile, Progress
    from pilite.lab.toolchain.image import Image
    from pilite.lab.toolchain.recipe import Recipe
    from pilite.release.files import File
    from pilite.release.statements import Parameters

PI_CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")


@verb("model", "board", "cpu", "input_shape")
def build(
    c: Context,
    model: Sequence[str] = (),
    board: Sequence[str] = (),
    cpu: Sequence[str] = (),
    numerics: str = "ref",
    fully_connected: str = "q31",
    input_shape: Sequence[str] = (),
    fuse: str = "",
    explain: bool = False,
    docker: bool = False,
    base: str = "mmdebstrap",
    jobs: str = "",
) -> None:
    """Compile models into artifacts/<model>/<cpu>/<numerics>/model.so; several side by side."""
    chains = {"chains": fuse} if fuse else {}
    options = [
        {"numerics": one.strip(), "fully_connected": fully_connected, **chains} for one in numerics.split(",")
    ]
    found, cpus = sources(model, input_shape), cpus_of(board, cpu)
    for source in found if explain else ():
        for core in cpus:
            explained(source, core, options[0])
    if len(found) * len(cpus) * len(options) == 1 and not docker:
        built(found[0], cpus[0], **options[0])
        return
    build_all(found, cpus, options, compiler(docker, base), workers(jobs))


def explained(source: Source, cpu: str, options: Mapping[str, str]) -> None:
    """Print which operators are computed together and why others are not."""
    from pilite.compiler import pipeline

    rows = pipeline.explain(source.path, cpu, **options)
    title = f"{source.name} on {cpu}: operators computed together"
    show_table(title, rows or [{"operators": "none", "how": "-", "why": "nothing to gain, or not asked for"}])


def compiler(docker: bool, base: str) -> Compile:
    """Who compiles: a child process, or the toolchain image, which is made if it is missing."""
    if not docker:
        from pilite.compiler import child

        return child.compile
    from pilite.lab.toolchain import inside, recipe

    return inside.compiler(toolchain_image(recipe.read(base)), ARTIFACTS)


def build_all(
    found: Sequence[Source],
    cpus: Sequence[str],
    options: Sequence[Mapping[str, str]],
    compile: Compile,
    jobs: int,
    artifacts: Path = ARTIFACTS,
) -> dict[tuple[str, str, str], Path]:
    """Build models x CPUs x options side by side and print the table; a failure does not stop the others."""
    grid = {
        (source.name, cpu, one["numerics"]): work(source, cpu, one, compile, artifacts)
        for source in found
        for cpu in cpus
        for one in options
    }
    cells = [
        matrix.Cell(dict(zip(("model", "cpu", "numerics"), key, strict=True)), run)
        for key, run in grid.items()
    ]
    matrix.build(cells, jobs)
    show_table("Builds", matrix.table(cells))
    matrix.raise_failures(cells)
    return {key: Path(cell.result["path"]) for key, cell in zip(grid, cells, strict=True)}


def work(
    source: Source, cpu: str, options: Mapping[str, str], compile: Compile, artifacts: Path
) -> Callable[[Progress], Mapping[str, Any]]:
    """One build as a function of where its steps are reported."""
    from pilite.compiler import fuse, pipeline

    def run(progress: Progress) -> Mapping[str, Any]:
        done = pipeline.build(
            source.path,
            source.name,
            cpu,
            options["numerics"],
            artifacts,
            fully_connected=options["fully_connected"],
            chains=options.get("chains", fuse.DEFAULT),
            progress=progress,
            compile=compile,
        )
        result = f"{done.result} {os.path.relpath(done.path)}"
        size = done.path.stat().st_size
        return {"result": result, "bytes": size, "build_id": done.build_id, "path": done.path}

    return run


def workers(jobs: str) -> int:
    return whole_number(jobs, "--jobs") if jobs else len(os.sched_getaffinity(0))


@verb()
def toolchain(
    c: Context, cache: bool = True, base: str = "mmdebstrap", relock: bool = False, json: str = ""
) -> None:
    """Build the Docker image that `build --docker` compiles in, from locked packages alone."""
    from pilite.lab.toolchain import archive, image, recipe

    wanted = recipe.read(base)
    if relock:
        changed = archive.relock(wanted, ARTIFACTS / "toolchain" / "archive")
        print("\n".join(changed or ["the lock has not changed"]))
    made = toolchain_image(wanted, cache=cache)
    print(f"{made.tag} {made.id}")
    if json:
        write_json(Path(json), image.document(wanted, made))


def toolchain_image(recipe: Recipe, cache: bool = True) -> Image:
    """The image, built now unless the engine has it."""
    from pilite.lab.toolchain import image

    with Steps(f"toolchain image {recipe.tag}") as steps:
        made = image.ensure(recipe, ARTIFACTS, cache=cache, progress=steps.show)
        steps.end("is there" if made.reused else "built")
    return made


@verb("model", "cpu")
def release(
    c: Context,
    model: Sequence[str] = (),
    cpu: Sequence[str] = (),
    numerics: str = "ref",
    fully_connected: str = "q31",
    docker: bool = False,
    base: str = "mmdebstrap",
    jobs: str = "",
    key: str = "",
    to: str = "",
) -> None:
    """Make artifacts/release/: loader and models as packages, with sums, bill, provenance and signature."""
    from pilite.lab import signing
    from pilite.release import make

    found, folder = sources(model), Path(to) if to else ARTIFACTS / "release"
    make.refuse_foreign(folder)
    secret = Path(key).expanduser() if key else signing.own_keys(ARTIFACTS / "keys").key
    wanted = parameters(found, cpu or PI_CPUS, numerics, fully_connected)
    made = released(found, wanted, compiler(docker, base), workers(jobs), ARTIFACTS)
    make.write(made, secret, folder)
    for name in [*(file.name for file in made), make.SIGNATURE]:
        print(folder / name)


def parameters(
    found: Sequence[Source], cpus: Sequence[str], numerics: str, fully_connected: str
) -> Parameters:
    """What a release is made of, as its provenance says it."""
    from pilite.release import make
    from pilite.release.statements import Model, Parameters

    models = tuple(Model(source.name, make.sha256(source.path.read_bytes())) for source in found)
    rules = tuple(one.strip() for one in numerics.split(","))
    return Parameters(models, tuple(cpus), rules, fully_connected)


def released(
    found: Sequence[Source], wanted: Parameters, compile: Compile, jobs: int, artifacts: Path
) -> list[File]:
    """The files of a release, unsigned."""
    from pilite.release import make

    options = [{"numerics": one, "fully_connected": wanted.fully_connected} for one in wanted.numerics]
    built = build_all(found, wanted.cpus, options, compile, jobs, artifacts)
    with Steps("release") as steps:
        made = make.contents(wanted, built, artifacts)
        steps.end(f"{len(made)} files")
    return made


@verb("model")
def verify_release(
    c: Context,
    folder: str,
    rebuild: bool = False,
    model: Sequence[str] = (),
    signers: str = "",
    docker: bool = False,
    base: str = "mmdebstrap",
    jobs: str = "",
) -> None:
    """Check signature and sums of a release; exit 1 and name the file if anything differs."""
    from pilite.release import make, statements, verify

    allowed = Path(signers) if signers else ARTIFACTS / "keys" / "allowed_signers"
    digests = verify.verify(Path(folder), allowed)
    print(f"{folder}: signature and {len(digests)} files are what was released")
    if not rebuild:
        return
    provenance = (Path(folder) / make.PROVENANCE).read_bytes()
    wanted = statements.parameters_of(provenance, make.PROVENANCE)
    found = originals(wanted, model)
    with tempfile.TemporaryDirectory(dir=ARTIFACTS, prefix="rebuild.") as scratch:
        again = released(found, wanted, compiler(docker, base), workers(jobs), Path(scratch))
    verify.compare(digests, again)
    print(f"{folder}: built again, {len(digests)} files have the same bytes")


def originals(wanted: Parameters, given: Sequence[str]) -> list[Source]:
    """The source models of a release, by name or among those given. Raises PiliteError for another file."""
    from pilite.release import make

    by_name = {source.name: source for source in (sources(given) if given else ())}
    found = [by_name.get(model.name) or sources([model.name])[0] for model in wanted.models]
    for model, source in zip(wanted.models, found, strict=True):
        if make.sha256(source.path.read_bytes()) != model.sha256:
            raise PiliteError(
                f"{source.path} is not the {model.name} that was released (sha256 {model.sha256[:12]}...). "
                f"Give the file with --model."
            )
    return found
