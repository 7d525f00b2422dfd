"""Damaged files: a message or a sound graph, never a traceback, a hang or a crash."""

from __future__ import annotations

import numpy as np
import pytest

from pilite.compiler import tflite
from pilite.errors import ModelError
from tests import one_op
from tests.damage import SECONDS, damaged, time_limit
from tests.graphs import assert_as_generated_accessors_read, assert_consistent
from tests.small import micro_speech, residual

SEEDS = {
    "micro_speech": micro_speech(),
    "residual": residual(),
    "conv": one_op.seeded("CONV_2D", "int8", 3).model,
    "pad": one_op.seeded("PADV2", "uint8", 3).model,
}
PER_SEED = 300


def check_outcome(data: bytes) -> bool:
    """True for a graph, False for a refusal; anything else raises."""
    with time_limit(SECONDS):
        try:
            graph = tflite.parse(data, "damaged.tflite")
        except ModelError as refused:
            text = str(refused)
        else:
            assert_consistent(graph)
            assert_as_generated_accessors_read(data, graph)
            return True
    assert text.startswith("damaged.tflite")
    assert len(text.splitlines()) <= 22
    return False


@pytest.mark.parametrize("name", SEEDS)
def test_a_damaged_file_gives_a_message_or_a_sound_graph(name: str) -> None:
    read = sum(check_outcome(damaged(SEEDS[name], seed)) for seed in range(PER_SEED))
    assert 0 < read < PER_SEED // 2, "damage that hits only weights is harmless, most is not"


def test_every_cut_of_a_file_is_refused() -> None:
    data = SEEDS["pad"]
    assert not any(check_outcome(data[:size]) for size in range(len(data)))


def test_noise_behind_a_right_header_is_refused() -> None:
    rng = np.random.default_rng(1)
    for size in range(0, 2_000, 20):
        assert not check_outcome(rng.bytes(4) + b"TFL3" + rng.bytes(size))
