"""doctor: finds what is there, says what a missing part costs, and never fails on a broken one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest

from pilite.lab import doctor

ROOT = Path(__file__).parents[2]
HERE = doctor.Places(ROOT, ROOT / "no such folder")


def test_every_required_part_is_here() -> None:
    required = [part for part in doctor.PARTS if part.required]
    assert {part.name: part.look(HERE).found for part in required} == {part.name: True for part in required}


@pytest.mark.parametrize("part", doctor.PARTS, ids=lambda part: part.name)
def test_every_part_says_what_was_seen_and_what_its_absence_costs(part: doctor.Part) -> None:
    assert part.look(HERE).detail
    assert part.cost


def test_a_missing_part_shows_its_cost_and_a_found_one_does_not() -> None:
    missing = doctor.Finding("docker", False, False, "no engine", "no container board").row()
    assert (missing["state"], missing["without it"]) == ("missing", "no container board")
    found = doctor.Finding("docker", False, True, "engine 20", "no container board").row()
    assert (found["state"], found["without it"]) == ("ok", "")


def test_a_required_part_is_marked_when_it_is_missing() -> None:
    assert doctor.Finding("zig", True, False, "", "no link").row()["state"] == "MISSING"


def test_an_absent_models_folder_is_missing_with_its_path() -> None:
    answer = doctor.shared_models(HERE)
    assert (answer.found, answer.detail) == (False, f"0 models in {HERE.models}")


def test_a_tool_that_does_not_exist_is_missing() -> None:
    assert doctor.output_of("no-such-tool") == doctor.Answer(False, "no no-such-tool on the PATH")


def test_a_tool_that_fails_is_missing_with_its_first_line() -> None:
    code = "import sys; print('broken\\nmore'); sys.exit(3)"
    assert doctor.output_of(sys.executable, "-c", code) == doctor.Answer(False, "broken")


def test_a_tool_that_hangs_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    assert not doctor.output_of(sys.executable, "-c", "import time; time.sleep(60)").found


def test_a_package_in_another_version_than_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(
        "numpy==0.1 ; sys_platform == 'linux' \\\n    --hash=sha256:0\n"
    )
    assert doctor.pins(doctor.Places(tmp_path, tmp_path)).detail == "not as locked: numpy"


def test_locked_reads_only_the_lines_for_this_python(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "one==1 ; python_version < '3.0' \\\n    --hash=sha256:0\none==2 ; python_version >= '3.0' \\\n"
    )
    assert doctor.locked(lock) == {"one": "2"}


def test_an_unreachable_engine_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    assert not doctor.engine(HERE).found


def test_the_document_is_what_its_schema_says() -> None:
    document = doctor.document(doctor.examine(HERE))
    jsonschema.validate(document, json.loads((ROOT / "pilite/lab/schemas/doctor-1.json").read_text()))
    assert [part["name"] for part in document["parts"]] == [part.name for part in doctor.PARTS]
