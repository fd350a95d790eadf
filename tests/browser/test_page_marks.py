"""Points and cells of plots name their rows and open them; what is shown comes as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from kt_cli.report import plots
from kt_cli.report.table import Column, Interval, MeanStd, Table
from tests.browser.conftest import Page
from tests.report import plots_toys as toys
from tests.report.page_toys import pairs, results, transfers

pytestmark = pytest.mark.browser

LONG = [f"vit_so{i:03d}m_patch14_reg4_dinov2_siglip2_gap_378.webli_in{i}k" for i in range(120)]
WIDE = Table(
    "summary", "Transfer by method",
    (Column("method", "method", "text"), *(Column(f"c{i}", f"c {i}") for i in range(9))),
    (("kl", *(i + 0.123456 for i in range(9))), ("kl-dp", *(-i - 0.5 for i in range(9)))),
)  # fmt: skip


@pytest.fixture
def shown(reader: Page) -> pd.DataFrame:
    found = toys.results(untrained=0)
    reader.show(found, [WIDE], list(plots.draw_all(found, ["knowledge", "matrix"])))
    return found.ok("complementarity")


def marks(reader: Page, card: int) -> list[list[float]]:
    found: list[list[float]] = reader.js(
        "return JSON.parse(document.querySelectorAll('.card')[arguments[0]].dataset.marks)", card
    )
    return found


def hover(reader: Page, card: int, mark: list[float]) -> None:
    """Where the drawing has the mark, whatever the size that it is shown in."""
    svg = reader.all(".card > svg")[card]
    box = svg.rect
    scale = reader.js("return arguments[0].viewBox.baseVal.width", svg) / box["width"]
    x, y = mark[0] / scale - box["width"] / 2, mark[1] / scale - box["height"] / 2
    chain = ActionChains(reader.browser, duration=0)
    chain.move_to_element_with_offset(svg, round(x), round(y)).perform()


def test_every_finished_row_has_its_mark(reader: Page, shown: pd.DataFrame) -> None:
    assert sorted(row for *_, row in marks(reader, 0)) == list(range(30))


def test_a_point_names_its_models_and_opens_its_row(reader: Page, shown: pd.DataFrame) -> None:
    isolated = max(marks(reader, 0), key=lambda mark: -mark[1])  # the highest lies alone
    row = shown.iloc[int(isolated[2])]
    reader.js("document.querySelector('.card').scrollIntoView({block: 'center'})")
    hover(reader, 0, isolated)
    (tip,) = [t.text for t in reader.all(".tip") if t.is_displayed()]
    assert tip == f"{row['teacher']} → {row['student']}: ρ⁺ (%) {row['pos_flips']:.2f}"
    ActionChains(reader.browser).click().perform()
    assert reader.texts("dialog h2")[0].startswith(f"{row['teacher']} → {row['student']}")
    assert f"{row['pos_flips']:.2f}%" in reader.texts("dialog .said")[0]


def test_cells_of_a_matrix_open_theirs(reader: Page, shown: pd.DataFrame) -> None:
    rows = toys.results(untrained=0).ok("transfer")
    mark = marks(reader, 1)[7]
    row = rows.iloc[int(mark[2])]
    reader.js("document.querySelectorAll('.card')[1].scrollIntoView({block: 'center'})")
    hover(reader, 1, mark)
    ActionChains(reader.browser).click().perform()
    title = f"{row['teacher']} → {row['student']}, {row['method']}"
    assert reader.texts("dialog h2") == [title]


@pytest.mark.parametrize("side", [-1, 1])
def test_a_cell_is_its_whole_square_and_no_more(
    reader: Page, shown: pd.DataFrame, side: int
) -> None:
    rows = toys.results(untrained=0).ok("transfer")
    reader.js("document.querySelectorAll('.card')[1].scrollIntoView({block: 'center'})")
    cell = float(reader.find(".card[data-side]").get_attribute("data-side") or 0)
    x, y, place = min(marks(reader, 1))  # the left of the topmost, whose corner is the matrix's
    row = rows.iloc[int(place)]
    hover(reader, 1, [x + side * 0.44 * cell, y + side * 0.44 * cell])
    (tip,) = [t.text for t in reader.all(".tip") if t.is_displayed()]
    assert tip.startswith(f"{row['teacher']} → {row['student']}, {row['method']}: Δ")
    hover(reader, 1, [x - 0.6 * cell, y])
    assert not any(t.is_displayed() for t in reader.all(".tip"))


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_points_stay_within_their_plot(reader: Page, width: int) -> None:
    found = toys.results(LONG[:8], untrained=0)
    reader.show(found, [], list(plots.draw_all(found, ["knowledge"])), width=width)
    grown = reader.js(
        "const card = document.querySelector('.card'); card.focus();"
        "const size = () => [card.scrollWidth, card.scrollHeight].join();"
        "const [sizes, whole] = [new Set(), size()];"
        "for (const _ of JSON.parse(card.dataset.marks)) {"
        "  card.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));"
        "  sizes.add(size()); }"
        "sizes.delete(whole); return [...sizes];"
    )
    assert grown == []


def test_a_cell_of_several_seeds_says_whose_row_it_opens(reader: Page) -> None:
    found = toys.results(untrained=0, seeds=2)
    reader.show(found, [], list(plots.draw_all(found, ["matrix"])))
    reader.js("document.querySelector('.card').focus()")
    reader.press(Keys.ARROW_RIGHT)
    (tip,) = [t.text for t in reader.all(".tip") if t.is_displayed()]
    place = int(sorted(marks(reader, 0))[0][2])
    row = found.ok("transfer").iloc[place]
    value = f"{row['delta']:+.2f}".replace("-", "−")
    assert tip == f"{row['teacher']} → {row['student']}, kl, seed 0: Δ (pp) {value}"


def test_points_by_keyboard(reader: Page, shown: pd.DataFrame) -> None:
    by_place = sorted(marks(reader, 0))
    reader.js("document.querySelector('.card').focus()")
    reader.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT)
    row = shown.iloc[int(by_place[1][2])]
    (tip,) = [t.text for t in reader.all(".tip") if t.is_displayed()]
    assert tip.startswith(f"{row['teacher']} → {row['student']}")
    reader.press(Keys.ENTER)
    assert reader.texts("dialog h2")[0].startswith(f"{row['teacher']} → {row['student']}")
    reader.press(Keys.ESCAPE)
    assert reader.js("return document.activeElement === document.querySelector('.card')")
    reader.press(Keys.ESCAPE)
    assert not any(tip.is_displayed() for tip in reader.all(".tip"))


def test_a_row_s_details_begin_with_its_result(reader: Page) -> None:
    rows = transfers(3).assign(curve_acc=[[60.0, 61.5, None], None, [70.0]], bn="eval", method="kl")
    rows["guard_alpha"] = [0.0, 1.0, None]
    rows["gain_by_class"], rows["loss_by_class"] = [[0, 7], None, None], [[2, 1], None, None]
    rows.loc[:, ["delta", "gain", "loss", "transfer_p"]] = [[1.5, 2.0, 0.5, 0.01]] * 3
    reader.show(results(rows), [], [])
    reader.find("#transfer tr[tabindex]").click()
    reader.until("return document.querySelector('dialog .course') !== null")
    said = "Δ +1.50 points ± 0.14 (95%, over images): gain 2.00 − loss 0.50. A significant gain"
    known = f"The teacher knew ρ⁺ {rows['pos_flips'][0]:.2f}% that the student did not"
    rate = f"of which {rows['transfer_rate'][0]:.1f}% was learned"
    kept = "The guard left the student as it was."
    assert reader.texts("dialog .said") == [f"{said} (McNemar p = 0.010). {known}, {rate}. {kept}"]
    assert "60.0 to 61.5%" in reader.texts("dialog .course figcaption")[0]
    row = rows.iloc[0]
    assert reader.texts("dialog h2") == [f"{row['teacher']} → {row['student']}, kl"]
    assert reader.texts("dialog .said ~ p")[0].endswith("(images gained, lost): 1: +7 −1, 0: +0 −2")
    (command,) = reader.texts("dialog pre")
    assert command.startswith(f"kt transfer {row['teacher']} {row['student']} --data imagenet")
    assert "--bn eval" in command and "--epochs" not in command and "--lr 0.01" in command


def csv_of(reader: Page, button: str, folder: Path) -> tuple[str, list[list[str]]]:
    """The file that a button saves."""
    asked = {"behavior": "allow", "downloadPath": str(folder)}
    reader.browser.execute_cdp_cmd("Browser.setDownloadBehavior", asked)
    reader.find(button).click()
    WebDriverWait(reader.browser, 10, 0.02).until(lambda _: list(folder.glob("*.csv")))
    (file,) = folder.glob("*.csv")
    with file.open(encoding="utf-8", newline="") as text:
        return file.name, list(csv.reader(text))


def test_rows_as_csv_are_what_is_shown(reader: Page, shown: pd.DataFrame, tmp_path: Path) -> None:
    field = reader.find("#complementarity th[data-key=acc_diff] input")
    field.send_keys("> 0")
    name, (head, *lines) = csv_of(
        reader, "#complementarity .tools > button:nth-of-type(2)", tmp_path
    )
    kept = shown.round({"pos_flips": 3, "acc_diff": 3})
    kept = kept[kept["acc_diff"] > 0].sort_values("pos_flips", ascending=False, kind="stable")
    assert name == "pairs.csv" and head[:4] == ["teacher", "student", "pos_flips", "acc_diff"]
    assert [line[:2] for line in lines] == kept[["teacher", "student"]].to_numpy().tolist()
    values = [[float(v) for v in line[2:4]] for line in lines]
    assert values == kept[["pos_flips", "acc_diff"]].to_numpy().tolist()


def test_a_table_shows_seven_columns_until_it_is_asked_for_all(
    reader: Page, shown: pd.DataFrame, tmp_path: Path
) -> None:
    seen = (
        "return [...document.querySelectorAll('#summary-1 th')].filter(e => e.offsetParent).length"
    )
    assert reader.js(seen) == 7
    _, lines = csv_of(reader, "#summary-1 .tools button:last-child", tmp_path)
    assert len(lines) == 3 and {len(line) for line in lines} == {7}
    assert lines[1][1] == "0.123456"
    button = reader.find("#summary-1 button[aria-pressed]")
    assert button.text == "All 10 columns"
    button.click()
    assert reader.js(seen) == 10 and button.get_attribute("aria-pressed") == "true"


def test_means_and_intervals_are_saved_in_all_their_parts(reader: Page, tmp_path: Path) -> None:
    columns = (Column("method", "method", "text"), Column("delta", "Δ"), Column("won", "won"))
    rows = (("kl", MeanStd(0.25, 0.125, 3), Interval(50.0, 20.5, 79.5)),
            ("xekl", MeanStd(1.0, float("nan"), 1), None))  # fmt: skip
    reader.show(results(transfers(2)), [Table("summary", "By method", columns, rows)], [])
    _, lines = csv_of(reader, "#summary-1 .tools button:last-child", tmp_path)
    assert lines == [
        ["method", "Δ", "Δ std", "Δ n", "won", "won low", "won high"],
        ["kl", "0.25", "0.125", "3", "50", "20.5", "79.5"], ["xekl", "1", "", "1", "", "", ""],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1280, 390])
def test_delta_and_what_was_known_are_in_view_however_long_the_names(
    reader: Page, width: int
) -> None:
    rows = transfers(300, models=120)
    for role in ("teacher", "student"):
        rows[role] = pd.factorize(rows[role])[0] % 120
        rows[role] = rows[role].map(LONG.__getitem__)
    reader.show(results(rows, pairs(20)), [], [], width=width, height=844)
    reader.js("document.querySelector('#transfer').scrollIntoView()")
    inside: Any = reader.js(
        "const box = document.querySelector('#transfer .box').getBoundingClientRect();"
        "return ['delta', 'pos_flips'].map(k => document.querySelector("
        "`#transfer th[data-key=${k}]`).getBoundingClientRect())"
        ".map(r => r.left >= box.left && r.right <= box.right + 1)"
    )
    assert inside == [True, True]
    cell = reader.find("#transfer tr[tabindex] td")
    assert cell.value_of_css_property("position") == "sticky"
    assert cell.get_attribute("title") in LONG and "…" in cell.text
    assert cell.get_attribute("title").endswith(cell.text.split("…")[1])
