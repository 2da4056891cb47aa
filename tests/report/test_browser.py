"""The page in a real browser: patches are chosen by pointer and by keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Reported

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
DRIVER = shutil.which("chromedriver")

# OPENEUPE_BROWSER=required (as in .ci/run) turns a missing browser from a skip into a failure.
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and os.environ.get("OPENEUPE_BROWSER") != "required",
    reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
)
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.fail("OPENEUPE_BROWSER=required, but chromium or chromedriver is missing")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in _FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, reported: Reported) -> Any:
    browser.get(reported.page.as_uri())
    _until(browser, "return document.documentElement.dataset.ready === 'true'")
    return browser


def _until(browser: Any, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda b: b.execute_script(script))


def _canvas(browser: Any, panel: int, image: int) -> Any:
    selector = f"canvas[data-panel='{panel}'][data-image='{image}']"
    element = browser.find_element("css selector", selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


def _pixels(browser: Any, canvas: Any) -> str:
    return str(browser.execute_script("return arguments[0].toDataURL()", canvas))


def _changes(browser: Any, act: Callable[[], None]) -> list[bool]:
    """Whether each map is another after `act`, over both panels and all images."""
    canvases = browser.find_elements("css selector", "canvas")
    before = [_pixels(browser, canvas) for canvas in canvases]
    act()
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    return [_pixels(browser, c) != b for c, b in zip(canvases, before, strict=True)]


def _click(browser: Any, canvas: Any, x: int, y: int) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).move_to_element_with_offset(canvas, x, y).click().perform()


def test_a_click_holds_a_patch_and_changes_every_map(page: Any) -> None:
    from selenium.webdriver import ActionChains

    said = page.find_element("id", "status")
    canvas = _canvas(page, 0, 1)
    assert all(_changes(page, lambda: _click(page, canvas, -60, -20)))
    assert "of chelsea (held)" in said.text
    hover = ActionChains(page).move_to_element_with_offset(canvas, 60, 20)
    assert not any(_changes(page, hover.perform))  # held: the pointer moves without effect
    assert any(_changes(page, lambda: _click(page, canvas, 60, 20)))
    _click(page, canvas, 60, 20)  # the same patch again lets go
    assert "held" not in said.text
    hover = ActionChains(page).move_to_element_with_offset(canvas, -60, 20)
    assert any(_changes(page, hover.perform))


def test_the_keyboard_reaches_and_moves_the_patch(page: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    for _ in range(60):  # with Tab alone, from the top of the page
        ActionChains(page).send_keys(Keys.TAB).perform()
        at = page.switch_to.active_element
        if at.tag_name == "canvas":
            break
    assert at.tag_name == "canvas"
    said = page.find_element("id", "status")
    first = said.text
    assert any(_changes(page, lambda: at.send_keys(Keys.ARROW_LEFT)))
    assert said.text != first
    at.send_keys(Keys.ENTER)
    assert "(held)" in said.text
    at.send_keys(Keys.ESCAPE)
    assert "(held)" not in said.text
    for _ in range(20):
        at.send_keys(Keys.ARROW_UP)
    assert said.text.startswith("Row 1,")


def test_another_encoder_gives_other_maps_in_its_panel_alone(page: Any) -> None:
    from selenium.webdriver.support.ui import Select

    select = Select(page.find_elements("css selector", "select")[0])
    assert select.options[0].text == "untrained"
    changed = _changes(page, lambda: select.select_by_index(0))
    half = len(changed) // 2
    assert all(changed[:half])
    assert not any(changed[half:])
    assert any(_changes(page, page.find_element("id", "under").click))


def test_no_errors_no_requests_and_nothing_wider_than_the_window(page: Any) -> None:
    for width in (1280, 400):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        page.execute_script(
            "document.querySelectorAll('details').forEach((d) => { d.open = true })"
        )
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert page.get_log("browser") == []
    loaded = page.execute_script(
        "return performance.getEntriesByType('resource').map((e) => e.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
