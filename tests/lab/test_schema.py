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


@pytest.mark.parametrize("path", sorted(schema.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_schema_file_is_a_schema_and_says_its_name(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    name = "pilite." + path.stem.replace("-", "/")
    assert document["properties"]["schema"]["const"] == name
