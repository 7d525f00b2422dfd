"""Mutated models: one line that says why, or the bits of TFLite wherever TFLite takes the model, too.

    pytest tests/compiler/test_mutations.py --mutated-models 5000      # the full run, instead of CI's share

Number n mutates a one-operator model, whose operator and dtype are row n of tests/one_op.py, in turn; so
5,000 are 20 mutations of each row. TFLite runs in a process of its own, because some models crash it; what it
refuses or crashes on has no right answer and is only compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pilite.compiler import tflite
from pilite.compiler.graph import Graph
from pilite.errors import ModelError
from tests import one_op
from tests.batch import Array, check_bits, compiled
from tests.damage import SECONDS, time_limit
from tests.draw import Draw, OneOp
from tests.mutate import mutated
from tests.native import HERE
from tests.oracle import Worker

CI_SHARE = 480  # two of each row
FIRST = 4_000_000  # of the one-operator models, which no other test uses
MOST_ELEMENTS = 1_000_000  # of a model that is compiled; larger ones are only read
LARGEST_STEPS = 2**31  # of a float: what QUANTIZE makes of more is open in C++


@pytest.fixture(scope="module")
def numbers(request: pytest.FixtureRequest) -> range:
    return range(request.config.getoption("--mutated-models") or CI_SHARE)


def original(number: int) -> OneOp:
    op, dtype = one_op.ROWS[number % len(one_op.ROWS)]
    return one_op.seeded(op, dtype, FIRST + number)


def read(data: bytes, numerics: str) -> Graph | str:
    """The graph, or why it is refused. Anything else than ModelError, and a hang, raises."""
    with time_limit(SECONDS):
        try:
            return tflite.parse(data, "m.tflite", numerics)
        except ModelError as refusal:
            return str(refusal)


def test_a_number_stands_for_one_file() -> None:
    model = original(0).model

    assert mutated(model, 1) == mutated(model, 1)
    assert len({model, *(mutated(model, seed) for seed in range(20))}) > 10


@pytest.mark.parametrize("numerics", ["ref", "xnnpack"])
def test_a_mutated_model_is_read_or_refused_in_words(numbers: range, numerics: str) -> None:
    found = [read(mutated(original(number).model, number), numerics) for number in numbers]
    refusals = [text for text in found if isinstance(text, str)]

    assert len(numbers) // 2 < len(refusals) < len(numbers), "most mutations are wrong models, some are not"
    for text in refusals:
        assert text.startswith("m.tflite: ")
        first, *others = text.splitlines()
        assert first.endswith(" reasons:") == bool(others)
        assert len(others) <= tflite.MAX_LINES + 1
        assert max(map(len, (first, *others))) < 400


@pytest.mark.slow
def test_what_is_read_gives_the_bits_of_tflite_or_tflite_refuses_it(numbers: range, tmp_path: Path) -> None:
    cases = list(accepted(numbers))
    answers = dict(answered(cases))
    judged = [case for case in cases if case.model in answers]
    others = [tflite.parse(case.model, case.name) for case in cases if case.model not in answers]

    assert len(numbers) // 20 < len(judged)
    assert len(others) < len(cases) // 10, "what TFLite refuses is mostly refused"
    check_bits(judged, HERE, truth=lambda model, inputs: answers[model], turns={"as given": lambda x: x})
    for i, graph in enumerate(others):
        compiled(graph, HERE, tmp_path / f"{i}.so")


def accepted(numbers: range) -> Iterator[OneOp]:
    """The mutated models that ref takes, with inputs."""
    for number in numbers:
        case = original(number)
        data = mutated(case.model, number)
        graph = read(data, "ref")
        if isinstance(graph, str) or sum(tensor.elements for tensor in graph.tensors) > MOST_ELEMENTS:
            continue
        inputs = list(values(graph, case))
        if not is_open(graph, inputs):
            yield OneOp(f"mutation {number} of {case.name}", data, inputs)


def values(graph: Graph, case: OneOp) -> Iterator[Array]:
    """Those of the model before it was mutated where they still fit, such as indices; others at random."""
    spare = list(case.inputs)
    rng = np.random.default_rng(1)
    for tensor in (graph.tensors[i] for i in graph.inputs):
        wanted = tensor.shape, np.dtype(tensor.dtype)
        fitting = next((i for i, x in enumerate(spare) if (x.shape, x.dtype) == wanted), None)
        if fitting is not None:
            yield spare.pop(fitting)
        elif tensor.dtype == "bool":
            yield rng.random(tensor.shape) < 0.5
        else:
            yield Draw(rng, tensor.dtype).values(tensor.shape)


def is_open(graph: Graph, inputs: list[Array]) -> bool:
    """Whether a float becomes an integer that int32 cannot hold, which is not defined."""
    outputs = [graph.tensors[node.outputs[0]] for node in graph.nodes if node.op == "QUANTIZE"]
    scales = [y.quant.scale for y in outputs if y.quant is not None]
    reals = [float(np.abs(x).max()) for x in inputs if x.dtype == np.float32]
    return bool(scales and reals) and max(reals) / min(scales) >= LARGEST_STEPS


def answered(cases: list[OneOp]) -> Iterator[tuple[bytes, list[Array]]]:
    """What TFLite gives for those models that it takes."""
    worker = Worker()
    for case in cases:
        outputs = worker.answer(case.model, case.inputs)
        if not isinstance(outputs, str):
            yield case.model, outputs
    worker.stop()
