"""The zoo: published architectures of any width and resolution, made on the spot with seeded weights.

    generate(parse("mobilenet_v2_1.0_224_uint8"))  ->  the bytes of a .tflite

Operators, shapes and options are those of the published quantized files, so times and bit-exactness mean the
same; the weights are random, so the classes mean nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from models.zoo.calibrate import fill
from models.zoo.families import FAMILIES
from models.zoo.layers import Net
from models.zoo.quantize import SCHEMES, Filled
from models.zoo.writer import OpSpec, TensorSpec, write
from pilite.compiler.graph import Quant

__all__ = ["FAMILIES", "FORM", "LARGEST", "WIDTHS", "Recipe", "forms", "generate", "parse"]

PATTERN = re.compile(r"([a-z0-9_]+?)(?:_(\d\.\d{1,2}))?_(\d{2,3})_(uint8|int8)")
FORM = "<architecture>[_<width>]_<resolution>_<uint8|int8>"
WIDTHS = (0.1, 2.0)
LARGEST = 513  # pixels of a side


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a zoo model's bytes, together with this folder's code."""

    family: str  # a name of FAMILIES
    width: float  # multiplies the channels of every layer
    resolution: int  # pixels of a side of the square RGB input
    dtype: str  # "uint8": per-tensor, asymmetric weights; "int8": per-channel, symmetric weights

    @property
    def name(self) -> str:
        always = FAMILIES[self.family].width_in_name
        width = f"_{self.width}" if always or self.width != 1.0 else ""
        return f"{self.family}{width}_{self.resolution}_{self.dtype}"

    @property
    def net(self) -> Net:
        return FAMILIES[self.family].build(self.width, self.resolution, self.dtype)


def forms() -> str:
    """What a zoo name may be, in words."""
    return (
        f"{FORM} with architecture {', '.join(FAMILIES)}; width {WIDTHS[0]} to {WIDTHS[1]} (as 0.5; 1.0 is "
        f"written for MobileNet V1 and V2 only); resolution up to {LARGEST}"
    )


def parse(name: str) -> Recipe | None:
    """The recipe of a zoo name such as mobilenet_v2_0.35_96_int8; None if it is none, or out of range."""
    found = PATTERN.fullmatch(name)
    if found is None or found[1] not in FAMILIES:
        return None
    recipe = Recipe(found[1], float(found[2] or 1), int(found[3]), found[4])
    smallest = FAMILIES[recipe.family].smallest
    inside = WIDTHS[0] <= recipe.width <= WIDTHS[1] and smallest <= recipe.resolution <= LARGEST
    return recipe if inside and recipe.name == name else None


def generate(recipe: Recipe) -> bytes:
    """The .tflite file; the same recipe gives the same bytes on every machine."""
    net = recipe.net
    filled = fill(net.layers, recipe.resolution, recipe.dtype, recipe.name)
    scheme = SCHEMES[recipe.dtype]
    side = recipe.resolution
    tensors = [
        TensorSpec("input", (1, side, side, 3), "uint8", scheme.input.scales, scheme.input.zero_points)
    ]
    tensors += [one for i, layer in enumerate(filled) for one in _activations(i, layer)]
    ops, outputs = [], iter(range(1, len(tensors)))
    for i, layer in enumerate(filled):
        constants = _constants(i, layer)
        added = range(len(tensors), len(tensors) + len(constants))
        tensors += constants
        operands = (*added[: layer.leading], *layer.layer.inputs, *added[layer.leading :])
        own = tuple(islice(outputs, 1 + len(layer.layer.more)))
        ops.append(OpSpec(layer.layer.op, operands, own, layer.layer.options))
    return write(tensors, ops, [0], net.outputs, f"pilite zoo {recipe.name}")


def _name(index: int, step: Filled) -> str:
    return f"{index:02d}_{step.layer.op.lower().removeprefix('custom:')}"


def _activations(index: int, step: Filled) -> list[TensorSpec]:
    """The first output has the layer's name."""
    quant = step.quant or Quant((), ())
    named = {_name(index, step): step.layer.shape}
    named |= {f"{_name(index, step)}:{i}": shape for i, shape in enumerate(step.layer.more, 1)}
    return [
        TensorSpec(name, shape, step.dtype, quant.scales, quant.zero_points) for name, shape in named.items()
    ]


def _constants(index: int, step: Filled) -> list[TensorSpec]:
    """Filter and bias, the number that is added or multiplied, or anchors."""
    name = _name(index, step)
    return [
        TensorSpec(
            f"{name}/{one.name}",
            one.data.shape,
            str(one.data.dtype),
            one.quant.scales,
            one.quant.zero_points,
            one.quant.axis,
            one.data,
        )
        for one in step.constants
    ]
