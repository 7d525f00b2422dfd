"""Plots: places on the axis, every run that is inside it, the same shapes for the same runs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pilite.lab.page import charts


def test_an_axis_shows_nearly_all_runs_and_has_few_round_ticks() -> None:
    scale = charts.scale_of([np.linspace(0.9, 40, 1000), np.linspace(10, 20, 10)])
    assert scale.start < 0.9
    assert 39 < scale.end < 42
    assert [tick["text"] for tick in scale.ticks] == ["1", "2", "5", "10", "20"]
    assert [tick["at"] for tick in scale.ticks] == sorted(tick["at"] for tick in scale.ticks)


def test_a_wide_axis_has_no_more_ticks_than_fit() -> None:
    assert len(charts.Scale(0.001, 10_000).ticks) <= charts.TICKS


def test_places_are_logarithmic() -> None:
    scale = charts.Scale(1.0, 100.0)
    np.testing.assert_allclose(scale.x(np.asarray([1.0, 10.0, 100.0, 0.5])), [0, 500, 1000, 0])


def test_every_run_inside_the_axis_is_a_dot() -> None:
    ms = np.asarray([1.0, 2.0, 3.0, 200.0])
    path = charts.dots(ms, charts.Scale(1.0, 100.0))
    assert len(re.findall(r"M[\d.]+ [\d.]+h0", path)) == 3
    assert path == charts.dots(ms, charts.Scale(1.0, 100.0))


def test_a_box_stays_inside_the_plot() -> None:
    scale = charts.Scale(1.0, 10.0)
    assert charts.box(np.asarray([5.0, 5.0]), scale) == {
        "x": pytest.approx(699, abs=1),
        "width": 1.0,
        "median": pytest.approx(699, abs=1),
    }
    assert charts.box(np.asarray([90.0, 95.0]), scale)["median"] == charts.WIDTH


def test_a_course_is_one_point_per_round() -> None:
    assert charts.line([10.0, 10.0, 20.0]) == "0.0,20.0 500.0,20.0 1000.0,0.0"
    assert charts.line([7.0]) == "0.0,20.0"
