"""The page from its server: asking for rows, by keyboard alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from kt_cli.api.report import report
from kt_cli.report.ask import Question
from kt_cli.report.serve import Server
from tests.browser.conftest import Page
from tests.report.conftest import Sweep

pytestmark = pytest.mark.browser
ASK = "document.querySelector('#transfer .ask %s')"
STATUS = f"return {ASK % 'output'}.textContent.startsWith(arguments[0])"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    sweep = Sweep(tmp_path / "demo")
    sweep.write("transfer", [
        sweep.transfer("resnet50", "mixer_b16", method=method, seed=seed, delta=seed - 60.0,
                       reference_compat=True, teacher_key="resnet50", student_key="mixer_b16")
        for seed in range(120) for method in ("kl", "kl-dp")
    ])  # fmt: skip
    asked = report(sweep.folder, serve=True, table=["summary"], plot=["success"])
    with asked.server() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        asked_first = Question("transfer", "seed == 0")  # its process takes a while to start
        assert served.asker.ask(asked_first)["count"] == 2
        yield served
        served.shutdown()
        thread.join()


def column(page: Page, key: str) -> list[str]:
    script = """
    const place = [...document.querySelectorAll('#transfer .ask th')]
      .findIndex((header) => header.dataset.key === arguments[0]);
    return [...document.querySelectorAll('#transfer .ask tbody tr')]
      .map((row) => row.cells[place].textContent);
    """
    found: list[str] = page.js(script, key)
    return found


def test_asking_sorting_and_paging_by_keyboard(
    server: Server, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    page = Page(chromium, tmp_path)
    page.errors(), page.requests()
    chromium.get(server.address)
    page.js(f"{ASK % 'input'}.focus()")
    page.press("delta > 0 and method == 'kl'", Keys.ENTER)
    page.until(STATUS, "1 to 50 of 59")
    assert set(column(page, "method")) == {"kl"} and column(page, "delta")[0] == "+1.00"
    page.js(f"{ASK % 'th[data-key=delta] button'}.focus()")
    page.press(Keys.ENTER)
    page.until(f"return {ASK % 'th[data-key=delta]'}.ariaSort === 'ascending'")
    page.until(STATUS, "1 to 50 of 59")
    page.press(Keys.ENTER)
    page.until(f"return {ASK % 'tbody tr'}.textContent.includes('+59.00')")
    assert column(page, "delta")[:2] == ["+59.00", "+58.00"]
    page.js("document.querySelectorAll('#transfer .ask .tools button')[2].focus()")
    page.press(Keys.ENTER)
    page.until(STATUS, "51 to 59 of 59")
    assert column(page, "delta")[-1] == "+1.00"
    page.js("document.querySelector('#transfer .ask tr[tabindex=\"0\"]').focus()")
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.until("return document.querySelector('dialog').open")
    assert "Δ (pp)" in page.texts("dialog dt")
    assert page.texts("dialog h2") == ["resnet50 → mixer_b16, kl"]
    assert page.texts("dialog .said")[0].startswith("Δ +8.00 points")
    (command,) = page.texts("dialog pre")
    assert command.startswith("kt transfer resnet50 mixer_b16 --data digits")
    assert "--method kl --seed 68" in command and "--reference-compat" in command
    page.press(Keys.ESCAPE)
    page.until("return document.activeElement.tagName === 'TR'")  # which had opened it
    page.js(f"{ASK % 'input'}.focus()")
    page.press(" and nonsense > 1", Keys.ENTER)
    page.until(STATUS, "unknown column 'nonsense'")
    assert all(url.startswith(server.address) for url in page.requests())
    assert [said for said in page.errors() if "400" not in said] == []
