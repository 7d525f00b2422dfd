"""Operators element by element, and on images: what the door refuses, edges that random models miss."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from models.zoo.writer import TensorSpec
from pilite.compiler import aot, graph, lower, tflite
from pilite.compiler import cpu as cpus
from pilite.compiler.kernels import KERNELS, select
from pilite.compiler.numerics import Numerics
from pilite.compiler.spec import Broadcast
from tests import native
from tests.batch import check_bits, compiled
from tests.draw import OneOp
from tests.native import EVERY_CPU
from tests.refusals import AGAIN, FULL, reason
from tests.samples import SMALL, samples
from tests.small import integers, one, value, weights

WHOLE, REAL, TRUTH = (TensorSpec("x", (4,), dtype) for dtype in ("int32", "float32", "bool"))
EVERY = np.arange(256).astype(np.uint8)
BINARY: dict[str, graph.Options] = {
    **dict.fromkeys(("DIV", "MUL"), graph.Binary("NONE")),
    **dict.fromkeys(("ADD", "SUB"), graph.Add("NONE")),
}


def binary(op: str, a: TensorSpec, b: TensorSpec, y: TensorSpec) -> bytes:
    return one(op, [a, b], y, BINARY.get(op, graph.NoOptions()))


def wide(scale: float, count: int = 4) -> TensorSpec:
    return value(count, dtype="int16", scale=scale, zero_point=0)


@pytest.mark.parametrize("scale", [2.0**-13, 2.0**-12, 2.0**-11, 0.0003, 0.01])
@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_every_value_of_a_sixteen_bit_function_is_that_of_tflite(op: str, scale: float) -> None:
    values = np.arange(-(2**15), 2**15).astype(np.int16)
    model = one(op, [wide(scale, values.size)], wide(2.0**-15, values.size))

    check_bits([OneOp(op, model, [values])], native.HERE, turns={"as given": lambda x: x})


@pytest.mark.parametrize("cpu", EVERY_CPU)
@pytest.mark.parametrize("op", ["HARD_SWISH", "LEAKY_RELU", "RELU6", "TANH"])
def test_every_value_of_an_eight_bit_function_is_that_of_tflite(op: str, cpu: str) -> None:
    options = graph.LeakyRelu(0.3) if op == "LEAKY_RELU" else graph.NoOptions()
    quants = [(0.02, 128), (0.05, 3), (0.25, 255), (1.0, 100)]
    y = (1 / 128, 128) if op == "TANH" else (0.03125, 90)

    def case(x: tuple[float, int]) -> OneOp:
        tensors = [
            value(256, dtype="uint8", scale=scale, zero_point=zero, name=name)
            for name, (scale, zero) in (("x", x), ("y", y))
        ]
        return OneOp(f"{op}, {x}", one(op, tensors[:1], tensors[1], options), [EVERY])

    check_bits([case(x) for x in quants], cpu)


@pytest.mark.parametrize("scale", [2.0**-7, 0.001, 0.037, 1.0])
@pytest.mark.parametrize("op", ["EXP", "GELU", "GELU by tanh", "RSQRT"])
def test_every_value_of_a_function_that_has_a_table_is_that_of_tflite(op: str, scale: float) -> None:
    """RSQRT of values from 0 on; EXP up to e; all that saturate too."""
    x = value(256, scale=scale, zero_point=-128 if op == "RSQRT" else 127)
    options = graph.Gelu(op != "GELU") if "GELU" in op else graph.NoOptions()
    model = one(op.split()[0], [x], value(256, name="y", scale=0.0078125, zero_point=-100), options)

    check_bits([OneOp(op, model, [EVERY.view(np.int8)])], native.HERE)


def test_a_root_of_a_value_below_zero_is_that_of_zero(tmp_path: Path) -> None:
    """TFLite fails there, when a model runs."""
    model = one("RSQRT", [value(4, scale=1.0, zero_point=0)], value(4, name="y", scale=0.01, zero_point=0))
    path = compiled(tflite.parse(model, "m"), native.HERE, tmp_path / "model.so")

    (found,) = native.opened(path, native.HERE)(np.array([-128, -1, 0, 4], np.int8))

    np.testing.assert_array_equal(found, [127, 127, 127, 50])


def test_an_operand_that_broadcasts_is_not_copied() -> None:
    model = binary("MUL", value(1, 4, 4, 8), value(8, name="b"), value(1, 4, 4, 8, name="y"))
    program = lower.lower(tflite.parse(model, "m"), Numerics())

    assert not any(isinstance(stage.spec, Broadcast) for stage in program.stages)


@pytest.mark.parametrize("op", ["DIV", "FLOOR_DIV"])
def test_a_computed_divisor_of_zero_does_not_end_the_process(op: str, tmp_path: Path) -> None:
    """So does the smallest number divided by -1, whose quotient int32 cannot hold."""
    model = binary(op, WHOLE, WHOLE, WHOLE)
    path = compiled(tflite.parse(model, "m"), native.HERE, tmp_path / "model.so")
    smallest = np.iinfo(np.int32).min

    (found,) = native.opened(path, native.HERE)(
        np.array([7, -7, smallest, 7], np.int32), np.array([0, 2, -1, -2], np.int32)
    )

    np.testing.assert_array_equal(found, [7, *([-3, smallest, -3] if op == "DIV" else [-4, smallest, -4])])


@pytest.mark.parametrize("name", [name for name in cpus.names() if name.startswith("cortex")])
def test_products_of_an_interpolation_are_rounded_before_they_are_added(name: str) -> None:
    """A fused multiply-add would give other bits than TFLite on x86-64."""
    sample = next(sample for sample in samples(SMALL) if sample.name == "bilinear, float32")
    cpu = cpus.load(name)
    kernel = select(sample.spec, sample.arrays, cpu)
    function = kernel.family.emit("kernel", sample.spec, None, sample.xs, sample.y, cpu)
    text = aot.assembly([aot.Call("kernel", function, ())], cpu)

    assert kernel in KERNELS
    assert re.search(r"\tfmul\t", text)
    assert not re.search(r"\tf(n?m(add|sub)|ml[as])\t", text)


def resize(size: tuple[int, int], align_corners: bool = False, half_pixel_centers: bool = False) -> bytes:
    o = graph.Resize(align_corners, half_pixel_centers)
    return one("RESIZE_BILINEAR", [value(1, 101, 2, 1), integers(*size)], value(1, *size, 1, name="y"), o)


ARG = value(2, 3)


REFUSED = {
    "quantize to 16 bits": (
        one("QUANTIZE", [value(4)], value(4, dtype="int16", zero_point=0)),
        f"operator #0 QUANTIZE: turns int8 into int16; TFLite makes int8 or uint8; {AGAIN}",
    ),
    "nearly a power of two": (
        one("LOGISTIC", [wide(0.0002443098637741059)], wide(2.0**-15)),
        "operator #0 LOGISTIC: its input scale 0.00024431 is where machines disagree whether it is a power "
        f"of two; {AGAIN} with other data",
    ),
    "powers of two, nearly": (
        binary("SUB", wide(1.0), wide(0.5), wide(2 * 2.0**1.00100e-3)),
        "operator #0 SUB: its int16 scales 1 and 0.5 and 2.00139 are where machines disagree whether they "
        f"are powers of two; {AGAIN} with other data",
    ),
    "powers of two": (
        binary("SUB", wide(1.0), wide(0.5), wide(2.0)),
        "operator #0 SUB: its int16 scales 1 and 0.5 and 2 are powers of two, which TFLite adds as one "
        f"operand with the output's and the other with 1 to 2**-15 of it; {AGAIN}",
    ),
    "powers of two that broadcast": (
        binary("ADD", wide(1.0), wide(0.5, 1), wide(1.0)),
        "operator #0 ADD: broadcasts int16 values whose scales are powers of two, which TFLite cannot; "
        f"{AGAIN}",
    ),
    "16 bits without a scale": (
        binary("MUL", *(TensorSpec("x", (4,), "int16"),) * 3),
        f"operator #0 MUL: its int16 tensor 'x' has no scale; {FULL}",
    ),
    "scale of 16 bits": (
        one("TANH", [wide(0.1)], wide(0.1)),
        "operator #0 TANH: its output must have scale 1/32768 and zero point 0, as TFLite's kernel demands; "
        f"{AGAIN}",
    ),
    "too large for a table": (
        one("LOGISTIC", [wide(2.0)], wide(2.0**-15)),
        f"operator #0 LOGISTIC: its input scale 2 is outside of what TFLite's 16-bit table holds; {AGAIN}",
    ),
    "float function": (
        one("LOGISTIC", [REAL], REAL),
        f"operator #0 LOGISTIC: computes in float32; {FULL}",
    ),
    "scale of a function": (
        one("LOGISTIC", [value(4)], value(4, name="y")),
        "operator #0 LOGISTIC: its output must have scale 1/256 and zero point -128, "
        f"as TFLite's kernel demands; {AGAIN}",
    ),
    "mixed numbers": (
        binary("MUL", WHOLE, REAL, REAL),
        "operator #0 MUL: works on float32 and int32; operands and output must have one dtype of "
        "int8, uint8, int16, int32, float32; convert the model again",
    ),
    "no quantized kernel": (
        binary("DIV", value(4), value(4), value(4)),
        "operator #0 DIV: works on int8; operands and output must have one dtype of int32, float32; "
        "convert the model again",
    ),
    "shapes": (
        binary("MAXIMUM", value(2, 3), value(2), value(2, 3)),
        f"operator #0 MAXIMUM: its operands have shapes [2, 3] and [2]; {AGAIN}",
    ),
    "many dimensions": (
        binary("MUL", value(1, 1, 1, 1, 2), value(2), value(1, 1, 1, 1, 2, name="y")),
        "operator #0 MUL: broadcasts 5 dimensions, more than TFLite's 4; reshape its operands",
    ),
    "slope": (
        one("LEAKY_RELU", [value(4)], value(4, name="y"), graph.LeakyRelu(np.inf)),
        "operator #0 LEAKY_RELU: has the slope inf, which TFLite's fixed point cannot hold; use a finite one",
    ),
    "compared scales": (
        one("LESS", [value(4, scale=1.5), value(4)], TRUTH),
        "operator #0 LESS: compares values of scale 1.5; TFLite takes scales below 1",
    ),
    "no truth": (
        one("LESS", [value(4), value(4)], value(4, name="y")),
        f"operator #0 LESS: gives int8 instead of bool; {AGAIN}",
    ),
    "no condition": (
        one("SELECT_V2", [WHOLE, REAL, REAL], REAL),
        f"operator #0 SELECT_V2: chooses by int32 instead of bool; {AGAIN}",
    ),
    "conditions": (
        one("SELECT", [TRUTH, value(2, 4), value(2, 4)], value(2, 4, name="y")),
        f"operator #0 SELECT: its operands have shapes [4], [2, 4] and [2, 4]; {AGAIN}",
    ),
    "unsigned": (
        one("ABS", [value(4, dtype="uint8")], value(4, dtype="uint8", name="y")),
        f"operator #0 ABS: works on uint8, which TFLite's kernel refuses; {AGAIN} with int8",
    ),
    "exponential too large": (
        one("EXP", [value(4, scale=0.25)], value(4, name="y", scale=0.0001)),
        f"operator #0 EXP: its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "square too large": (
        one("SQUARED_DIFFERENCE", [value(4, scale=8.0)] * 2, value(4, name="y", scale=2.0**-6)),
        "operator #0 SQUARED_DIFFERENCE: its output scale is so small that TFLite's 32-bit arithmetic "
        f"overflows; {AGAIN}",
    ),
    "unsigned square": (
        one("SQUARED_DIFFERENCE", [value(4, dtype="uint8")] * 2, value(4, dtype="uint8", name="y")),
        f"operator #0 SQUARED_DIFFERENCE: works on uint8, which TFLite's kernel refuses; {AGAIN} with int8",
    ),
    "unsigned root": (
        one("RSQRT", [value(4, dtype="uint8")], value(4, dtype="uint8", name="y")),
        f"operator #0 RSQRT: works on uint8, which TFLite's kernel refuses; {AGAIN} with int8",
    ),
    "root too large": (
        one("RSQRT", [value(4, scale=1e-9)], value(4, name="y", scale=1e-6)),
        f"operator #0 RSQRT: its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "product too large": (
        binary("MUL", value(4, scale=8.0), value(4, scale=8.0), value(4, name="y", scale=0.0001)),
        f"operator #0 MUL: its output scale is so small that TFLite's 32-bit arithmetic overflows; {AGAIN}",
    ),
    "axis": (
        one("ARG_MAX", [ARG, integers(2)], TensorSpec("y", (2,), "int32"), graph.ArgMax("int32")),
        "operator #0 ARG_MAX: axis 2 is outside a tensor of 2 dimensions; convert the model again",
    ),
    "kind of position": (
        one("ARG_MAX", [ARG, integers(1)], TensorSpec("y", (2,), "int32"), graph.ArgMax("int64")),
        "operator #0 ARG_MAX: gives int32 where its options say int64; int32 and int64 can be compiled; "
        f"{AGAIN}",
    ),
    "both kinds of centres": (
        resize((4, 4), align_corners=True, half_pixel_centers=True),
        "operator #0 RESIZE_BILINEAR: has both align_corners and half_pixel_centers, which TFLite refuses; "
        f"{AGAIN}",
    ),
    "outside of the image": (
        resize((2000, 2)),
        "operator #0 RESIZE_BILINEAR: enlarges 101 to 2000 pixels, where TFLite reads outside of the image; "
        "resize in two steps",
    ),
    "far apart": (
        one("HARD_SWISH", [value(4, scale=1.0)], value(4, name="y", scale=0.001)),
        f"operator #0 HARD_SWISH: its scales 1 and 0.001 are too far apart for TFLite's 16 bits; {AGAIN}",
    ),
    "far apart the other way": (
        one("HARD_SWISH", [value(4, scale=0.001)], value(4, name="y", scale=10.0)),
        f"operator #0 HARD_SWISH: its scales 0.001 and 10 are too far apart for TFLite's 16 bits; {AGAIN}",
    ),
    "slopes that broadcast the values": (
        one("PRELU", [value(1), weights(3)], value(3, name="y")),
        f"operator #0 PRELU: its slopes have shape [3], which is larger than its input's [1]; {AGAIN}",
    ),
    "too many lines": (
        resize((4, 40_000)),
        "operator #0 RESIZE_BILINEAR: its new size [4, 40000] has more than 32768 lines; "
        "resize to a smaller image",
    ),
    "new size": (
        one(
            "RESIZE_BILINEAR",
            [value(1, 2, 2, 1), integers(0, 4)],
            value(1, 4, 4, 1),
            graph.Resize(False, False),
        ),
        "operator #0 RESIZE_BILINEAR: its new size [0, 4] is no positive height and width; "
        "convert the model again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_tflite_does_not_define_is_refused(case: str) -> None:
    model, text = REFUSED[case]

    assert reason(model) == text
