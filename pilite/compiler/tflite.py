"""Reads a .tflite file into a Graph, or says why it cannot be compiled.

    bytes -> Container    container.py: structure, through flatbuffer.py, which trusts nothing
          -> tensors      tensors.py
          -> operators    options.py
          -> Graph        checks.py, shapes.py: may it be compiled?

All reasons of a model are collected and reported in one ModelError. Whatever the bytes are, the outcome is
a Graph or a ModelError; anything else is a bug.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pilite.compiler import (
    checks,
    container,
    delegation,
    detection,
    fold,
    options,
    recurrent,
    rules,
    schema,
    shapes,
)
from pilite.compiler.container import Container, Foreign, Operator
from pilite.compiler.flatbuffer import Damaged
from pilite.compiler.graph import ABSENT, Graph, Lstm, Node, Tensor
from pilite.compiler.operands import Mismatch, Refused
from pilite.compiler.tensors import intermediate, quoted, read_tensors
from pilite.errors import ModelError

OPTIONAL_OPERANDS = (recurrent.OP,)  # whose rules say what may be left out
MAX_LINES = 20  # of a message


def read(path: Path, numerics: str = "ref") -> Graph:
    """The graph of a .tflite file whose `numerics` can be promised. Raises ModelError."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror}); give the path of a .tflite file") from None
    return parse(data, path.name, numerics)


def parse(data: bytes, name: str, numerics: str = "ref") -> Graph:
    """The graph in the bytes of a .tflite file; `name` stands for the file in messages. Raises ModelError."""
    try:
        file = container.read(data)
        graph, refusals = _graph(file, name, numerics)
        if numerics == "xnnpack" and not refusals:
            refusals = _unpromised(file, graph)
    except Foreign as e:
        raise ModelError(f"{name} {e}") from None
    except Damaged as e:
        raise ModelError(f"{name}: the file is damaged: {e}; copy or convert the model again") from None
    if refusals:
        raise ModelError(_report(name, refusals))
    return graph


@dataclass(frozen=True)
class Refusal:
    """Why a model cannot be compiled, and the operator it is about (None: the whole model)."""

    operator: Operator | None
    reason: str


def _graph(file: Container, name: str, numerics: str) -> tuple[Graph, list[Refusal]]:
    tensors, faults = read_tensors(file)
    refusals = [
        *_model_refusals(file),
        *_end_refusals(file, tensors, faults),
        *_order_refusals(file, tensors, faults),
    ]
    nodes: list[Node] = []
    shown: dict[int, Tensor] = {}  # shapes that are known, and outputs of the model all the same
    for operator in file.operators:
        if operator.op in schema.OPERATORS:
            try:
                node = read_node(file, operator, tensors, faults)
                is_output = bool({*node.outputs} & {*file.outputs})
                known = fold.folded(node, tensors) if not is_output or node.op == "SHAPE" else None
                shown |= {i: tensors[i] for i in node.outputs if is_output and known}
                nodes += [node] if is_output or not known else []
                tensors = known or tensors
            except Refused as e:
                refusals.append(Refusal(operator, str(e)))
    tensors = _sized(nodes, tuple(shown.get(t.index, t) for t in tensors))
    digest = hashlib.sha256(file.data).hexdigest()
    graph = Graph(name, tensors, tuple(nodes), file.inputs, file.outputs, digest)
    reasons = ((file.operators[node.index], checks.refusal(node, graph, numerics)) for node in nodes)
    return graph, refusals + [Refusal(operator, reason) for operator, reason in reasons if reason]


def _sized(nodes: Sequence[Node], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Converters do not know the shapes that a custom operator gives, and may leave them out."""
    for node in nodes:
        if node.op == detection.OP:
            with suppress(Mismatch):  # a rule of its own says so
                found = shapes.outputs(node, Graph("", tensors, (), (), (), ""))
                new = dict(zip(node.outputs, found, strict=False))
                tensors = tuple(t if t.shape else replace(t, shape=new.get(t.index, ())) for t in tensors)
    return tensors


def _unpromised(file: Container, graph: Graph) -> list[Refusal]:
    """What can be compiled, but not as LiteRT's default computes it."""
    pairs = [(file.operators[node.index], node) for node in graph.nodes]
    reasons = [(operator, delegation.refusal(node, graph)) for operator, node in pairs]
    computed = {i for operator in file.operators for i in operator.outputs}
    for operator, node in pairs:
        data = {*node.inputs}
        if node.op in rules.WEIGHTS_AXIS:  # XNNPACK packs weights and bias
            data = {i for i in data if i != ABSENT and not graph.tensors[i].is_constant}
        sizes = [graph.tensors[i] for i in operator.inputs if i in computed and i not in data]
        reasons.append((operator, delegation.folded_refusal(node, sizes)))
    return [Refusal(operator, reason) for operator, reason in reasons if reason]


def read_node(file: Container, operator: Operator, tensors: Sequence[Tensor], faults: dict[int, str]) -> Node:
    """One operator of the graph. Raises Refused and Damaged."""
    known = schema.OPERATORS[operator.op]
    if len(operator.inputs) not in known.operands or len(operator.outputs) not in known.outputs:
        counts = f"{len(operator.inputs)} operands and {len(operator.outputs)} outputs"
        raise Refused(f"it has {counts}, which TFLite does not define; convert the model again")
    if not 1 <= operator.version <= known.newest:
        text = f"its version {operator.version} is unknown, the newest known is {known.newest}"
        raise Refused(f"{text}; convert the model with an older converter")
    fault = next((faults[i] for i in (*operator.inputs, *operator.outputs) if i in faults), None)
    if fault:
        raise Refused(fault)
    if operator.options is not None and operator.options_type != known.options_type:
        raise Damaged(f"operator {operator} has options of another operator (type {operator.options_type})")
    operands = [None if i == ABSENT else tensors[i] for i in operator.inputs]
    y = tensors[operator.outputs[0]]
    record, data = options.read(operator.op, operator.options, operator.custom, operands, y)
    if isinstance(record, Lstm) and len(operator.intermediates) > Lstm.HIDDEN:
        record = replace(record, hidden=intermediate(file, operator.intermediates[Lstm.HIDDEN]))
    inputs = _data_operands(operator.op, tuple(operator.inputs[i] for i in data))
    empty = next((i for i in (*inputs, *operator.outputs) if i != ABSENT and not tensors[i].elements), None)
    if empty is not None:
        raise Refused(f"tensor {_show(tensors[empty])} has no values; convert the model again")
    return Node(operator.index, operator.op, inputs, operator.outputs, record)


def _data_operands(op: str, inputs: tuple[int, ...]) -> tuple[int, ...]:
    """The operands of the node: a bias is always listed, ABSENT if the model has none. Raises Refused."""
    if op in OPTIONAL_OPERANDS:
        return inputs
    required = inputs
    if op in rules.WEIGHTS_AXIS:
        inputs = (*inputs, ABSENT)[:3]
        required = inputs[:2]
    if ABSENT in required:
        raise Refused(f"its operand {required.index(ABSENT)} is missing; convert the model again")
    return inputs


# Refusals of the model as a whole.


def _model_refusals(file: Container) -> Iterator[Refusal]:
    if file.graphs > 1:
        text = f"the file has {file.graphs} graphs (control flow or several signatures); export one"
        yield Refusal(None, text)
    if not file.operators:
        yield Refusal(None, "the graph has no operators; there is nothing to compile")
    if not file.outputs:
        yield Refusal(None, "the graph has no outputs; name what it computes and convert the model again")
    unsupported: dict[str, list[str]] = {}
    for operator in file.operators:
        if operator.op not in schema.OPERATORS:
            unsupported.setdefault(operator.op, []).append(f"#{operator.index}")
    if unsupported:
        names = ", ".join(f"{op} ({_few(places)})" for op, places in unsupported.items())
        yield Refusal(None, f"unsupported operators: {names}; `python3 run.py ops` lists the supported ones")


def _end_refusals(file: Container, tensors: Sequence[Tensor], faults: dict[int, str]) -> Iterator[Refusal]:
    """Inputs come from outside and outputs from operators, each once; only the batch may be dynamic."""
    computed = {i for operator in file.operators for i in operator.outputs}
    taken = {i for operator in file.operators for i in operator.inputs}
    for i in file.inputs:
        if i in faults and i not in taken:  # otherwise the operator says so
            yield Refusal(None, f"graph input: {faults[i]}")
        if tensors[i].is_variable and i not in taken:
            yield Refusal(
                None, f"graph input: tensor {_show(tensors[i])} keeps a state between runs; remove it"
            )
        stored = file.tensors[i].numbers(schema.Tensor.shape_signature, "int32")
        signature = [] if stored is None else stored.tolist()
        where = f"graph input {_show(tensors[i])}"
        if -1 in signature[1:]:
            sizes = ",".join(map(str, tensors[i].shape))
            text = f"has the dynamic shape {signature}; give its sizes, as in `--input-shape"
            yield Refusal(None, f"{where} {text} {tensors[i].name}={sizes}`")
        if tensors[i].is_constant or file.inputs.count(i) > 1:
            yield Refusal(None, f"{where} is a constant or listed twice; remove it")
    for i in file.outputs:
        if i not in computed or file.outputs.count(i) > 1:
            where = f"graph output {_show(tensors[i])}"
            yield Refusal(None, f"{where} is an input, a constant or listed twice; remove it")


def _order_refusals(file: Container, tensors: Sequence[Tensor], faults: dict[int, str]) -> Iterator[Refusal]:
    """Every operand is an input, a constant or computed by an operator before; nothing is computed twice."""
    known = {*file.inputs, *faults, ABSENT, *(t.index for t in tensors if t.is_constant or t.is_variable)}
    computed = {i for operator in file.operators for i in operator.outputs}
    for operator in file.operators:
        for i in operator.inputs:
            if i not in known and operator.op in schema.OPERATORS:
                state = "is computed by a later operator" if i in computed else "has no data and no operator"
                yield Refusal(operator, f"its operand {_show(tensors[i])} {state}; convert the model again")
        for i in operator.outputs:
            if i in known and i not in faults:
                text = f"its output {_show(tensors[i])} has a value already; convert the model again"
                yield Refusal(operator, text)
        known.update(operator.outputs)


# Text.


def _show(tensor: Tensor) -> str:
    return f"{tensor.index} {quoted(tensor.name)}"


def _few(items: Sequence[object], most: int = 6) -> str:
    text = ", ".join(str(item) for item in items[:most])
    return text if len(items) <= most else f"{text} and {len(items) - most} more"


def _report(name: str, refusals: Sequence[Refusal]) -> str:
    """One line for one reason; otherwise a list, where operators with the same reason share a line."""
    operators: dict[str, list[Operator]] = {}
    for refusal in refusals:
        operators.setdefault(refusal.reason, []).extend([refusal.operator] if refusal.operator else [])
    lines = [_line(reason, places) for reason, places in operators.items()]
    if len(lines) == 1:
        return f"{name}: {lines[0]}"
    more = [f"and {len(lines) - MAX_LINES} more reasons"] if len(lines) > MAX_LINES else []
    return "\n  ".join([f"{name}: cannot be compiled for {len(lines)} reasons:", *lines[:MAX_LINES], *more])


def _line(reason: str, operators: Sequence[Operator]) -> str:
    if not operators:
        return reason
    return f"operator{'s' if len(operators) > 1 else ''} {_few(operators)}: {reason}"
