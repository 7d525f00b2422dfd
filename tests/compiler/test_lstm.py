"""UNIDIRECTIONAL_SEQUENCE_LSTM: its functions, what it keeps between runs, what is refused."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loader.pilite import Model
from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler import fixedpoint16, recurrent, tflite
from pilite.compiler.graph import ABSENT, Add, Lstm
from pilite.compiler.rules import HYBRID
from tests import native, one_op, oracle, recurrent_ops
from tests.batch import check_bits, compiled
from tests.draw import Draw, OneOp
from tests.recurrent_ops import Sizes
from tests.refusals import AGAIN, reason
from tests.small import edited, value

STEPS, RESET = 20, 13
FLOAT32 = 0  # TensorType
LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
CELLS_BEYOND_16 = (0, 1, 18, 26)  # models whose cells have 5 or 6 integer bits


@pytest.mark.parametrize(
    ("function", "wanted"),
    [(fixedpoint16.sigmoid, lambda x: 1 / (1 + np.exp(-x))), (fixedpoint16.tanh, np.tanh)],
    ids=["sigmoid", "tanh"],
)
@pytest.mark.parametrize("bits", range(recurrent.MOST_INTEGER_BITS + 1))
def test_functions_of_fixed_point_are_close_to_the_real_ones(function: Any, wanted: Any, bits: int) -> None:
    """Whether they are gemmlowp's bit for bit, the models below show."""
    x = fixedpoint16.EVERY_INT16 * 2.0 ** (bits - 15)
    found = function(bits) / 2**15

    assert np.abs(found - wanted(x)).max() < 0.001
    assert function(bits).min() >= fixedpoint16.INT16_MIN
    assert function(bits).max() <= fixedpoint16.INT16_MAX


@pytest.mark.parametrize("seed", CELLS_BEYOND_16)
def test_cells_that_grow_beyond_16_give_the_bytes_of_tflite(seed: int) -> None:
    """exp(-32) and less are 0 there."""
    d = Draw(np.random.default_rng(seed), "int8")

    check_bits([recurrent_ops.network(d, Sizes(1, 40, 4, 33), d.values)], native.HERE)


def interpreter(model: bytes) -> Any:
    library = importlib.import_module(oracle.TFLITE if oracle._installed(oracle.TFLITE) else oracle.LITERT)
    resolver = library.OpResolverType.BUILTIN_REF
    return library.Interpreter(model_content=model, experimental_op_resolver_type=resolver)


@pytest.mark.parametrize("seed", [3, 5, 22])
def test_the_state_is_kept_from_run_to_run_until_a_reset(seed: int, tmp_path: Path) -> None:
    case: OneOp = one_op.seeded(LSTM, "int8", seed)
    truth = interpreter(case.model)
    truth.allocate_tensors()
    (x,), (y,) = truth.get_input_details(), truth.get_output_details()
    path = compiled(tflite.parse(case.model, "m"), native.HERE, tmp_path / "model.so")
    rng, seen = np.random.default_rng(seed), []
    library = native.loader(tflite_arch()).library
    with Model(path, library=library) as model:
        for step in range(STEPS):
            if step == RESET:
                model.reset()
                truth.reset_all_variables()
            value = rng.integers(-128, 128, x["shape"]).astype(np.int8) if step % 3 else case.inputs[0]
            truth.set_tensor(x["index"], value)
            truth.invoke()
            (found,) = model.run(value)
            np.testing.assert_array_equal(found, truth.get_tensor(y["index"]))
            seen.append(found)

    np.testing.assert_array_equal(seen[0].shape, y["shape"])
    assert any((seen[0] != other).any() for other in seen[3::3])  # the same input, another state


@pytest.mark.parametrize("reset", [None, 0, 3])
def test_pilite_run_keeps_the_state_over_steps_until_a_reset(reset: int | None, tmp_path: Path) -> None:
    case: OneOp = one_op.seeded(LSTM, "int8", 5)
    path = compiled(tflite.parse(case.model, "m"), native.HERE, tmp_path / "model.so")
    files = native.loader(tflite_arch())
    np.save(tmp_path / "x.npy", case.inputs[0])
    words = ["--input", str(tmp_path / "x.npy"), "--steps", "5", "--output", str(tmp_path / "y")]
    words += [] if reset is None else ["--reset", str(reset)]
    subprocess.run([files.runner, path, *words], check=True, capture_output=True)

    with Model(path, library=files.library) as model:
        for step in range(5):
            if step == reset:
                model.reset()
            found = np.load(tmp_path / f"y.{step}.0.npy")
            np.testing.assert_array_equal(found, model.run(case.inputs[0])[0])


def tflite_arch() -> str:
    return {"x86-64-v3": "x86_64", "cortex-a53": "aarch64"}[native.HERE]


# Refusals.


def lstm(
    options: Lstm | None = None,
    cell: float = 2.0**-11,
    hidden: bool = True,
    scales: tuple[float, float] = (0.1, 0.1),
    **more: int,
) -> bytes:
    """One input, one cell; `scales` of weights and hidden value; `more` puts tensor 0 at an operand."""
    x = value(1, 2, 1, name="x")
    w = value(1, 1, name="w", scale=scales[0], zero_point=0, data=np.ones((1, 1), np.int8))
    b = TensorSpec("b", (1,), "int32", (0.1,), (0,), data=np.ones(1, np.int32))
    state = value(1, 1, name="h", is_variable=True)
    cells = TensorSpec("c", (1, 1), "int16", (cell,), (0,), is_variable=True)
    tensors = [x, w, b, state, cells, value(1, 2, 1, name="y"), value(0, name="inner", scale=scales[1])]
    operands = [0, *(1,) * 8, *(ABSENT,) * 3, *(2,) * 4, ABSENT, ABSENT, 3, 4, *(ABSENT,) * 4]
    places = {"peephole": 9, "projection": 16, "norm": 20, "input_weight": 1}
    for name, index in more.items():
        operands[places[name]] = index
    op = OpSpec(LSTM, tuple(operands), (5,), options or Lstm("TANH", 0.0, False))
    inner = (6,) * 5 if hidden else ()
    return write(tensors, [OpSpec(op.op, op.inputs, op.outputs, op.options, intermediates=inner)], [0], [5])


PLAIN = f"{AGAIN} with a plain LSTM"
REFUSED = {
    "peephole": (lstm(peephole=0), f"has peepholes, which cannot be compiled; {PLAIN}"),
    "projection": (lstm(projection=0), f"has a projection, which cannot be compiled; {PLAIN}"),
    "normalization": (lstm(norm=0), f"has layer normalization, which cannot be compiled; {PLAIN}"),
    "coupled gate": (
        lstm(input_weight=ABSENT),
        f"has no weights or bias for some gate (a coupled gate); {PLAIN}",
    ),
    "activation": (
        lstm(Lstm("RELU", 0.0, False)),
        f"has the activation RELU; TFLite's integer kernel computes TANH; {AGAIN}",
    ),
    "cell clip": (
        lstm(Lstm("TANH", -1.0, False)),
        f"clips its cells at -1, which TFLite refuses; {AGAIN}",
    ),
    "cell scale": (
        lstm(cell=0.001),
        f"its cell state has scale 0.001, no power of two that TFLite's kernel takes; {AGAIN}",
    ),
    "weights of a large scale": (
        lstm(scales=(1e9, 0.1)),
        f"its operand 1 has scale 1e+09, with which TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "hidden value of a small scale": (
        lstm(scales=(0.1, 1e-20)),
        f"its hidden value has scale 1e-20, too small for TFLite's 32-bit arithmetic; {AGAIN}",
    ),
    "hidden": (
        lstm(hidden=False),
        f"has no quantization of its hidden value (intermediate tensor 4); {AGAIN}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_is_not_plain_is_refused(case: str) -> None:
    model, text = REFUSED[case]

    assert reason(model) == f"operator #0 {LSTM}: {text}"


def test_float_values_with_8_bit_weights_say_how_to_convert() -> None:
    def real(file: Any) -> None:
        for i in (0, 3, 4, 5):  # input, states, output
            file.subgraphs[0].tensors[i].type = FLOAT32

    model = edited(lstm(), real)

    assert reason(model) == f"operator #0 {LSTM}: {HYBRID}"


def test_the_plain_network_is_accepted() -> None:
    assert tflite.parse(lstm(), "m").nodes[0].op == LSTM


def test_only_an_lstm_may_have_a_state() -> None:
    tensors = [value(4, name="x"), value(4, name="s", is_variable=True), value(4, name="y")]
    model = write(tensors, [OpSpec("ADD", (0, 1), (2,), Add("NONE"))], [0], [2])

    assert reason(model) == f"operator #0 ADD: tensor 1 's' keeps a state between runs; only {LSTM} may"
