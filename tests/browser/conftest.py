"""A headless Chromium for the tests of the page, which may not ask the network for anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from kt_cli.report import page

SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--lang=en-US",
)  # fmt: skip
READ = """
return [...document.querySelectorAll('.rows output')].every(o => /^[\\d,]+ /.test(o.textContent));
"""


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        assert not os.environ.get("KT_REQUIRE_BROWSER"), "KT_REQUIRE_BROWSER without Chromium"
        pytest.skip("no chromium with chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """The page in a browser, as a reader sees it."""

    def __init__(self, browser: webdriver.Chrome, folder: Path) -> None:
        self.browser, self._folder = browser, folder

    def show(self, *report: Any, width: int = 1280, dark: bool = False, height: int = 900) -> None:
        """Open the page of results, tables and plots in a window of `width` × `height` px."""
        file = self._folder / "report.html"
        file.write_text(page.render_page(*report), encoding="utf-8")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.media("", scheme)
        self.browser.get(file.as_uri())
        WebDriverWait(self.browser, 30, 0.02).until(lambda _: self.js(READ))

    def media(self, medium: str, *features: dict[str, str]) -> None:
        self.browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": medium, "features": list(features)}
        )

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        found: list[str] = self.js(script, selector)
        return found

    def press(self, *keys: str) -> None:
        """Type on what has the focus."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def until(self, script: str, *arguments: Any) -> None:
        """Wait until JavaScript says yes."""
        WebDriverWait(self.browser, 10, 0.02).until(lambda _: self.js(script, *arguments))

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        """What the browser asked the network for."""
        entries = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        urls = [
            str(e["params"]["request"]["url"])
            for e in entries
            if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if url.startswith(("http", "ws", "ftp"))]


@pytest.fixture
def reader(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """A page that in the end had no errors and asked nobody for anything."""
    shown = Page(chromium, tmp_path)
    shown.errors(), shown.requests()
    yield shown
    assert shown.errors() == [] and shown.requests() == []
