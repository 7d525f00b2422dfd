"""The in-order Cortex-A53: what was measured of the core holds for the model."""

from __future__ import annotations

import pytest

from pilite.lab.estimate.inorder import PAIRS, cycles, timing_of

MANY = 60


def per_turn(*body: str) -> float:
    """Cycles of one turn of a long unrolled loop."""
    return (cycles(body * (2 * MANY)) - cycles(body * MANY)) / MANY


def independent(template: str, count: int = 8) -> list[str]:
    """The same instruction on different registers."""
    return [template.format(d=i, s=i + 16) for i in range(count)]


def test_two_independent_integer_operations_issue_in_one_cycle() -> None:
    assert per_turn(*independent("add x{d}, x{s}, #1")) == 4


def test_a_chain_of_integer_operations_takes_a_cycle_each() -> None:
    assert per_turn("add x0, x0, #1", "add x0, x0, #1") == 2


def test_wide_vector_operations_issue_alone() -> None:
    assert per_turn(*independent("add v{d}.4s, v{s}.4s, v{s}.4s")) == 8


def test_narrow_vector_operations_issue_in_pairs() -> None:
    assert per_turn(*independent("add v{d}.2s, v{s}.2s, v{s}.2s")) == 4


@pytest.mark.parametrize("free", ["add x9, x8, #1", "ldr x9, [x8]"])
def test_an_integer_operation_or_load_is_free_after_a_wide_vector_operation(free: str) -> None:
    assert per_turn("add v0.4s, v1.4s, v2.4s", free) == per_turn("add v0.4s, v1.4s, v2.4s")


def test_a_vector_load_is_not_free_after_a_wide_vector_operation() -> None:
    assert per_turn("add v0.4s, v1.4s, v2.4s", "ldr d9, [x8]") == 2


@pytest.mark.parametrize(
    ("load", "expected"),
    [("ldr d1, [x8]", 1), ("ldr q1, [x8]", 2), ("ldp d1, d2, [x8]", 2), ("ldp q1, q2, [x8]", 4)],
)
def test_vector_loads_take_a_cycle_for_64_bits(load: str, expected: int) -> None:
    assert per_turn(load) == expected


def test_an_insert_pairs_with_a_narrow_load() -> None:
    assert cycles(["ldr d1, [x8]", "ins v3.d[1], x9"]) == 1
    assert cycles(["ldr q1, [x8]", "ins v3.d[1], x9"]) == 3


def test_a_multiply_accumulate_forwards_its_accumulator() -> None:
    assert per_turn("smlal v0.8h, v1.8b, v2.8b") == 1
    assert per_turn("sadalp v0.4s, v1.8h") == 1


def test_the_result_of_an_accumulation_is_late_for_anyone_else() -> None:
    assert cycles(["smlal v0.8h, v1.8b, v2.8b", "sadalp v3.4s, v0.8h"]) == 5


def test_a_loaded_register_can_be_used_three_cycles_later() -> None:
    assert cycles(["ldr x0, [x1]", "add x2, x0, #1"]) == 4


def test_an_updated_base_is_ready_before_the_loaded_data() -> None:
    timing = timing_of("ldr q0, [x1], #16")
    assert dict(timing.writes) == {"v0": 4, "x1": 1}


def test_a_conditional_branch_waits_for_the_flags() -> None:
    assert timing_of("b.ne #-4").reads == ("flags",)
    assert dict(timing_of("subs x0, x0, #1").writes)["flags"] == 1


def test_an_instruction_that_changes_half_a_register_reads_the_other_half() -> None:
    assert "v0" in timing_of("sqxtn2 v0.8h, v1.4s").reads
    assert "v0" not in timing_of("sqxtn v0.4h, v1.4s").reads


def test_views_of_a_register_are_one_register() -> None:
    assert timing_of("str w3, [sp, #8]").reads == ("sp", "x3")
    assert timing_of("ldp d8, d9, [x5]").writes[1][0] == timing_of("add v9.4s, v9.4s, v9.4s").writes[0][0]


def test_nothing_pairs_with_what_takes_several_cycles() -> None:
    assert per_turn("ldr q1, [x8]", "add x9, x7, #1") == 3


def test_every_pairing_names_a_slot_that_exists() -> None:
    assert set().union(*PAIRS.values()) <= set(PAIRS)
