"""docs/faults.md says which faults the tests make, and where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import faults

ROOT = Path(__file__).parents[1]


def test_the_page_of_faults_is_what_the_tests_make(tmp_path: Path) -> None:
    """`pytest tests/lab -m fault --collect-only --fault-page docs/faults.md` writes it."""
    page = tmp_path / "faults.md"
    words = ["-q", "-p", "no:cacheprovider", "-m", "fault", "--collect-only", "--fault-page", str(page)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/lab", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:]
    assert page.read_text() == (ROOT / "docs" / "faults.md").read_text()
    for fault in faults.INVARIANTS:
        assert f"\n| {fault} |" in page.read_text(), f"no test makes '{fault}'"


def test_results_of_all_kinds_of_boards_stand_in_one_row() -> None:
    found = {"board hangs": {"vm": "passed", "container": "failed"}}
    assert "| board hangs |  | failed | passed |" in faults.page(found)
    head, row = faults.rows(found)
    assert head.split() == ["fault", "local", "container", "vm"]
    assert row.split() == ["board", "hangs", "-", "failed", "passed"]
