"""Debian's Chromium, without a window, as a test's browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


@dataclass(frozen=True)
class Look:
    """A width in CSS pixels, and whether the reader prefers dark pages."""

    name: str
    width: int
    dark: bool = False


LOOKS = (
    Look("light", 1280),
    Look("dark", 1280, dark=True),
    Look("phone", 390),
    Look("dark phone", 390, dark=True),
)


def missing() -> str:
    """Why there is no browser here, or ""."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return ""
    return "no Chromium; apt-get install chromium chromium-driver"


@contextmanager
def opened() -> Iterator[Any]:
    """A driver; it is gone afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for option in OPTIONS:
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def show(driver: Any, address: str, look: Look) -> None:
    """Open a page as one of LOOKS."""
    theme = {"name": "prefers-color-scheme", "value": "dark" if look.dark else "light"}
    size = {"width": look.width, "height": 1200, "deviceScaleFactor": 1, "mobile": look.width < 500}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(address)


def violations(driver: Any) -> list[str]:
    """What axe-core finds wrong with the open page."""
    from axe_core_python.selenium import Axe

    found = Axe().run(driver)["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]


def opening_ms(driver: Any) -> float:
    """From the start of navigation until the page was laid out and painted once."""
    script = """
    const done = arguments[0];
    requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0));
    """
    return float(driver.execute_async_script(script))


def main() -> None:
    """Open a page with 10,000 samples; exit 1 if that takes a second or more."""
    import tempfile

    from pilite.lab.page import render
    from tests.lab.page.runs import run

    with tempfile.TemporaryDirectory() as folder, opened() as driver:
        path = Path(folder) / "report.html"
        render.write([run(rounds=50, runs=25)], path)
        show(driver, path.as_uri(), LOOKS[0])
        spent = opening_ms(driver)
    print(f"10,000 samples: opened and painted in {spent:.0f} ms")
    raise SystemExit(int(spent >= 1000))


if __name__ == "__main__":
    main()
