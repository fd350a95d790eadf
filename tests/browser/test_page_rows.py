from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import Page
from tests.report.page_toys import METHODS, pairs, results, transfers

pytestmark = pytest.mark.browser

COUNT = 90
ROWS = transfers(COUNT)
ROWS.loc[4, "method"] = None
ROWS["seed"] = np.random.default_rng(5).permutation(COUNT)  # says which row it is
FIRST = ["teacher", "student", "delta", "pos_flips", "method", "seed", "gain"]
MORE = ["teacher_acc", "student_acc", "loss", "transfer_rate", "transfer_p"]
KEPT = {"delta": 3, "pos_flips": 3, "gain": 3, "loss": 3, "transfer_rate": 2}
RANKED = ROWS.round(KEPT).sort_values("delta", ascending=False, kind="stable").index.tolist()
PLACES = {str(seed): i for i, seed in enumerate(ROWS["seed"])}
P = f"{ROWS['transfer_p'][(ROWS['transfer_p'] - 0.3).abs().idxmin()]:.3f}"
Filter = Callable[[pd.DataFrame], "pd.Series[bool]"]
FILTERS: list[tuple[str, str, Filter]] = [
    ("method", "kl", lambda r: r["method"].str.contains("kl", na=False)),
    ("method", "=KL", lambda r: r["method"] == "kl"),
    ("method", "!kl-dp", lambda r: ~r["method"].str.contains("kl-dp", na=True)),
    ("method", "=kl | xe", lambda r: r["method"].isin(["kl", "xekl"])),
    ("method", "!=kl|=xekl", lambda r: r["method"].isin(["kl-dp", "kl-dp-u"])),
    ("teacher", "model1_|model7", lambda r: r["teacher"].str.contains("model1_|model7")),
    ("teacher", "(", lambda r: r["teacher"].str.contains("(", regex=False)),
    ("delta", "> 0", lambda r: r["delta"] > 0),
    ("delta", "<=-1.5", lambda r: r["delta"] <= -1.5),
    ("delta", "−1..1", lambda r: r["delta"].between(-1, 1)),
    ("delta", "..0", lambda r: r["delta"] <= 0),
    ("delta", "> -2 and < .5", lambda r: (r["delta"] > -2) & (r["delta"] < 0.5)),
    ("method", "?", lambda r: r["method"].isna()),
    ("seed", "5..9", lambda r: r["seed"].between(5, 9)),
    ("seed", "1", lambda r: r["seed"] == 1),
    ("seed", ">= 1, < 2", lambda r: r["seed"] == 1),
    ("transfer_rate", ">= 50", lambda r: r["transfer_rate"] >= 50),
    ("transfer_rate", "?", lambda r: r["transfer_rate"].isna()),
    ("transfer_rate", "!?", lambda r: r["transfer_rate"].notna()),
    ("transfer_p", P, lambda r: r["transfer_p"].map("{:.3f}".format) == P),  # as it is shown
    ("transfer_p", "< 1e-3", lambda r: r["transfer_p"] < 1e-3),
]


def places(reader: Page) -> list[int]:
    """Which of ROWS are in the table, in its order: scrolls through all of it."""
    script = """
    const box = document.querySelector('#transfer .box'), body = box.querySelectorAll('tbody')[1];
    const seen = new Map(), done = arguments[0];
    const seed = box.querySelector('th[data-key=seed]').cellIndex;
    box.scrollTop = 0;
    (function step() {
      for (const row of body.rows) {
        if (row.dataset.place) seen.set(Number(row.dataset.place), row.cells[seed].textContent);
      }
      if (box.scrollTop + box.clientHeight >= box.scrollHeight - 1) {
        done([...seen].sort((a, b) => a[0] - b[0]).map(e => e[1]));
        return;
      }
      box.scrollTop += box.clientHeight;
      requestAnimationFrame(() => requestAnimationFrame(step));
    })();
    """
    return [PLACES[seed] for seed in reader.browser.execute_async_script(script)]


def header(column: str) -> str:
    return f"#transfer th[data-key={column}]"


def fill(reader: Page, column: str, text: str) -> None:
    """Replace the text of a column's filter."""
    field = reader.find(f"{header(column)} input")
    reader.js("arguments[0].value = ''; arguments[0].dispatchEvent(new Event('input'))", field)
    field.send_keys(text)


def show(reader: Page, width: int = 1280, more: bool = True) -> None:
    reader.show(results(ROWS, pairs(30)), [], [], width=width)
    for column in MORE if more else ():
        reader.js(f"document.querySelector('#transfer .columns [data-key={column}]').click()")
        reader.until("return document.querySelector(arguments[0]) !== null", header(column))


def shown(reader: Page) -> list[str]:
    keys: list[str] = reader.js(
        "return [...document.querySelectorAll('#transfer th')].map(th => th.dataset.key)"
    )
    return keys


def test_all_rows_are_there_with_the_largest_delta_first(reader: Page) -> None:
    show(reader, more=False)
    assert shown(reader) == FIRST
    assert places(reader) == RANKED
    assert reader.find(header("delta")).get_attribute("aria-sort") == "descending"
    bold = reader.js(
        "return [...document.querySelectorAll('#transfer tr[tabindex]')].map(row => "
        "[row.cells[5].textContent, row.querySelector('.best') !== null])"
    )
    assert len(bold) > 20
    assert all(sure == (ROWS["transfer_p"][PLACES[seed]] < 0.05) for seed, sure in bold)


def test_cells_say_what_the_rows_do(reader: Page) -> None:
    show(reader)
    reader.find(f"{header('delta')} button").click()  # in their order
    wanted = ROWS.iloc[7]  # has no transfer rate
    cells = reader.texts("#transfer tr[tabindex]:nth-child(8) td")
    for column, cell in zip(shown(reader), cells, strict=True):
        if isinstance(wanted[column], str):
            assert cell == wanted[column]
        elif column == "transfer_rate":
            assert cell == "–"
        else:
            assert float(cell.replace("−", "-")) == pytest.approx(wanted[column], abs=0.0056)
    assert all(cell[0] in "+−0" for cell in reader.texts("#transfer tr[tabindex] td:nth-child(3)"))


def test_sorting_as_pandas_does(reader: Page) -> None:
    show(reader)
    for column in [*FIRST, *MORE]:
        # The page keeps three digits of p.
        key = (lambda p: p.map("{:.4e}".format).astype(float)) if column == "transfer_p" else None
        for up, direction in ((True, "ascending"), (False, "descending")):
            reader.find(f"{header(column)} button").click()
            assert reader.find(header(column)).get_attribute("aria-sort") == direction
            ranked = ROWS.round(KEPT).sort_values(column, ascending=up, kind="stable", key=key)
            assert places(reader) == ranked.index.tolist(), (column, direction)
    reader.find(f"{header('transfer_p')} button").click()
    assert places(reader) == list(range(COUNT))


def test_filtering_as_pandas_does(reader: Page) -> None:
    show(reader)
    reader.find(f"{header('delta')} button").click()  # in their order
    for column, text, kept in FILTERS:
        fill(reader, column, text)
        wanted = ROWS.index[kept(ROWS.round(KEPT))].tolist()
        assert places(reader) == wanted, (column, text)
        said = "90 transfers" if len(wanted) == COUNT else f"{len(wanted)} of 90 transfers"
        assert reader.texts("#transfer output") == [said]
        fill(reader, column, "")


def test_filters_of_several_columns_and_sorting(reader: Page) -> None:
    show(reader)
    reader.find(f"{header('gain')} button").click()
    fill(reader, "method", "=kl-dp")
    fill(reader, "delta", "> 0")
    kept = ROWS.round(KEPT)
    kept = kept[(kept["method"] == "kl-dp") & (kept["delta"] > 0)]
    assert places(reader) == kept.sort_values("gain", kind="stable").index.tolist()
    reader.find("#transfer .tools > button").click()
    assert places(reader) == ROWS.round(KEPT).sort_values("gain", kind="stable").index.tolist()
    assert not reader.find("#transfer .tools > button").is_enabled()


def test_a_filter_that_is_not_understood_says_so(reader: Page) -> None:
    show(reader)
    fill(reader, "delta", "> ")
    field = reader.find(f"{header('delta')} input")
    assert field.get_attribute("aria-invalid") == "true"
    assert len(places(reader)) == COUNT
    field.send_keys("0")
    assert field.get_attribute("aria-invalid") == "false"
    assert len(places(reader)) < COUNT
    # What is no longer understood no longer filters, and can be cleared.
    for text in ("> 0 x", "1-2", "1 2"):
        fill(reader, "delta", text)
        assert field.get_attribute("aria-invalid") == "true", text
        assert len(places(reader)) == COUNT
    reader.find("#transfer .tools > button").click()
    assert field.get_attribute("value") == ""
    fill(reader, "seed", "999")
    assert places(reader) == [] and "No row passes the filters." in reader.find("#transfer").text


@pytest.mark.parametrize("width", [1280, 390])
def test_details_show_every_column(reader: Page, width: int) -> None:
    show(reader, width)
    row = reader.all("#transfer tr[tabindex]")[3]
    reader.js("arguments[0].scrollIntoView({block: 'center'})", row)
    row.click()
    count = int(ROWS.notna().any().sum())
    reader.until("return document.querySelectorAll('dialog dt').length === arguments[0]", count)
    wanted = ROWS.iloc[RANKED[3]]
    title = f"{wanted['teacher']} → {wanted['student']}, {wanted['method']}"
    assert reader.texts("dialog h2") == [title]
    facts = dict(zip(reader.texts("dialog dt"), reader.texts("dialog dd"), strict=True))
    assert facts["run_id"] == f"{wanted['run_id']}identity of the run"
    assert facts["Δ (pp)"].startswith(f"{round(wanted['delta'], 3):g}delta: ".replace("-", "−"))
    inside = reader.js(
        "const r = document.querySelector('dialog').getBoundingClientRect();"
        "return [r.left, r.right, r.top, r.bottom]"
    )
    assert inside[0] >= 0 and inside[1] <= width and inside[2] >= 0 and inside[3] <= 900
    reader.press(Keys.ESCAPE)
    assert not reader.find("dialog").is_displayed()
    assert reader.js("return document.activeElement.dataset.place") == "3"
    reader.js("document.querySelector('#transfer .box').scrollTop = 40")
    stop = "return document.querySelector('#transfer tr[tabindex=\"0\"]').dataset.place === '3'"
    reader.until(stop)


def test_rows_by_keyboard_far_out_of_view(reader: Page) -> None:
    show(reader)
    reader.js("document.querySelector('#transfer tr[tabindex=\"0\"]').focus()")
    place = "return Number(document.activeElement.dataset.place)"
    for key, wanted in ((Keys.ARROW_DOWN, 1), (Keys.END, 89), (Keys.PAGE_UP, 79),
                        (Keys.ARROW_UP, 78), (Keys.HOME, 0), (Keys.PAGE_DOWN, 10)):  # fmt: skip
        reader.press(key)
        assert reader.js(place) == wanted
        visible = reader.js(
            "const r = document.activeElement.getBoundingClientRect();"
            "const b = document.querySelector('#transfer .box').getBoundingClientRect();"
            "const h = document.querySelector('#transfer thead').getBoundingClientRect();"
            "return r.top >= h.bottom - 1 && r.bottom <= b.bottom + 1"
        )
        assert visible, key
    reader.press(Keys.SPACE)
    assert reader.texts("dialog h2")[0].startswith(ROWS.iloc[RANKED[10]]["teacher"])
    reader.press(Keys.ESCAPE)
    assert reader.js(place) == 10
    # A row with the focus that is scrolled away leaves it to its table, not to the page.
    reader.js("const b = document.querySelector('#transfer .box'); b.scrollTop = b.scrollHeight")
    reader.until("return document.activeElement === document.querySelector('#transfer .box')")


def test_columns_can_be_chosen(reader: Page) -> None:
    show(reader)
    reader.find("#transfer .columns summary").click()
    boxes = {label.text.strip(): label for label in reader.all("#transfer .columns label")}
    fill(reader, "method", "=kl")
    boxes["gain_entropy"].click()
    reader.until("return document.querySelector(arguments[0]) !== null", header("gain_entropy"))
    boxes["method"].click()
    reader.until("return document.querySelector(arguments[0]) === null", header("method"))
    reader.find(f"{header('gain_entropy')} button").click()
    assert reader.texts("#transfer output") == ["90 transfers"]
    low, *_ = reader.texts("#transfer tr[tabindex] td:last-child")
    assert float(low) == pytest.approx(ROWS["gain_entropy"].min(), abs=1e-3)
    # The last column stays.
    for box in reader.all("#transfer .columns input:checked"):
        box.click()
    assert len(reader.all("#transfer .columns input:checked")) == 1
    assert len(reader.all("#transfer thead th")) == 1


def test_only_the_rows_in_view_are_in_the_document_however_many(reader: Page) -> None:
    many = transfers(100_000)
    reader.show(results(many), [], [])
    for column, text in (("delta", "> 0"), ("teacher", "model1"), ("method", "=kl")):
        reader.find(f"{header(column)} button").click()
        fill(reader, column, text)
    kept = many[(many["delta"] > 0) & many["teacher"].str.contains("model1")]
    kept = kept[kept["method"] == "kl"]
    assert reader.texts("#transfer output") == [f"{len(kept):,} of 100,000 transfers"]
    reader.find("#transfer .tools > button").click()
    reader.js("const b = document.querySelector('#transfer .box'); b.scrollTop = b.scrollHeight")
    reader.until("return document.querySelector('[data-place=\"99999\"]') !== null")
    assert len(reader.all("#transfer tbody tr")) < 80


def test_methods_of_the_toys_are_all_there() -> None:
    assert set(ROWS["method"].dropna()) == set(METHODS)
