"""Inputs of a model: seeded random numbers, .npy files, pictures. The same numbers on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pilite.errors import PiliteError
from pilite.lab.artifact import TensorInfo

Array = npt.NDArray[Any]

RANDOM = "random:"
PICTURE = (
    "resized to the input's height and width, bilinear, RGB or grey as its channels say; a uint8 input gets "
    "the pixels 0..255 as they are, an int8 input these minus 128, a float input pixel / 255"
)
HELP = (
    f"F.npy (dtype and shape of the input), a picture ({PICTURE}), or random:SEED (uniform over the dtype; "
    "float in [-1, 1))"
)


def random_inputs(tensors: Sequence[TensorInfo], seed: int) -> list[Array]:
    """One array per input, uniform over its dtype's values; floats in [-1, 1)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return [_random(generator, tensor) for tensor in tensors]


def _random(generator: np.random.Generator, tensor: TensorInfo) -> Array:
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return (generator.random(tensor.shape, np.float32) * 2 - 1).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, tensor.shape, np.uint8).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, tensor.shape, dtype, endpoint=True)


def parse(texts: Sequence[str], tensors: Sequence[TensorInfo]) -> list[Array]:
    """Turn `--input` values into arrays, one per input of the model.

    A single random:SEED fills all inputs. Raises PiliteError for a wrong number, a file that cannot be read,
    and an array of another dtype or shape.
    """
    if len(texts) == 1 and texts[0].startswith(RANDOM):
        return random_inputs(tensors, _seed(texts[0]))
    if len(texts) != len(tensors):
        wanted = ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in tensors)
        raise PiliteError(f"{len(texts)} --input given; the model has {len(tensors)} input(s): {wanted}.")
    return [_parse(text, tensor) for text, tensor in zip(texts, tensors, strict=True)]


def _parse(text: str, tensor: TensorInfo) -> Array:
    if text.startswith(RANDOM):
        return random_inputs([tensor], _seed(text))[0]
    path = Path(text)
    if not path.is_file():
        raise PiliteError(f"--input {text}: no such file; give a .npy file, a picture or random:SEED.")
    return _array(path, tensor) if path.suffix == ".npy" else picture(path, tensor)


def _seed(text: str) -> int:
    digits = text.removeprefix(RANDOM)
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise PiliteError(f"--input {text}: the seed must be a whole number from 0 to 999999999.")
    return int(digits)


def _array(path: Path, tensor: TensorInfo) -> Array:
    try:
        read: Any = np.lib.format.read_array  # np.load would also take an .npz
        with path.open("rb") as file:
            array: Array = read(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise PiliteError(f"--input {path}: not a .npy file: {problem}") from None
    if str(array.dtype) != tensor.dtype or array.shape != tensor.shape:
        raise PiliteError(
            f"--input {path}: it is {array.dtype} {list(array.shape)}; the model's input {tensor.name} is "
            f"{tensor.dtype} {list(tensor.shape)}. Nothing is converted."
        )
    return np.ascontiguousarray(array)


def picture(path: Path, tensor: TensorInfo) -> Array:
    """A picture as the input `tensor` (1, height, width, 1 or 3), by the rule in HELP. Raises PiliteError."""
    from PIL import Image, UnidentifiedImageError

    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in (1, 3):
        raise PiliteError(
            f"--input {path}: input {tensor.name} has shape {list(tensor.shape)}: not one picture."
        )
    height, width, channels = tensor.shape[1:]
    try:
        with Image.open(path) as image:
            mode = "RGB" if channels == 3 else "L"
            pixels = np.asarray(image.convert(mode).resize((width, height), Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError) as problem:
        raise PiliteError(f"--input {path}: not a picture that can be read: {problem}") from None
    return _quantized(pixels, tensor).reshape(tensor.shape)


def _quantized(pixels: Array, tensor: TensorInfo) -> Array:
    """Pixels 0..255 as the input's dtype; pictures are meant to use the whole range of the quantized type."""
    if tensor.dtype == "uint8":
        return pixels
    if tensor.dtype == "int8":
        return (pixels.astype(np.int16) - 128).astype(np.int8)
    if tensor.dtype == "float32":
        return (pixels / 255).astype(np.float32)
    raise PiliteError(f"Input {tensor.name} is {tensor.dtype}; pictures can be uint8, int8 or float32.")
