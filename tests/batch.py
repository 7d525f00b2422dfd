"""Many small models in one artifact: linking and loading cost more than the models themselves.

The graphs are put side by side into one graph, which goes through the ordinary pipeline. So their values share one
arena, and what one model leaves there is the garbage of the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pilite.compiler import cpu as cpus
from pilite.compiler import pipeline, tflite
from pilite.compiler.graph import ABSENT, Graph, Node, Tensor
from tests import native, oracle

Array = npt.NDArray[Any]
T = TypeVar("T")

OPTIONS = {"numerics": "ref", "fully_connected": "q31", "layers": False}
MAX_INPUTS = 64  # of pilite-run
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


def check_bits(cases: Sequence[Case], cpu: str) -> None:
    """Every case gives TFLite's bits. Fails with one line per wrong result, which says how to make it again."""
    wrong = differences(cases, cpu)
    assert not wrong, "\n".join([f"{len(wrong)} wrong results:", *wrong])


def differences(cases: Sequence[Case], cpu: str, threads: Sequence[int] = (1, 3)) -> list[str]:
    """One line per result that is not TFLite's: of each case's inputs, and of the same numbers in reverse."""
    return [line for part in _parts(cases) for line in _differences(part, cpu, threads)]


def _parts(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """As many cases together as pilite-run takes inputs."""
    part: list[Case] = []
    for case in cases:
        if sum(len(c.inputs) for c in (*part, case)) > MAX_INPUTS:
            yield part
            part = []
        part.append(case)
    yield part


def _differences(cases: Sequence[Case], cpu: str, threads: Sequence[int]) -> Iterator[str]:
    graphs = [tflite.parse(case.model, case.name) for case in cases]
    with tempfile.TemporaryDirectory() as folder:
        path = compiled(merged(graphs), cpu, Path(folder) / "model.so")
        for count in threads:
            runner = native.opened(path, cpu, count)
            for turn in (lambda x: x, _reversed):
                inputs = [[turn(x) for x in case.inputs] for case in cases]
                found = iter(runner(*(x for own in inputs for x in own)))
                for case, graph, own in zip(cases, graphs, inputs, strict=True):
                    got = [next(found) for _ in graph.outputs]
                    wrong = difference(got, oracle.tflite_ref(case.model, own))
                    if wrong:
                        yield f"{case.name} on {cpu}, {count} threads: {wrong}"


def _reversed(x: Array) -> Array:
    return x.ravel()[::-1].copy().reshape(x.shape)


def difference(got: Sequence[Array], wanted: Sequence[Array]) -> str:
    """Where the outputs differ, or "". Integers and floats are equal or wrong; there is no tolerance."""
    for i, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"output {i} is {ours.dtype}{ours.shape}, not {theirs.dtype}{theirs.shape}"
        wrong = np.argwhere(ours != theirs)
        if wrong.size:
            at = tuple(int(n) for n in wrong[0])
            return f"output {i}: {len(wrong)} of {ours.size} differ, at {at} {ours[at]} instead of {theirs[at]}"
    return ""
