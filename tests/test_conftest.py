"""The rule of conftest.py that CI skips nothing, tried on a small test folder with that conftest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
SKIPS = """
import pytest

@pytest.mark.parametrize("reason", ["no such part", "hardware: no such instruction"])
def test_skips(reason):
    pytest.skip(reason)

@pytest.mark.xfail(strict=True)
def test_is_known_to_fail():
    raise AssertionError
"""


def outcome(folder: Path, text: str, ci: str) -> str:
    """The closing line of pytest on one test file."""
    shutil.copy(CONFTEST, folder)
    (folder / "test_it.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "."],
        cwd=folder,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(CONFTEST.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1].split(" in ")[0]


@pytest.mark.parametrize(
    ("ci", "expected"),
    [
        pytest.param("true", "1 failed, 1 skipped, 1 xfailed", id="CI"),
        pytest.param("", "2 skipped, 1 xfailed", id="developer"),
    ],
)
def test_a_skip_fails_under_ci_unless_it_is_for_hardware(tmp_path: Path, ci: str, expected: str) -> None:
    assert outcome(tmp_path, SKIPS, ci) == expected


@pytest.mark.parametrize(("ci", "expected"), [("true", "1 error"), ("", "1 skipped")])
def test_a_skipped_file_fails_under_ci_too(tmp_path: Path, ci: str, expected: str) -> None:
    text = "import pytest\npytest.skip('no such part', allow_module_level=True)\n"
    assert outcome(tmp_path, text, ci) == expected
