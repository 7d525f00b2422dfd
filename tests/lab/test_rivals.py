"""The table of rivals: every entry names an adapter that there is, and a package that is locked."""

from __future__ import annotations

import pytest

from pilite.lab import rivals, worker
from pilite.lab.rivals import Rival


@pytest.mark.parametrize("rival", rivals.RIVALS.values(), ids=lambda rival: rival.name)
def test_a_rival_has_an_adapter_and_a_locked_version(rival: Rival) -> None:
    assert rival.adapter in worker.ADAPTERS
    assert rival.locked
    assert rival.label
    assert set(rival.sent) <= {rival.package}


def test_a_package_outside_the_lock_has_no_version_there() -> None:
    assert Rival("onnx", "interpreter", "onnxruntime").locked == ""
