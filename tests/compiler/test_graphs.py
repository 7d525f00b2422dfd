"""Small models of several operators, bit for bit against TFLite: who shares a value, a border or bytes?"""

from __future__ import annotations

import numpy as np
import pytest

from pilite.compiler import cpu as cpus
from tests.batch import check_bits
from tests.few_ops import (
    GRAPHS,
    Graph,
    classifier,
    diamond,
    made,
    pad_with_a_value,
    random_case,
    residual,
)
from tests.native import EVERY_CPU, HERE
from tests.one_op import DTYPES

GRAPHS_PER_CPU = 12


def test_a_few_graphs_keep_the_bits_of_tflite() -> None:
    """The quick check."""
    few = (residual, diamond, pad_with_a_value, classifier)
    check_bits([made(graph, "int8", 7) for graph in few], HERE)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.__name__)
def test_values_that_are_shared_keep_the_bits_of_tflite(graph: Graph, cpu: str) -> None:
    check_bits([made(graph, dtype, seed) for seed, dtype in enumerate(DTYPES)], cpu)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_graphs_give_the_bits_of_tflite(dtype: str, cpu: str) -> None:
    first = cpus.names().index(cpu) * GRAPHS_PER_CPU
    check_bits([random_case(dtype, first + i) for i in range(GRAPHS_PER_CPU)], cpu)


def test_random_graphs_differ_and_can_be_made_again() -> None:
    a, again, b = (random_case("int8", seed) for seed in (0, 0, 1))

    assert a.model == again.model != b.model
    np.testing.assert_array_equal(a.inputs[0], again.inputs[0])
