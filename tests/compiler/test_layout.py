"""Addresses of elements, against numpy: a layout is a slice of a larger row-major array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilite.compiler.layout import Halo, Layout

SIDES = st.integers(0, 3)
HALOS = st.builds(Halo, SIDES, SIDES, SIDES, SIDES)
IMAGES = st.tuples(*[st.integers(1, 5)] * 4)
SHAPES = st.lists(st.integers(1, 4), max_size=6).map(tuple)


def interior(layout: Layout) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Offset of every element, found by slicing the bordered array."""
    offsets = np.arange(layout.size).reshape(layout.outer)
    if not layout.halo:
        return offsets
    _, h, w, _ = layout.shape
    return offsets[:, layout.halo.top :, layout.halo.left :][:, :h, :w]


@given(IMAGES, HALOS)
def test_start_and_strides_reach_every_element(shape: tuple[int, ...], halo: Halo) -> None:
    layout = Layout(shape, halo=halo)
    reached = layout.start + sum(
        index * stride for index, stride in zip(np.indices(shape), layout.strides, strict=True)
    )

    np.testing.assert_array_equal(reached, interior(layout))
    assert layout.elements == reached.size


@given(SHAPES)
def test_a_value_without_border_is_contiguous_in_any_rank(shape: tuple[int, ...]) -> None:
    layout = Layout(shape)

    assert (layout.start, layout.size, layout.outer) == (0, layout.elements, shape)
    assert layout.strides == tuple(s // 8 for s in np.empty(shape, np.int64).strides)


@given(SHAPES)
def test_every_value_can_be_seen_as_images(shape: tuple[int, ...]) -> None:
    seen = Layout(shape).nhwc

    assert len(seen.shape) == 4
    assert seen.elements == Layout(shape).elements
    assert seen.shape[4 - len(shape[-3:]) :] == shape[-3:]


@given(HALOS, HALOS, HALOS)
def test_the_union_of_halos_is_the_smallest_that_holds_both(a: Halo, b: Halo, c: Halo) -> None:
    def holds(outer: Halo, inner: Halo) -> bool:
        return outer | inner == outer

    assert a | b == b | a
    assert holds(a | b, a)
    assert holds(a | b, b)
    assert holds(c, a | b) == (holds(c, a) and holds(c, b))


@pytest.mark.parametrize("side", ["top", "left", "bottom", "right"])
def test_one_side_makes_a_halo(side: str) -> None:
    assert not Halo()
    assert Halo(**{side: 1})
