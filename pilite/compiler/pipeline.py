"""The table of contents of the compiler.

model.tflite -> tflite.read -> Graph -> lower (ops/: what) -> Program -> schedule (kernels/: how, per CPU)
-> aot -> link -> seal
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilite import seal
from pilite.compiler import artifact, fuse, isolate, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler.cpu import Choice, Cpu
from pilite.compiler.graph import Graph
from pilite.compiler.numerics import FAMILIES, FULLY_CONNECTED, NUMERICS, Numerics
from pilite.compiler.store import Store
from pilite.errors import CompileError, ModelError, PiliteError
from pilite.job import Compile, Job, Progress

NO_CHOICE = "default"  # a tile: not even what `tune` chose


@dataclass(frozen=True)
class Build:
    """A finished artifact. `reused`: nothing had changed, the file was left as it was.

    `cached`: it was copied from the finished builds in artifacts/builds/.
    """

    path: Path
    build_id: str
    reused: bool
    manifest: dict[str, Any]
    cached: bool = False

    @property
    def result(self) -> str:
        """In words, before the path."""
        if self.reused:
            return "nothing changed, kept"
        return "built before, copied to" if self.cached else "built"


def compile_here(job: Job, progress: Progress) -> bytes:
    """The sealed artifact, compiled by this process.

    Raises CompileError if this environment or checkout is not the one that computed the job's build_id.
    """
    target = _target(job.cpu, job.options.get("tile", ""))
    here = artifact.build_id(_sha256(job.model), job.name, target, job.options)
    if here != job.build_id:
        raise CompileError(
            f"{job.name} for {job.cpu}: this compiler has {_versions()} and its build is {here[:12]}, not "
            f"{job.build_id[:12]}: the other side has other versions or "
            f"sources. `toolchain` renews the image."
        )
    progress("read")
    graph = tflite.read(job.model, job.options["numerics"])
    return compile_graph(graph, job.name, target, job.options, job.build_id, progress)[0]


def build(
    model: Path,
    name: str,
    cpu: str,
    numerics: str,
    artifacts: Path,
    *,
    layers: bool = False,
    markers: bool = False,
    tile: str = "",
    fully_connected: str = "q31",
    rounding: Mapping[int, str] = MappingProxyType({}),
    isolated: Sequence[int] = (),
    chains: str = fuse.DEFAULT,
    progress: Progress = lambda step: None,
    compile: Compile = compile_here,
) -> Build:
    """Compile one model for one CPU into artifacts/<name>/<cpu>/<numerics>/model.so.

    `layers`: every operator's output becomes an output of the artifact (for comparisons), in
    <numerics>-layers/. Every option that is not as here has its part of the folder's name.
    `markers`: the same kernels, with marks for `estimate` between them, in <numerics>-markers/.
    `tile`: "KERNEL@ROWS" of `tuning.candidates` wherever it fits, or NO_CHOICE, for what was chosen.
    `fully_connected`: "q31" as tflite-runtime 2.14, "f64" as newer reference kernels.
    `rounding`: operators (by index) that round as another of numerics.FAMILIES, to explain or to break.
    `isolated`: only these operators, each with operands of its own as inputs (isolate.py).
    `chains`: which operators are computed together, one of fuse.MODES; others than DEFAULT in
    <numerics>-fuse-<chains>/.
    `compile`: who does the work: this process, a child, or the toolchain image.

    Raises:
        ModelError: the model is damaged or not supported.
        PiliteError: unknown CPU or numerics.
        CompileError: a tool failed.
    """
    options = _options(numerics, fully_connected, layers, markers) | _special(
        tile, rounding, isolated, chains
    )
    target = _target(cpu, tile)
    folder = artifacts / name / cpu / _folder(options)
    wanted = artifact.build_id(_sha256(model), name, target, options)
    found = artifact.reusable(folder / "model.so", wanted)
    if found is not None:
        return Build(folder / "model.so", wanted, True, found)
    store = Store(artifacts / "builds")
    with store.claim(wanted):
        stored = store.get(wanted)
        if stored is None:
            data = compile(Job(model, name, cpu, options, wanted), progress)
            manifest = _checked(data, wanted)
            store.put(wanted, data)
        else:
            data, manifest = stored
    artifact.write(folder / "model.so", data)
    return Build(folder / "model.so", wanted, False, manifest, stored is not None)


def _checked(data: bytes, wanted: str) -> dict[str, Any]:
    """The manifest of what a compilation gave. Raises CompileError if it is another build's."""
    _, manifest = seal.unseal(data)
    if manifest.get("build_id") != wanted:
        raise CompileError(f"build {wanted[:12]} was asked for and {manifest.get('build_id')} came back.")
    return manifest


def _versions() -> str:
    return ", ".join(f"{tool} {version}" for tool, version in artifact.versions().items())


def build_isolated(
    model: Path,
    operators: Sequence[int],
    name: str,
    cpu: str,
    numerics: str,
    artifacts: Path,
    *,
    rounding: Mapping[int, str],
    **options: Any,
) -> list[Path]:
    """Artifacts that hold these operators, isolated, between them; other arguments as of `build`."""
    groups = isolate.groups(tflite.read(model, numerics), operators)
    return [
        build(
            model,
            name,
            cpu,
            numerics,
            artifacts,
            isolated=group,
            rounding={i: rounding[i] for i in group if i in rounding},
            **options,
        ).path
        for group in groups
    ]


def compile_graph(
    graph: Graph,
    name: str,
    cpu: Cpu,
    options: dict[str, Any],
    build_id: str,
    progress: Progress = lambda step: None,
) -> tuple[bytes, dict[str, Any]]:
    """The sealed artifact of an accepted graph, and its manifest."""
    from pilite.compiler import (  # TVM: only a model that passed the door pays for it
        aot,
        link,
        lower,
        schedule,
    )

    graph = exposed(graph) if options["layers"] else graph
    graph, operands = isolate.isolated(graph, options.get("isolated", ()))
    progress("lower")
    numerics = Numerics(options["numerics"], FULLY_CONNECTED[options["fully_connected"]], cpu.uint8_sums)
    exceptions = {int(index): FAMILIES[family] for index, family in options.get("rounding", {}).items()}
    lowered = lower.lower(graph, numerics, exceptions)
    progress("schedule")
    scheduled = schedule.schedule(lowered, cpu, options.get("fuse", fuse.DEFAULT))
    progress("compile")
    code = aot.compile_calls(scheduled.calls, cpu, options.get("markers", False))
    progress("link")
    descriptor = link.Descriptor(
        name=name,
        build_id=build_id,
        target=f"{cpu.triple} {cpu.mcpu}",
        cpu_required=cpu.required_bits,
        inputs=tuple(artifact.end(graph.tensors[i]) for i in graph.inputs),
        outputs=tuple(artifact.end(graph.tensors[i]) for i in graph.outputs),
        arena_bytes=scheduled.arena_bytes,
        weights_bytes=len(scheduled.weights),
        state_bytes=scheduled.state_bytes,
    )
    library = link.link(code, scheduled.weights, descriptor, cpu)
    kernels = Counter(kernel for row in scheduled.rows for kernel in row.kernels)
    manifest = artifact.manifest(graph, cpu, options, descriptor, dict(sorted(kernels.items())))
    if operands:
        manifest |= {"layers": artifact.layer_rows(graph), "operands": operands}
    if options.get("markers"):
        manifest["stages"] = artifact.stage_rows(graph, scheduled.rows)
    return seal.seal(library, manifest), manifest


def explain(
    model: Path, cpu: str, numerics: str, fully_connected: str = "q31", chains: str = fuse.DEFAULT
) -> list[dict[str, str]]:
    """What `build` would compute together, one row a chain, and what it would not."""
    from pilite.compiler import lower, schedule

    fuse.check(chains)
    options = _options(numerics, fully_connected, layers=False, markers=False)
    graph = tflite.read(model, options["numerics"])
    core = cpus.load(cpu)
    rules = Numerics(options["numerics"], FULLY_CONNECTED[options["fully_connected"]], core.uint8_sums)
    verdicts = schedule.schedule(lower.lower(graph, rules), core, chains).verdicts
    return [{"operators": ", ".join(map(str, v.operators)), "how": v.how, "why": v.why} for v in verdicts]


def exposed(graph: Graph) -> Graph:
    """The same graph with every operator's output as an output, in the order of the operators."""
    return replace(graph, outputs=tuple(i for node in graph.nodes for i in node.outputs))


def _options(numerics: str, fully_connected: str, layers: bool, markers: bool) -> dict[str, Any]:
    for value, known, what in (
        (numerics, NUMERICS, "numerics"),
        (fully_connected, FULLY_CONNECTED, "fully connected variant"),
    ):
        if value not in known:
            raise PiliteError(f"no {what} '{value}': choose one of {', '.join(known)}.")
    return {
        "numerics": numerics,
        "fully_connected": fully_connected,
        "layers": layers,
        "markers": markers,
    }


def _special(tile: str, rounding: Mapping[int, str], isolated: Sequence[int], chains: str) -> dict[str, Any]:
    """Options that an ordinary build does not have."""
    fuse.check(chains)
    unknown = sorted(set(rounding.values()) - set(FAMILIES))
    if unknown:
        raise PiliteError(f"no rounding '{unknown[0]}': choose one of {', '.join(FAMILIES)}.")
    options = {
        "tile": tile,
        "rounding": {str(operator): family for operator, family in sorted(rounding.items())},
        "isolated": list(isolated),
        "fuse": "" if chains == fuse.DEFAULT else chains,
    }
    return {name: value for name, value in options.items() if value}


def _target(cpu: str, tile: str) -> Cpu:
    """The CPU; with `tile` one choice for all operators, or none at all."""
    found = cpus.load(cpu)
    if tile in ("", NO_CHOICE):
        return replace(found, choices=()) if tile else found
    kernel, _, rows = tile.partition("@")
    return found.forced(Choice(kernel, int(rows)))


def _folder(options: dict[str, Any]) -> str:
    """Options that change the bytes change the folder, so that builds do not displace each other."""
    variant = "" if options["fully_connected"] == "q31" else f"-{options['fully_connected']}"
    kinds = "".join(f"-{kind}" for kind in ("layers", "markers") if options[kind])
    tile = f"-{options['tile']}" if "tile" in options else ""
    chains = f"-fuse-{options['fuse']}" if "fuse" in options else ""
    special: dict[str, Any] = {k: options[k] for k in ("rounding", "isolated") if k in options}
    digest = f"-{hashlib.sha256(seal.canonical(special)).hexdigest()[:12]}" if special else ""
    return f"{options['numerics']}{variant}{kinds}{tile}{chains}{digest}"


def _sha256(model: Path) -> str:
    try:
        return hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"{model}: {error.strerror}. Give a .tflite file or a name of `python3 run.py models`."
        ) from error
