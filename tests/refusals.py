"""The text of a refusal, and models that are broken in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pilite.compiler import tflite
from pilite.compiler.graph import Add
from pilite.errors import ModelError
from tests.small import edited, one, value

AGAIN = "convert the model again"
FULL = "convert the model again with full-integer quantization (8-bit weights and activations)"


def reason(data: bytes) -> str:
    """The message without the file's name."""
    with pytest.raises(ModelError) as refused:
        tflite.parse(data, "m.tflite")
    return str(refused.value).removeprefix("m.tflite").removeprefix(": ")


def add(**changes: Any) -> bytes:
    return one("ADD", [value(4), value(4, name="b")], replace(value(4, name="y"), **changes), Add("NONE"))


def edit(change: Callable[[Any], None]) -> Callable[[], bytes]:
    return lambda: edited(add(), change)


def assign(path: str, new: Any) -> Callable[[], bytes]:
    """The model with one attribute of the object form of its first graph changed."""

    def change(file: Any) -> None:
        *parents, last = path.split(".")
        place = file.subgraphs[0]
        for name in parents:
            place = place[int(name)] if name.isdigit() else getattr(place, name)
        setattr(place, last, new)

    return edit(change)
