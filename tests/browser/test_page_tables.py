from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.keys import Keys

from kt_cli.report.table import Column, MeanStd, Table
from tests.browser.conftest import Page
from tests.report.page_toys import HOSTILE, TABLE, results, transfers

pytestmark = pytest.mark.browser

RANDOM = pd.DataFrame(
    {
        "student": ["b", "C", "a", "é", "B", "ab"],
        "n": [3, 1437, 20, 3, 3, 100],
        "delta": [0.251, float("nan"), -0.125, 0.25, -1.5, 0.0],
        "where": ["x", None, "y", "x", None, "z"],
    }
)
SORTED = Table(
    "students", "By student",
    (
        Column("student", "student", "text"), Column("n", "n", "count"),
        Column("delta", "Δ (pp)", "signed", digits=1), Column("where", "where", "text"),
    ),
    tuple(
        (s, n, None if d != d else MeanStd(d, 1.0, 3), w if isinstance(w, str) else None)
        for s, n, d, w in RANDOM.itertuples(index=False)
    ),
)  # fmt: skip
FIRST = "#students-1 tbody tr:not([hidden]) td:first-child"


def header(i: int) -> str:
    return f"#students-1 th:nth-child({i + 1})"


@pytest.mark.parametrize("i", range(4))
def test_sorting_as_pandas_does(reader: Page, i: int) -> None:
    reader.show(results(transfers(2)), [SORTED], [])
    column = RANDOM.columns[i]
    for direction in ("ascending", "descending"):
        reader.find(f"{header(i)} button").click()
        assert reader.find(header(i)).get_attribute("aria-sort") == direction
        ranked = RANDOM.sort_values(column, ascending=direction == "ascending", kind="stable")
        assert reader.texts(FIRST) == ranked["student"].tolist()
    reader.find(f"{header(i)} button").click()
    assert reader.texts(FIRST) == RANDOM["student"].tolist()


def test_sorting_by_keyboard(reader: Page) -> None:
    reader.show(results(transfers(2)), [SORTED], [])
    reader.js("document.querySelector(arguments[0]).focus()", f"{header(1)} button")
    reader.press(Keys.ENTER)
    assert reader.texts(FIRST) == RANDOM.sort_values("n", kind="stable")["student"].tolist()
    reader.press(Keys.TAB, Keys.SPACE)
    directions = [th.get_attribute("aria-sort") for th in reader.all("#students-1 th")]
    assert directions == ["none", "none", "ascending", "none"]


def test_filtering_and_sorting_together(reader: Page) -> None:
    reader.show(results(transfers(2)), [SORTED, TABLE], [])
    field = reader.find("#students-1 input")
    field.send_keys("X 3")
    kept = RANDOM[(RANDOM["where"] == "x") & (RANDOM["n"] == 3)]
    assert reader.texts(FIRST) == kept["student"].tolist()
    assert reader.texts("#students-1 output") == ["2 of 6 rows"]
    reader.find(f"{header(0)} button").click()
    reader.find(f"{header(0)} button").click()
    assert reader.texts(FIRST) == ["é", "b"]
    assert len(reader.texts("#summary-1 tbody tr:not([hidden])")) == 4
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    assert len(reader.texts(FIRST)) == 6 and reader.texts("#students-1 output") == [""]


def test_negative_numbers_are_found_as_they_are_typed(reader: Page) -> None:
    reader.show(results(transfers(2)), [SORTED], [])
    reader.find("#students-1 input").send_keys("-1.5")
    assert reader.texts(FIRST) == ["B"]


def test_long_tables_show_more_as_they_are_scrolled(reader: Page) -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"model": [f"m{i}" for i in range(1500)], "x": random.random(1500)})
    columns = (Column("model", "model", "text"), *(Column(f"x{i}", f"x{i}") for i in range(12)))
    rows = tuple((m, *(x + i for i in range(12))) for m, x in frame.itertuples(index=False))
    reader.show(results(transfers(2)), [Table("models", "Models", columns, rows)], [])
    reader.js("document.querySelectorAll('#models-1 th button')[1].click()")
    first = "#models-1 tbody tr:not([hidden]) td:first-child"
    ranked = frame.sort_values("x")["model"].tolist()
    assert reader.texts(first) == ranked[:200]
    scroll = "const b = document.querySelector('#models-1 .box'); b.scrollTop = b.scrollHeight"
    reader.js(scroll)
    reader.until("return document.querySelectorAll(arguments[0]).length === 400", first)
    assert reader.texts(first) == ranked[:400]
    reader.js("document.querySelector('#models-1 tbody tr').focus()")
    reader.press(Keys.END)
    assert reader.js("return document.activeElement.cells[0].textContent") == ranked[-1]
    assert reader.texts(first) == ranked
    reader.find("#models-1 input").send_keys("m77")
    assert reader.texts(first) == [m for m in ranked if "m77" in m]


def test_details_of_a_row(reader: Page) -> None:
    reader.show(results(transfers(2)), [TABLE], [])
    row = reader.all("#summary-1 tbody tr")[1]
    row.click()
    assert reader.find("dialog").is_displayed() and reader.texts("dialog h2") == [HOSTILE]
    terms, said = reader.texts("dialog dt"), reader.texts("dialog dd")
    assert terms == ["method", "n", "Δ (pp)", "rate (%)", "note"]
    assert said == [HOSTILE, "20", "+0.25exactly 0.25, n = 1", "–", "–"]
    reader.press(Keys.ESCAPE)
    assert not reader.find("dialog").is_displayed()
    assert reader.browser.switch_to.active_element == row


def test_rows_by_keyboard(reader: Page) -> None:
    reader.show(results(transfers(2)), [TABLE, SORTED], [])
    reader.js("document.querySelector('#students-1 tbody tr').focus()")
    place = (
        "return [...document.querySelectorAll('#students-1 tr')].indexOf(document.activeElement)"
    )
    for key, wanted in ((Keys.ARROW_DOWN, 2), (Keys.END, 6), (Keys.ARROW_DOWN, 6),
                        (Keys.ARROW_UP, 5), (Keys.HOME, 1), (Keys.PAGE_DOWN, 6)):  # fmt: skip
        reader.press(key)
        assert reader.js(place) == wanted
    stops = reader.all('#students-1 tbody tr[tabindex="0"]')
    assert len(stops) == 1
    reader.press(Keys.ENTER)
    assert reader.texts("dialog h2") == ["ab"]
    reader.press(Keys.ENTER)  # on Close
    assert not reader.find("dialog").is_displayed() and reader.js(place) == 6


def test_hostile_names_are_text(reader: Page) -> None:
    rows = transfers(3)
    rows.loc[:, "teacher"] = HOSTILE
    reader.show(results(rows), [TABLE], [])
    assert reader.texts("#summary-1 tr:nth-child(2) td:first-child") == [HOSTILE]
    titles = [
        cell.get_attribute("title") for cell in reader.all("#transfer tr[tabindex] td:first-child")
    ]
    assert titles == [HOSTILE] * 3  # whole; what is shown is shortened
    reader.find("#transfer tr[tabindex]").click()
    assert reader.texts("dialog dd")[0].startswith(HOSTILE)
    assert not reader.all("td b, dialog b, caption b, [onmouseover]")
