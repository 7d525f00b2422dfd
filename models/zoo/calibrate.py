"""Gives a model weights and quantization: draws the weights, runs drawn pictures, fits the ranges.

Layer by layer: draw the weights, compute the accumulators of all pictures, then choose weight scale, bias and
output scale so that the layer uses its 8-bit range and neither clamps nor dies on other inputs. A batch
normalization folded into a trained model has the same effect. Nothing in the file depends on the order of
additions, on the machine or on a random generator of numpy.
"""

from __future__ import annotations

import numpy as np

from models.zoo import pictures
from models.zoo.layers import Layer
from models.zoo.quantize import SCHEMES, Filled, Scheme, Value
from models.zoo.steps import STEPS

PIXELS = 4 * 224 * 224  # of all calibration pictures together: enough samples for the last, smallest layers
FEWEST_PICTURES = 4  # one of each kind


def fill(layers: tuple[Layer, ...], resolution: int, dtype: str, seed: str) -> list[Filled]:
    """Weights and quantization for every layer; the same arguments give the same numbers on any machine."""
    scheme = SCHEMES[dtype]
    values: list[Value | None] = [_input(resolution, scheme, seed)]
    filled = []
    for i, layer in enumerate(layers):
        operands = [value for value in (values[j] for j in layer.inputs) if value is not None]
        step, value = STEPS[layer.op](layer, operands, scheme, f"{seed}/{i}")
        filled.append(step)
        values += (value, *(None for _ in layer.more))
        _forget(values, layers[i + 1 :])
    return filled


def _input(resolution: int, scheme: Scheme, seed: str) -> Value:
    count = max(FEWEST_PICTURES, -(-PIXELS // resolution**2))
    drawn = pictures.draw(f"{seed}/pictures", count, resolution)
    return Value(drawn.astype(np.float32) - scheme.input.zero_point, scheme.input)


def _forget(values: list[Value | None], rest: tuple[Layer, ...]) -> None:
    """Drop what no later layer reads: all values of a 224 model together fill 100 MB."""
    needed = {j for layer in rest for j in layer.inputs}
    for j in range(len(values)):
        if j not in needed:
            values[j] = None
