"""What tests of `estimate` share."""

from __future__ import annotations

import pytest

from pilite.errors import PiliteError
from pilite.lab.estimate import assembly


@pytest.fixture
def llvm_mca() -> None:
    """Skips without LLVM's model of a core."""
    try:
        assembly.tool("llvm-mca")
    except PiliteError as problem:
        pytest.skip(str(problem))
