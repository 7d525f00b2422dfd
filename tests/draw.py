"""A one-operator model in the making: random choices, and the tensors that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from models.zoo.writer import NO_OPTIONS, OpSpec, TensorSpec, write
from pilite.compiler.graph import ABSENT, Options

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
T = TypeVar("T")

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33)
SIDES = (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17)
DEPTHS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257)
ACTIVATIONS = ("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")


@dataclass(frozen=True)
class OneOp:
    """A model and one input for each of its graph inputs; `name` tells how to make it again."""

    name: str
    model: bytes
    inputs: list[Array]


@dataclass
class Draw:
    """A model in the making: random choices, and the tensors so far."""

    rng: np.random.Generator
    dtype: str
    tensors: list[TensorSpec] = field(default_factory=list)

    # Choices.

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.rng.integers(len(items)))]

    def pair(self, items: Sequence[int]) -> tuple[int, int]:
        return self.pick(items), self.pick(items)

    def near(self, value: float, factor: float) -> float:
        """A float32 within `factor` of `value` in both directions."""
        return float(np.float32(value * factor ** self.rng.uniform(-1, 1)))

    def scale(self) -> float:
        """Between 1/512 and 1; often a power of two, which makes ties."""
        exponent = self.rng.uniform(-9, 0)
        return float(np.float32(2.0 ** (round(exponent) if self.chance(0.25) else exponent)))

    def zero_point(self, dtype: str = "") -> int:
        """16-bit values have none."""
        if (dtype or self.dtype) == "int16":
            return 0
        limits = np.iinfo(dtype or self.dtype)
        ends = (limits.min, limits.max, (limits.min + limits.max + 1) // 2)
        return self.pick(ends) if self.chance(0.3) else int(self.rng.integers(limits.min, limits.max + 1))

    @property
    def middle(self) -> int:
        return int(np.iinfo(self.dtype).max) - 127

    def centred(self, mean: float) -> int | None:
        """Often the zero point that puts `mean` (steps from the zero point) in the middle, if it exists."""
        zero_point, limits = self.middle - round(mean), np.iinfo(self.dtype)
        return zero_point if self.chance(0.6) and limits.min <= zero_point <= limits.max else None

    def values(self, shape: Shape, dtype: str = "", around: int | None = None) -> Array:
        """Full range; the two ends only; or close to `around`, so that large multipliers do not saturate."""
        if (dtype or self.dtype) == "float32":
            return self.rng.standard_normal(shape).astype(np.float32)
        limits = np.iinfo(dtype or self.dtype)
        values = self.rng.integers(limits.min, limits.max + 1, shape)
        if self.chance(0.1):
            values = np.where(values % 2 == 0, limits.min, limits.max)
        elif around is not None and self.chance(0.3):
            values = np.clip(around + self.rng.integers(-3, 4, shape), limits.min, limits.max)
        return np.asarray(values).astype(dtype or self.dtype)

    # Tensors.

    def tensor(self, shape: Shape, scales: Sequence[float] = (), zero_point: int = 0, **more: Any) -> int:
        """Add a tensor and return its index; keywords are those of TensorSpec."""
        settings = {"dtype": self.dtype, "zero_points": [zero_point] * len(scales)} | more
        self.tensors.append(TensorSpec(f"t{len(self.tensors)}", shape, scales=scales, **settings))
        return len(self.tensors) - 1

    def activation(self, shape: Shape, scale: float | None = None, zero_point: int | None = None) -> int:
        zero_point = self.zero_point() if zero_point is None else zero_point
        return self.tensor(shape, (self.scale() if scale is None else scale,), zero_point)

    def constant(self, shape: Shape, scale: float | None = None, zero_point: int | None = None) -> int:
        index = self.activation(shape, scale, zero_point)
        spec = self.tensors[index]
        self.tensors[index] = TensorSpec(
            spec.name, shape, self.dtype, spec.scales, spec.zero_points, data=self.values(shape)
        )
        return index

    def value(self, shape: Shape, like: int | None = None, dtype: str = "") -> int:
        """A tensor without data, quantized if it has 8 bits; as tensor `like`, if that is given."""
        if (dtype or self.dtype) not in ("int8", "uint8", "int16"):
            return self.tensor(shape, dtype=dtype or self.dtype)
        if like is None:
            return self.activation(shape)
        return self.activation(shape, self.tensors[like].scales[0], self.tensors[like].zero_points[0])

    def integers(self, values: object, dtype: str = "int32") -> int:
        """A constant operand: axes, sizes, indices."""
        data = np.array(values, dtype)
        return self.tensor(data.shape, dtype=dtype, data=data)

    def model(
        self, op: str, operands: Sequence[int], y: int | Sequence[int], options: Options = NO_OPTIONS
    ) -> bytes:
        outputs = (y,) if isinstance(y, int) else tuple(y)
        return write(
            self.tensors, [OpSpec(op, tuple(operands), outputs, options)], self.free(operands), outputs
        )

    def finish(
        self, op: str, operands: Sequence[int], y: int | Sequence[int], options: Options = NO_OPTIONS
    ) -> OneOp:
        """The model, and quantized inputs for those operands that have no data."""
        specs = [self.tensors[i] for i in self.free(operands)]
        inputs = [
            self.values(t.shape, t.dtype, around=int(t.zero_points[0]) if t.zero_points else None)
            for t in specs
        ]
        return OneOp(op, self.model(op, operands, y, options), inputs)

    def free(self, operands: Sequence[int]) -> list[int]:
        return [i for i in operands if i != ABSENT and self.tensors[i].data is None]

    # Sizes and options.

    def shape(self, least: int = 1, most: int = 5) -> Shape:
        """Any number of dimensions, with as many channels as vectors care about."""
        sizes = [self.pick((1, 2, 3, 4, 5, 7)) for _ in range(int(self.rng.integers(least, most + 1)))]
        return (*sizes[:-1], self.pick(CHANNELS))

    def broadcast(self, shape: Shape) -> tuple[Shape, Shape]:
        """Two shapes that broadcast to `shape`: equal, a vector of channels, one value, or ones anywhere."""
        left = tuple(1 if self.chance(0.3) else n for n in shape)
        right = tuple(n if m == 1 else self.pick((1, n)) for m, n in zip(left, shape, strict=True))
        vector, one, scalar = (shape, shape[-1:]), (shape, (1,)), (shape, ())
        return self.pick(((shape, shape), (shape, shape), vector, one, scalar, (left, right)))

    def fused(self, scale: float) -> str:
        """An activation, seldom one that leaves only a few steps of the output's range."""
        activation = self.pick(ACTIVATIONS)
        few = scale > 0.3 and activation.startswith(("RELU6", "RELU_N1"))
        return "NONE" if few and self.chance(0.8) else activation
