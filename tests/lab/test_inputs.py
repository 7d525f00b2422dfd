"""Inputs: the same numbers on every machine, nothing converted silently, pictures by one stated rule."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pilite.errors import PiliteError
from pilite.lab import inputs
from pilite.lab.artifact import TensorInfo

X = TensorInfo("x", (1, 4, 4, 3), "uint8")
DTYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "bool")


def info(dtype: str, shape: tuple[int, ...] = (1, 2, 2, 3)) -> TensorInfo:
    return TensorInfo("x", shape, dtype)


def test_a_seed_means_the_same_bytes_everywhere() -> None:
    arrays = inputs.random_inputs([info(dtype, (3, 5)) for dtype in DTYPES], 7)
    assert [str(array.dtype) for array in arrays] == list(DTYPES)
    text = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert text == "cf7fc0e9326891fc39dd86552c6eaf4c65589121af1673bc03906616df560b60"


def test_random_values_reach_both_ends_of_the_dtype() -> None:
    (array,) = inputs.random_inputs([info("int8", (1, 10000))], 0)
    assert (array.min(), array.max()) == (-128, 127)
    (floats,) = inputs.random_inputs([info("float32", (1, 10000))], 0)
    assert -1 <= floats.min() < -0.99
    assert 0.99 < floats.max() < 1


def test_one_seed_fills_all_inputs_differently() -> None:
    first, second = inputs.parse(["random:3"], [X, X])
    assert (first != second).any()


@pytest.mark.parametrize("text", ["random:", "random:-1", "random:x", "random:1234567890", "random:1.5"])
def test_a_wrong_seed_is_named(text: str) -> None:
    with pytest.raises(PiliteError, match=rf"--input {text}: the seed must be a whole number"):
        inputs.parse([text], [X])


def test_a_wrong_number_of_inputs_lists_what_the_model_has() -> None:
    with pytest.raises(
        PiliteError, match=r"2 --input given; the model has 1 input\(s\): x uint8 \[1, 4, 4, 3\]"
    ):
        inputs.parse(["random:1", "random:2"], [X])


def test_an_array_of_another_dtype_or_shape_is_refused(tmp_path: Path) -> None:
    for array in (np.zeros((1, 4, 4, 3), np.int8), np.zeros((4, 4, 3), np.uint8)):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(
            PiliteError, match=r"the model's input x is uint8 \[1, 4, 4, 3\]. Nothing is conv"
        ):
            inputs.parse([str(tmp_path / "x.npy")], [X])


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"PK\x03\x04nonsense", b"\x80\x04N."])
def test_a_damaged_or_pickled_array_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(PiliteError, match=r"x\.npy: not a \.npy file"):
        inputs.parse([str(tmp_path / "x.npy")], [X])


def test_a_missing_file_is_named() -> None:
    with pytest.raises(
        PiliteError, match=r"--input no\.npy: no such file; give a \.npy file, a picture or random"
    ):
        inputs.parse(["no.npy"], [X])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Left half (10, 20, 30), right half white."""
    pixels = np.full((4, 4, 3), 255, np.uint8)
    pixels[:, :2] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.mark.parametrize(
    ("dtype", "left", "right"),
    [
        ("uint8", [10, 20, 30], [255, 255, 255]),
        ("int8", [-118, -108, -98], [127, 127, 127]),
        ("float32", np.array([10, 20, 30], np.float32) / np.float32(255), [1, 1, 1]),
    ],
)
def test_pixels_become_the_inputs_dtype_by_the_stated_rule(
    picture: Path, dtype: str, left: npt.ArrayLike, right: npt.ArrayLike
) -> None:
    (array,) = inputs.parse([str(picture)], [info(dtype, (1, 4, 4, 3))])
    assert (array.shape, str(array.dtype)) == ((1, 4, 4, 3), dtype)
    np.testing.assert_allclose(array[0, 0, 0], np.asarray(left), rtol=1e-6)
    np.testing.assert_allclose(array[0, 0, 3], np.asarray(right), rtol=1e-6)


def test_a_picture_is_resized_and_made_grey_as_the_input_asks(picture: Path) -> None:
    (array,) = inputs.parse([str(picture)], [info("uint8", (1, 8, 2, 1))])
    assert array.shape == (1, 8, 2, 1)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (1, 10)), ("uint8", (1, 4, 4, 2)), ("int32", (1, 4, 4, 3))]
)
def test_a_picture_for_an_input_that_is_none_is_refused(
    picture: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(PiliteError, match=r"not one picture|pictures can be uint8"):
        inputs.parse([str(picture)], [info(dtype, shape)])


def test_a_text_that_claims_to_be_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_text("no pixels")
    with pytest.raises(PiliteError, match=r"not a picture that can be read"):
        inputs.parse([str(tmp_path / "p.png")], [X])
