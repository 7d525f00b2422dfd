"""Efforts: what each promises, and what its table in the docstring says."""

from __future__ import annotations

import pytest

from pilite.errors import PiliteError
from pilite.lab import protocol
from pilite.lab.stats import LEAST_ROUNDS


@pytest.mark.parametrize("effort", protocol.EFFORTS.values(), ids=lambda effort: effort.effort)
def test_the_table_of_efforts_says_what_is_done(effort: protocol.Settings) -> None:
    lines = [line.split("|")[1:-1] for line in (protocol.__doc__ or "").splitlines() if line.startswith("|")]
    (cells,) = [line for line in lines if line[0].strip() == effort.effort]
    numbers = (effort.sessions, effort.least_rounds, effort.least_runs, effort.least_s, effort.most_s)
    assert [float(cell.replace(",", "")) for cell in cells[1:]] == list(numbers)
    assert effort.least_rounds >= LEAST_ROUNDS
    assert effort.total_s > effort.most_s


def test_official_is_what_mlperf_asks_of_a_single_stream() -> None:
    assert (protocol.OFFICIAL.least_runs, protocol.OFFICIAL.least_s) == (1024, 600)


def test_a_seed_is_kept_and_an_unknown_effort_refused() -> None:
    assert protocol.chosen("quick", 17).seed == 17
    with pytest.raises(PiliteError, match="--effort lazy: unknown; known: quick, default, official"):
        protocol.chosen("lazy", 1)
