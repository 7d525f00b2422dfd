"""Models that cannot be compiled as a whole, and how several reasons make one message."""

from __future__ import annotations

from typing import Any

import pytest

from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler.graph import Add, Softmax
from tests.refusals import AGAIN, FULL, assign, edit, reason
from tests.small import integers, one, value, weights


def softmax(x: TensorSpec) -> bytes:
    return one("SOFTMAX", [x], value(*x.shape, name="y", scale=1 / 256, zero_point=-128), Softmax(1.0))


def two_graphs(file: Any) -> None:
    file.subgraphs.append(file.subgraphs[0])


def loop(second: tuple[int, ...], first: tuple[int, ...] = (0,)) -> bytes:
    """Two reshapes; `first` and `second` are their operands."""
    tensors = [value(4), value(2, 2, name="a"), value(1, 4, name="b"), value(4, name="c")]
    ops = [OpSpec("RESHAPE", (*first, 4), (1,)), OpSpec("RESHAPE", (*second, 5), (2,))]
    return write([*tensors, integers(2, 2), integers(1, 4)], ops, [0], [2])


def ends(inputs: list[int], outputs: list[int]) -> bytes:
    return write(
        [value(4, name="x"), value(2, 2, name="y"), weights(4)],
        [OpSpec("RESHAPE", (0,), (1,))],
        inputs,
        outputs,
    )


MODELS = {
    "two graphs": (
        edit(two_graphs),
        "the file has 2 graphs (control flow or several signatures); export one",
    ),
    "no operators": (
        lambda: write([value(4)], [], [0], []),
        "the graph has no operators; there is nothing to compile\n"
        "the graph has no outputs; name what it computes and convert the model again",
    ),
    "dynamic size": (
        lambda: softmax(value(1, 1, 3, signature=(-1, -1, 3))),
        "graph input 0 'x' has the dynamic shape [-1, -1, 3]; give its sizes, as in `--input-shape x=1,1,3`",
    ),
    "unused input": (
        lambda: write(
            [value(4), value(2, 2), value(4, name="z", is_variable=True)],
            [OpSpec("RESHAPE", (0,), (1,))],
            [0, 2],
            [1],
        ),
        "graph input: tensor 2 'z' keeps a state between runs; remove it",
    ),
    "input twice": (lambda: ends([0, 0], [1]), "graph input 0 'x' is a constant or listed twice; remove it"),
    "constant input": (
        lambda: ends([0, 2], [1]),
        "graph input 2 'w' is a constant or listed twice; remove it",
    ),
    "output is input": (
        lambda: ends([0], [1, 0]),
        "graph output 0 'x' is an input, a constant or listed twice; remove it",
    ),
    "output is constant": (
        lambda: ends([0], [2, 1]),
        "graph output 2 'w' is an input, a constant or listed twice; remove it",
    ),
    "later operator": (
        lambda: loop(first=(2,), second=(1,)),
        f"operator #0 RESHAPE: its operand 2 'b' is computed by a later operator; {AGAIN}",
    ),
    "missing constant": (
        lambda: loop(second=(3,)),
        f"operator #1 RESHAPE: its operand 3 'c' has no data and no operator; {AGAIN}",
    ),
    "computed twice": (
        assign("operators.0.outputs", [1]),
        f"graph output 2 'y' is an input, a constant or listed twice; remove it\n"
        f"operator #0 ADD: its output 1 'b' has a value already; {AGAIN}",
    ),
    "unsupported": (
        lambda: write(
            [value(4), value(4), value(4), value(4)],
            [
                OpSpec("CUSTOM:My\nOp", (0,), (1,)),
                OpSpec("CUSTOM:Other", (1,), (2,)),
                OpSpec("CUSTOM:My\nOp", (2,), (3,)),
            ],
            [0],
            [3],
        ),
        "unsupported operators: CUSTOM:My?Op (#0, #2), CUSTOM:Other (#1); "
        "`python3 run.py ops` lists the supported ones",
    ),
    "control flow": (
        edit(lambda file: setattr(file.operatorCodes[0], "builtinCode", 119)),
        "unsupported operators: WHILE (#0); `python3 run.py ops` lists the supported ones",
    ),
    "unknown code": (
        edit(lambda file: setattr(file.operatorCodes[0], "builtinCode", 9999)),
        "unsupported operators: operator code 9999 (#0); `python3 run.py ops` lists the supported ones",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_compiled_says_why(case: str) -> None:
    make, text = MODELS[case]
    lines = [line.strip() for line in reason(make()).splitlines()]
    assert (lines if len(lines) == 1 else lines[1:]) == text.splitlines()


def test_operators_with_the_same_reason_share_a_line() -> None:
    x = TensorSpec("x", (4,), "float32")
    ops = [OpSpec("TANH", (i,), (i + 1,)) for i in range(8)]
    model = write([x] * 9, ops, [0], [8])
    assert reason(model) == (
        "operators #0 TANH, #1 TANH, #2 TANH, #3 TANH, #4 TANH, #5 TANH and 2 more: "
        f"computes in float32; {FULL}"
    )


def test_a_long_list_of_reasons_is_cut() -> None:
    tensors = [value(4, name="x"), *(value(4, name=str(i), is_variable=True) for i in range(30))]
    ops = [OpSpec("ADD", (0, i + 1), (0,), Add("NONE")) for i in range(30)]
    lines = reason(write(tensors, ops, [0], [0])).splitlines()
    assert lines[0] == "cannot be compiled for 31 reasons:"
    assert (len(lines), lines[-1].strip()) == (22, "and 11 more reasons")
