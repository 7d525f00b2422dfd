"""Operators on their own: each reads its operands from the caller instead of from the operator before.

This is how `compare --layers` tells an operator's own error from errors that it was given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pilite.compiler.graph import ABSENT, Graph, Node

MAX_INPUTS = 64  # of pilite-run


def isolated(graph: Graph, operators: Collection[int]) -> tuple[Graph, list[tuple[int, int]]]:
    """The operators with these indices side by side, and what each input is: (tensor, position among the
    model's inputs or -1). Without operators the graph itself and nothing.
    """
    if not operators:
        return graph, []
    nodes = [node for node in graph.nodes if node.index in operators]
    read = _read(graph, nodes)
    first = len(graph.tensors)
    place = {tensor: first + i for i, tensor in enumerate(read)}
    copies = tuple(replace(graph.tensors[tensor], index=place[tensor]) for tensor in read)
    moved = tuple(replace(node, inputs=tuple(place.get(i, i) for i in node.inputs)) for node in nodes)
    apart = replace(
        graph,
        tensors=graph.tensors + copies,
        nodes=moved,
        inputs=tuple(place.values()),
        outputs=tuple(i for node in nodes for i in node.outputs),
    )
    given = graph.inputs
    return apart, [(tensor, given.index(tensor) if tensor in given else -1) for tensor in read]


def groups(graph: Graph, operators: Collection[int]) -> list[tuple[int, ...]]:
    """The operators in as few groups as fit pilite-run."""
    found: list[list[Node]] = [[]]
    for node in (node for node in graph.nodes if node.index in operators):
        if len(_read(graph, [*found[-1], node])) > MAX_INPUTS:
            found.append([])
        found[-1].append(node)
    return [tuple(node.index for node in group) for group in found if group]


def _read(graph: Graph, nodes: Sequence[Node]) -> tuple[int, ...]:
    """Tensors that are computed or given and that these nodes read, each once."""
    operands = (i for node in nodes for i in node.inputs if i != ABSENT)
    return tuple(dict.fromkeys(i for i in operands if not graph.tensors[i].is_constant))
