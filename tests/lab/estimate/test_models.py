"""The core models: LLVM's scheduling models where it has them."""

from __future__ import annotations

import shutil

import pytest

from pilite.errors import PiliteError
from pilite.lab.estimate import assembly, caches
from pilite.lab.estimate.models import A53_LLVM, A72_LLVM, MODELS, N1_LLVM, kept
from pilite.lab.roots import LOOKS

MULTIPLIES = [f"smull v{i}.8h, v30.8b, v31.8b" for i in range(16)]
DOTS = [f"sdot v{i}.4s, v30.16b, v31.16b" for i in range(16)]


@pytest.fixture(autouse=True)
def _needs_llvm() -> None:
    try:
        assembly.tool("llvm-mca")
    except PiliteError as problem:
        pytest.skip(str(problem))


def test_every_core_has_models_caches_and_looks() -> None:
    assert MODELS.keys() == caches.LEVELS.keys() == LOOKS.keys()


def test_the_a72_multiplies_once_a_cycle() -> None:
    assert 320 <= A72_LLVM.timer([MULTIPLIES * 20])[0] <= 335


def test_dot_products_run_two_a_cycle_on_the_a76() -> None:
    assert 160 <= N1_LLVM.timer([DOTS * 20])[0] <= 175


def test_answers_come_in_the_order_of_the_questions() -> None:
    short, long, empty = A53_LLVM.timer([MULTIPLIES, MULTIPLIES * 8, []])
    assert empty < short < long


def test_unknown_code_is_an_error_with_the_words_of_llvm() -> None:
    with pytest.raises(PiliteError, match=r"llvm-mca failed: .*unrecognized instruction"):
        A53_LLVM.timer([["no_such_instruction x0"]])


def test_calls_and_system_instructions_are_left_out() -> None:
    assert kept(["bl #16", "add x0, x0, #1", "ret", "isb", "blr x3", "b #8"]) == ["add x0, x0, #1", "b #8"]


def test_code_is_disassembled_block_by_block() -> None:
    found = assembly.disassemble([bytes.fromhex("1f2003d5c0035fd6"), bytes.fromhex("20c2220e")])
    assert found == [("nop", "ret"), ("smull v0.8h, v17.8b, v2.8b",)]


def test_bytes_that_are_no_code_are_refused() -> None:
    with pytest.raises(PiliteError, match="does not know every instruction"):
        assembly.disassemble([b"\xff\xff\xff\xff"])


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PiliteError, match="apt-get install llvm-19"):
        assembly.tool("llvm-mca")
