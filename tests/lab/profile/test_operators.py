"""What operators have to do: multiply-accumulates and bytes, against the zoo's own counts and by hand."""

from __future__ import annotations

from pathlib import Path

from models import zoo
from pilite.lab.profile import operators


def test_a_mobilenet_has_the_macs_of_its_layers(tmp_path: Path) -> None:
    recipe = zoo.parse("mobilenet_v2_0.35_96_uint8")
    assert recipe is not None
    path = tmp_path / "model.tflite"
    path.write_bytes(zoo.generate(recipe))
    found = operators.work(path)
    assert [(one.op, one.macs) for one in found] == [(layer.op, layer.macs) for layer in recipe.net.layers]
    assert [one.index for one in found] == list(range(len(recipe.net.layers)))


def test_bytes_are_inputs_weights_and_outputs_once(tmp_path: Path) -> None:
    recipe = zoo.parse("mobilenet_v1_0.1_32_uint8")
    assert recipe is not None
    path = tmp_path / "model.tflite"
    path.write_bytes(zoo.generate(recipe))
    first = operators.work(path)[0]  # 3x3 convolution, stride 2, 3 to 8 channels, int32 bias
    assert first.bytes == 32 * 32 * 3 + 8 * 3 * 3 * 3 + 4 * 8 + 16 * 16 * 8


def test_macs_of_other_operators() -> None:
    assert operators.MACS["FULLY_CONNECTED"]([(1, 10), (5, 10)], [(1, 5)]) == 50
    transposed = [(4,), (8, 2, 2, 3), (1, 7, 7, 3)]
    assert operators.MACS["TRANSPOSE_CONV"](transposed, [(1, 14, 14, 8)]) == 7 * 7 * 3 * 8 * 2 * 2
