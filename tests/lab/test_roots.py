"""The roots that rivals run in look like the boards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pilite.errors import PiliteError
from pilite.lab import roots, wheels
from pilite.lab.estimate import guests


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which Debian is already there, with one file."""

    def unpack(archive: Path, folder: Path) -> None:
        (folder / "usr").mkdir()
        (folder / "usr" / "file").write_text("x")
        (folder / "proc").mkdir()

    monkeypatch.setattr(roots, "_unpack", unpack)
    return tmp_path


@pytest.mark.parametrize(("cpu", "part"), [("cortex-a53", "0xd03"), ("cortex-a76", "0xd0b")])
def test_four_cores_of_the_part_are_there(artifacts: Path, cpu: str, part: str) -> None:
    view = roots.view(cpu, artifacts)
    text = (view / "proc/cpuinfo").read_text()
    assert text.count(f"CPU part\t: {part}") == 4
    assert ("asimddp" in text) == (cpu == "cortex-a76")
    assert (view / "sys/devices/system/cpu/cpu3/topology/core_id").read_text() == "3\n"


def test_the_rest_of_a_view_is_debian(artifacts: Path) -> None:
    assert (roots.view("cortex-a72", artifacts) / "usr/file").read_text() == "x"


def test_a_view_is_made_once(artifacts: Path) -> None:
    first = roots.view("cortex-a72", artifacts)
    (first / "proc/cpuinfo").write_text("kept")
    assert roots.view("cortex-a72", artifacts) == first
    assert (first / "proc/cpuinfo").read_text() == "kept"


def test_a_missing_mmdebstrap_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PiliteError, match="apt-get install mmdebstrap"):
        roots.view("cortex-a53", tmp_path)


def test_rivals_have_the_versions_of_the_lock() -> None:
    assert {name: rival.version for name, rival in guests.RIVALS.items()} == {
        "tflite": "2.14.0",
        "litert": "2.3.0",
        "litert-builtin": "2.3.0",
    }


def test_the_two_ways_to_run_litert_are_two_guests(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "site", lambda packages, folder: artifacts / "site-1")
    model = artifacts / "m.tflite"
    plain, builtin = (guests.rival(n, model, "cortex-a53", artifacts) for n in ("litert", "litert-builtin"))
    assert plain.settings != builtin.settings
    assert "--builtin" in builtin.command
    assert "--builtin" not in plain.command


def test_every_rival_is_a_runtime_that_has_a_wheel() -> None:
    assert {rival.runtime for rival in guests.RIVALS.values()} == wheels.RIVALS.keys()
