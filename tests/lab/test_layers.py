"""compare --layers on a model that is broken on purpose: it names the operator and both roundings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import models
from pilite import comparetasks
from pilite.compiler import isolate, pipeline, tflite
from pilite.compiler.graph import Conv2D, Graph
from pilite.compiler.numerics import FAMILIES
from pilite.errors import PiliteError
from pilite.lab import artifact, hostcpu
from tests.conftest import ROOT
from tests.native import ARTIFACTS

MODEL = "mobilenet_v2_0.1_32_uint8"


def graph() -> Graph:
    return tflite.read(models.resolve(MODEL, ARTIFACTS).path)


def linear() -> int:
    """A convolution whose negative ties can be seen."""
    nodes = (n for n in graph().nodes if isinstance(n.options, Conv2D) and n.options.activation == "NONE")
    return [node.index for node in nodes][1]


def compared(family: str, operator: int, target: Path) -> tuple[str, dict[str, Any]]:
    """What `compare` says about this operator rounded as `family`, and what it writes."""
    words = {"layers": True, "threads": "1", "rounding": [f"{operator}:{family}"], "json": str(target)}
    with pytest.raises(Exit) as caught:
        comparetasks.compare(Context(), model=[MODEL], cpu=[hostcpu.best()], **words)
    assert caught.value.code == 1
    return str(caught.value.message), json.loads(target.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ties-up", "xnnpack-rndnu"])
def test_the_broken_operator_and_both_roundings_are_named(family: str, tmp_path: Path) -> None:
    text, document = compared(family, linear(), tmp_path / "c.json")

    assert f"It starts at #{linear()} CONV_2D" in text
    wrong = [own for own in document["own"] if own["mismatches"]]
    assert [own["operator"] for own in wrong] == [linear()]
    assert family in wrong[0]["ours"]
    assert wrong[0]["theirs"] == ["gemmlowp"]
    assert "rounded as gemmlowp where this artifact has" in text
    drifted = {row["operator"] for row in document["rows"] if row["mismatches"]}
    assert min(drifted - {None}) == linear()
    assert len(drifted) > len(wrong), "later operators only repeat the error"


@pytest.mark.parametrize("text", ["12", "x:ties-up", "12:", ":ties-up"])
def test_an_exception_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(PiliteError, match="write OPERATOR:FAMILY"):
        comparetasks.exceptions([text])


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PiliteError, match=r"no rounding 'bankers': choose one of gemmlowp, .*xnnpack-rndnu"):
        pipeline.build(
            models.resolve(MODEL, ARTIFACTS).path,
            MODEL,
            hostcpu.best(),
            "ref",
            ARTIFACTS,
            rounding={0: "bankers"},
        )


# Isolated operators.


def test_isolated_operators_read_nothing_that_another_one_writes() -> None:
    whole = graph()
    alone, operands = isolate.isolated(whole, [node.index for node in whole.nodes])

    written = {i for node in alone.nodes for i in node.outputs}
    assert not written & {i for node in alone.nodes for i in node.inputs}
    assert [tensor for tensor, position in operands if position >= 0] == list(whole.inputs)
    for index, (tensor, _) in zip(alone.inputs, operands, strict=True):
        assert alone.tensors[index].shape == whole.tensors[tensor].shape
        assert alone.tensors[index].index == index


def test_groups_fit_the_runner_and_hold_every_operator_once() -> None:
    whole = graph()
    found = isolate.groups(whole, range(1_000))
    assert [i for group in found for i in group] == [node.index for node in whole.nodes]
    assert len(found) > 1
    assert all(len(isolate.isolated(whole, group)[1]) <= isolate.MAX_INPUTS for group in found)


def test_the_manifest_says_what_each_input_of_an_isolated_artifact_is() -> None:
    path = models.resolve(MODEL, ARTIFACTS).path
    (made,) = pipeline.build_isolated(
        path, [0, 3], MODEL, hostcpu.best(), "ref", ARTIFACTS, rounding={3: "xnnpack-rndnu"}
    )
    read = artifact.read(made)
    add = graph().nodes[3]
    assert [layer.operator for layer in read.layers] == [0, 3]
    assert read.operands[0].position == 0
    assert [operand.tensor for operand in read.operands[1:]] == list(add.inputs)
    assert len(read.inputs) == len(read.operands)


def test_every_family_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [family for family in FAMILIES if f"`{family}`" not in text] == []
