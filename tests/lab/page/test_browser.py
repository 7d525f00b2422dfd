"""The page in Chromium: accessible by axe-core, never wider than the screen, drawn in both themes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pilite.lab.page import render
from tests.lab.page import browser
from tests.lab.page.browser import LOOKS, Look
from tests.lab.page.runs import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    if browser.missing():
        pytest.skip(browser.missing())
    with browser.opened() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    render.write([run(rounds=50, runs=25)], path)
    return path.as_uri()


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_it_is_accessible_and_fits_the_screen(driver: Any, page: str, look: Look) -> None:
    browser.show(driver, page, look)
    assert browser.violations(driver) == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= look.width


def test_the_check_for_accessibility_can_fail(driver: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<html><body><img src='x'><p style='color:#ddd'>pale</p></body></html>"
    )
    browser.show(driver, (tmp_path / "bad.html").as_uri(), LOOKS[0])
    assert {"image-alt", "color-contrast"} <= {found.split(":")[0] for found in browser.violations(driver)}


def picture(driver: Any) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as image:
        return np.asarray(image.convert("RGB"))


def test_a_screenshot_shows_both_themes_and_the_colours_of_the_plots(driver: Any, page: str) -> None:
    for look, paper, ours in (
        (LOOKS[0], (255, 255, 255), (16, 99, 74)),
        (LOOKS[1], (20, 24, 28), (95, 211, 171)),
    ):
        browser.show(driver, page, look)
        driver.execute_script("document.querySelector('.strip').scrollIntoView()")
        pixels = picture(driver)
        assert pixels.shape[:2] == (1200, look.width)
        assert tuple(pixels[600, 4]) == paper
        near = np.abs(pixels.astype(int) - ours).max(axis=2) < 12
        assert np.count_nonzero(near) > 200  # the box, the course


def test_every_sample_of_a_row_is_drawn_and_named(driver: Any, page: str) -> None:
    browser.show(driver, page, LOOKS[0])
    labels = driver.execute_script("return [...document.querySelectorAll('svg')].map(s => s.ariaLabel)")
    assert any(label.startswith("pilite, 4 threads: 1250 runs, median ") for label in labels)
    boxes = driver.execute_script(
        "return [...document.querySelectorAll('.dots')].map(d => d.getBBox().width)"
    )
    assert len(boxes) == 8
    assert min(boxes) > 1
