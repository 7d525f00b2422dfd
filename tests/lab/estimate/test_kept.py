"""Results are found again by content, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pilite.errors import CheckFailed, PiliteError
from pilite.lab.estimate import assembly, kept
from pilite.lab.estimate.plugin import Guest
from tests.lab.estimate.test_plugin import guest

pytestmark = pytest.mark.qemu

CPU = "cortex-a53"


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Guest, Path]:
    """A guest, and the folder that holds its result."""
    try:
        assembly.tool("llvm-mca")
    except PiliteError as problem:
        pytest.skip(str(problem))
    folder = tmp_path_factory.mktemp("kept")
    program = guest(folder)
    kept.result(program, CPU, folder)
    return program, folder


def broken(program: Guest) -> Guest:
    """The same by content, but it cannot run."""
    return replace(program, command=("/no/such/program",))


def test_a_result_is_the_same_when_it_is_read_again(counted: tuple[Guest, Path], tmp_path: Path) -> None:
    program, folder = counted
    assert kept.result(broken(program), CPU, folder) == kept.result(program, CPU, tmp_path)


def test_other_core_models_count_anew(counted: tuple[Guest, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    program, folder = counted
    before = kept.place(program, CPU, folder)
    monkeypatch.setattr(kept, "_models", lambda: "f" * 64)
    assert kept.place(program, CPU, folder) != before
    assert not kept.place(program, CPU, folder).exists()


@pytest.mark.parametrize("change", ["settings", "file", "cpu"])
def test_another_guest_or_core_is_run(counted: tuple[Guest, Path], change: str, tmp_path: Path) -> None:
    program, folder = counted
    other = tmp_path / "guest"
    other.write_bytes(b"other")
    changed = {
        "settings": replace(broken(program), settings=("test guest", "--threads", "2")),
        "file": replace(broken(program), files=(other,)),
        "cpu": broken(program),
    }
    with pytest.raises(CheckFailed, match="test guest failed under QEMU"):
        kept.result(changed[change], "cortex-a72" if change == "cpu" else CPU, folder)
