"""Many small models in one artifact: linking and loading cost more than the models themselves.

The graphs are put side by side into one graph, which goes through the ordinary pipeline. So their values
share one arena, and what one model leaves there is the garbage of the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pilite.compiler import cpu as cpus
from pilite.compiler import pipeline, tflite
from pilite.compiler.graph import ABSENT, Graph, Node, Tensor
from tests import native, oracle

Array = npt.NDArray[Any]
Truth = Callable[[bytes, Sequence[Array]], list[Array]]  # model and inputs -> outputs

OPTIONS = {"numerics": "ref", "fully_connected": "q31", "layers": False}
BUILD_ID = "0" * 64


class Case(Protocol):
    """A model with one input for each of its graph inputs; `name` tells how to make it again."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> bytes: ...

    @property
    def inputs(self) -> list[Array]: ...


def merged(graphs: Sequence[Graph]) -> Graph:
    """The graphs side by side: inputs, operators and outputs one graph after the other."""
    tensors: list[Tensor] = []
    nodes: list[Node] = []
    ends: tuple[list[int], list[int]] = ([], [])
    for graph in graphs:
        first, position = len(tensors), len(nodes)
        tensors += [replace(t, index=first + t.index) for t in graph.tensors]
        nodes += [_moved(node, first, position + i) for i, node in enumerate(graph.nodes)]
        for side, own in zip(ends, (graph.inputs, graph.outputs), strict=True):
            side.extend(first + i for i in own)
    return Graph("batch", tuple(tensors), tuple(nodes), tuple(ends[0]), tuple(ends[1]), BUILD_ID)


def _moved(node: Node, first: int, index: int) -> Node:
    inputs = tuple(i if i == ABSENT else first + i for i in node.inputs)
    return replace(node, index=index, inputs=inputs, outputs=tuple(first + i for i in node.outputs))


def compiled(graph: Graph, cpu: str, path: Path, options: dict[str, Any] = OPTIONS) -> Path:
    """The artifact of `graph`, written to `path`."""
    data, _ = pipeline.compile_graph(graph, graph.name, cpus.load(cpu), options, BUILD_ID)
    path.write_bytes(data)
    return path


# Every case is run on its inputs and on these variations of them, alone and with threads.
THREADS = (1, 3)
Turns = dict[str, Callable[[Array], Array]]
TURNS: Turns = {
    "as given": lambda x: x,
    "in reverse": lambda x: x.ravel()[::-1].copy().reshape(x.shape),
    "all lowest": lambda x: np.full_like(x, _limits(x)[0]),
    "all highest": lambda x: np.full_like(x, _limits(x)[1]),
}


def check_bits(
    cases: Sequence[Case],
    cpu: str,
    fully_connected: str = "q31",
    truth: Truth = oracle.tflite_ref,
    numerics: str = "ref",
    turns: Turns = TURNS,
) -> None:
    """Every case gives the bits of TFLite. Fails with a line per wrong result; it names the case."""
    options = {**OPTIONS, "fully_connected": fully_connected, "numerics": numerics}
    wrong = [line for part in _parts(cases) for line in _differences(part, cpu, options, truth, turns)]
    assert not wrong, "\n".join([f"{len(wrong)} wrong results:", *wrong])


def _limits(x: Array) -> tuple[Any, Any]:
    """Of an integer type; for floats, of the values that occur."""
    if x.dtype.kind == "f":
        return x.min(), x.max()
    if x.dtype.kind == "b":
        return False, True
    return np.iinfo(x.dtype).min, np.iinfo(x.dtype).max


def turned(case: Case, change: Callable[[Array], Array]) -> list[Array]:
    return [change(x) for x in case.inputs]


def _parts(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """As many cases together as pilite-run takes inputs."""
    part: list[Case] = []
    for case in cases:
        if sum(len(c.inputs) for c in (*part, case)) > native.MAX_INPUTS:
            yield part
            part = []
        part.append(case)
    yield part


def _differences(
    cases: Sequence[Case], cpu: str, options: dict[str, Any], truth: Truth, turns: Turns
) -> Iterator[str]:
    """One line per result that is not TFLite's."""
    graph = merged([tflite.parse(case.model, case.name, options["numerics"]) for case in cases])
    with tempfile.TemporaryDirectory() as folder:
        path = compiled(graph, cpu, Path(folder) / "model.so", options)
        runners = {f"{cpu}, {n} threads": native.opened(path, cpu, n) for n in THREADS}
        for turn, change in turns.items():
            inputs = [turned(case, change) for case in cases]
            wanted = [truth(case.model, own) for case, own in zip(cases, inputs, strict=True)]
            for where, run in runners.items():
                found = iter(run(*(x for own in inputs for x in own)))
                for case, outputs in zip(cases, wanted, strict=True):
                    wrong = difference([next(found) for _ in outputs], outputs)
                    if wrong:
                        yield f"{case.name}, inputs {turn}, {where}: {wrong}"


def difference(got: Sequence[Array], wanted: Sequence[Array]) -> str:
    """Where the outputs differ, or "". Integers and floats are equal or wrong; there is no tolerance."""
    for i, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"output {i} is {ours.dtype}{ours.shape}, not {theirs.dtype}{theirs.shape}"
        wrong = np.argwhere((ours != theirs) & ~((ours != ours) & (theirs != theirs)))  # NaN is NaN
        if wrong.size:
            at = tuple(int(n) for n in wrong[0])
            return (
                f"output {i}: {len(wrong)} of {ours.size} differ, at {at} {ours[at]} instead of {theirs[at]}"
            )
    return ""
