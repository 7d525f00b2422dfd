"""JSON documents and their schemas: "pilite.NAME/VERSION" is in schemas/NAME-VERSION.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).with_name("schemas")


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """The document; raises jsonschema.ValidationError, because a wrong one is our own mistake."""
    name = str(document["schema"]).removeprefix("pilite.").replace("/", "-")
    schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    return document
