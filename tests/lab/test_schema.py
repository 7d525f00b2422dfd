"""Documents are checked against the schema that they name."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pilite.lab import schema


def test_a_document_is_checked_against_the_schema_it_names() -> None:
    right = {"schema": "pilite.selfcheck/1", "repeats": []}
    assert schema.checked(right) is right
    with pytest.raises(jsonschema.ValidationError):
        schema.checked({**right, "repeats": [{"slower": -1, "ratio": {}}]})


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("ms", {"pilite/1": [[0]]}),
        ("ms", {"pilite": [[1]]}),
        ("sessions", {"pilite/1": [6]}),
        ("diary", [{}]),
    ],
)
def test_raw_samples_are_times_by_runtime_and_threads(place: str, wrong: object) -> None:
    session = {"rounds": 1, "load_ms": 1, "first_ms": 2, "cold_ms": 3, "rss_mb": 4, "settled": True}
    one = {"ms": {"pilite/1": [[1.5, 1.6]]}, "sessions": {"pilite/1": [session]}, "diary": []}
    right = {"schema": "pilite.samples/1", "models": {"m": one}}
    assert schema.checked(right) is right
    with pytest.raises(jsonschema.ValidationError):
        schema.checked({**right, "models": {"m": {**one, place: wrong}}})


@pytest.mark.parametrize("path", sorted(schema.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_schema_file_is_a_schema_and_says_its_name(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    name = "pilite." + path.stem.replace("-", "/")
    assert document["properties"]["schema"]["const"] == name
