"""A measurement whose client is gone: nothing of it stays on the board."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from pilite.errors import BoardError
from pilite.lab import ssh, trial
from pilite.lab.rivals import PILITE
from tests.lab.conftest import Bed
from tests.lab.faultproxy import Faults
from tests.lab.stub import Stub
from tests.lab.test_bench import QUICK, deployed
from tests.lab.test_faults import through
from tests.lab.test_measure import until

ENDLESS = replace(QUICK, least_s=1e9, most_s=1e9, total_s=600)
COUNT = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^'\"$1/\"'.*/measure.py$'"


def measuring(bed: Bed) -> bool:
    """Whether measure.py runs on the board for this bed."""
    return int(bed.connection.run(["sh", "-c", COUNT, "count", bed.root]).out) > 0


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("reset_at", marks=pytest.mark.fault("link reset during a measurement")),
        pytest.param("silent_at", marks=pytest.mark.fault("link goes silent during a measurement")),
    ],
)
def test_a_measurement_ends_with_its_link(far_bed: Bed, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "BEAT", 1.0)
    monkeypatch.setattr(trial, "SILENCE_S", 6.0)
    subject, faults, said = deployed(far_bed, Stub(1)), Faults(), ""

    def measure(bed: Bed) -> None:
        nonlocal said
        try:
            trial.run(bed.board, bed.connection, subject, [PILITE], (1,), ENDLESS, bed.artifacts)
        except BoardError as problem:
            said = str(problem)

    with through(far_bed, faults) as bad:
        client = threading.Thread(target=measure, args=(bad,), daemon=True)
        client.start()
        until(lambda: measuring(far_bed))
        setattr(faults, kind, faults.sent)
        until(lambda: not measuring(far_bed))
    client.join(60)
    assert said.startswith(f"{far_bed.board.name} (bench@127.0.0.1")
