"""Suites: every member has all its rows, present or not; what others published stands apart."""

from __future__ import annotations

from types import SimpleNamespace

import models
from pilite.lab import suites
from pilite.lab.suites import FORUM
from tests.lab.results import measured, ratio, row


def source(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name)


def test_a_published_file_comes_before_the_zoo() -> None:
    found = suites.choose(FORUM, lambda name: True, source)
    assert [one.source.name for one in found] == [member.names[0] for member in FORUM.members]
    zoo = suites.choose(FORUM, lambda name: not name.endswith(("quant", "ptq")), source)
    assert zoo[0].source.name == "mobilenet_v1_1.0_224_uint8"


def test_the_zoo_has_every_member() -> None:
    assert all(models.zoo.parse(member.names[-1]) for member in FORUM.members)


def test_a_member_that_is_not_here_says_what_to_do() -> None:
    found = suites.choose(FORUM, lambda name: False, source)
    assert found[2].reason == ("no inception_v1_224_quant.tflite here, and the zoo has no like of it")
    assert "inception_v1_224_quant.tflite, inception_v2" in suites.missing(found)
    assert suites.missing(suites.choose(FORUM, lambda name: True, source)) == ""


def test_published_files_of_the_suite_are_known_by_name() -> None:
    assert {member.names[0] for member in FORUM.members} <= models.registry.entries().keys()


def test_the_table_has_every_row() -> None:
    here = {"mobilenet_v1_1.0_224_quant"}
    found = suites.choose(FORUM, lambda name: name in here, source)
    document = measured(1)
    about = {"model": "mobilenet_v1_1.0_224_quant", "median_ms": 7.5}
    document["rows"] = [row() | about, row() | about | {"runtime": "tflite"}]
    document["ratios"] = [ratio(model="mobilenet_v1_1.0_224_quant", speedup=2.0, ci95=[1.9, 2.1])]
    failure = {
        "model": "mobilenet_v1_1.0_224_quant",
        "runtime": "litert",
        "threads": 4,
        "reason": "no\nwheel",
    }
    document["failures"] = [failure]
    lines = suites.table(found, document, (1, 4), ("pilite", "tflite", "litert"))
    assert len(lines) == len(FORUM.members) * 2 * 3
    assert (lines[0]["median ms"], lines[1]["pilite is"]) == (7.5, "2.00 times faster (1.90 to 2.10)")
    assert lines[5]["remark"] == "no wheel"
    assert all(line["remark"] for line in lines[6:])


def test_every_published_number_belongs_to_a_member_and_has_a_source() -> None:
    titles = {member.title for member in FORUM.members}
    assert {one.title for one in FORUM.published} == titles
    assert all(line["source"] and line["ms"] > 0 for line in suites.published_rows(FORUM))
