from __future__ import annotations

import itertools

import pytest

from tests.browser.conftest import Page
from tests.report.page_toys import TABLE, drawn, pairs, results, transfers

pytestmark = pytest.mark.browser

SCREENS = list(itertools.product((1280, 390), (False, True)))
# Blocks in reading order; what scrolls inside a box is cut off by it and cannot lie on others.
BLOCKS = """
const blocks = [...document.querySelectorAll(
  'h1, h2, h3, p, nav li, .tools > *, .box, .notes li, .card, figcaption, dt, dd, summary')];
return blocks.filter(e => e.checkVisibility() && !e.parentElement.closest('.box, dialog'))
  .map(e => { const r = e.getBoundingClientRect();
    return [e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40),
            r.left, r.top + scrollY, r.right, r.bottom + scrollY]; });
"""
CUT = """
return [...document.querySelectorAll('th, td, button, summary, dt, dd, h2, h3, p, li, figcaption')]
  .filter(e => e.checkVisibility() && getComputedStyle(e).textOverflow !== 'ellipsis')
  .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
  .map(e => `${e.tagName} ${e.textContent} ${e.scrollWidth} > ${e.clientWidth}`);
"""
CONTRAST = """
const rgb = text => text.match(/[\\d.]+/g).map(Number);
const light = c => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
function ground(e) {
  for (; e; e = e.parentElement) {
    const [r, g, b, a = 1] = rgb(getComputedStyle(e).backgroundColor);
    if (a) return [r, g, b];
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll('h1, h2, h3, p, a, th, td, li, button, summary, label, ' +
  'input, dt, dd, output, small, figcaption, pre')]
  .filter(e => e.checkVisibility() && !e.disabled)
  .map(e => {
    const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(ground(e))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
"""


def show(reader: Page, width: int, dark: bool) -> None:
    rows, pair = transfers(60), pairs(30)
    rows.loc[0, "student"] = "a_model_whose_name_is_longer_than_any_column_would_like.v2"
    plots = [drawn("one"), drawn("two", 6.75), drawn("three")]
    reader.show(results(rows, pair), [TABLE, TABLE], plots, width=width, dark=dark)


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_nothing_overlaps_and_the_page_never_scrolls_sideways(
    reader: Page, width: int, dark: bool
) -> None:
    show(reader, width, dark)
    for summary in reader.all("summary"):
        summary.click()
    assert reader.js(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    boxes = reader.js(BLOCKS)
    assert len(boxes) > 40
    for (a, *first), (b, *second) in itertools.combinations(boxes, 2):
        inside = contains(first, second) or contains(second, first)
        assert inside or not overlap(first, second), (a, first, b, second)
        assert first[0] >= 0 and first[2] <= width, (a, first)
    assert reader.js(CUT) == []


def overlap(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] - 0.5 and b[0] < a[2] - 0.5 and a[1] < b[3] - 0.5 and b[1] < a[3] - 0.5


def contains(a: list[float], b: list[float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2] and a[3] >= b[3]


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_text_stands_out_from_what_it_is_on(reader: Page, width: int, dark: bool) -> None:
    show(reader, width, dark)
    for summary in reader.all("summary"):
        summary.click()
    assert reader.js(CONTRAST) == []
    reader.find("#transfer tbody tr[tabindex]").click()
    assert reader.js(CONTRAST) == []
    body = reader.js("return getComputedStyle(document.body).backgroundColor")
    assert (body == "rgb(255, 255, 255)") != dark


def test_plots_follow_the_light_and_stay_legible(reader: Page) -> None:
    card = "return getComputedStyle(document.querySelector('.card')).backgroundColor"
    turned = "return getComputedStyle(document.querySelector('.card svg')).filter"
    show(reader, 390, False)
    assert reader.js(card) == "rgb(255, 255, 255)" and reader.js(turned) == "none"
    show(reader, 390, True)
    assert reader.js(card) == "rgb(20, 23, 26)" and "invert" in reader.js(turned)
    reader.media("print")
    assert reader.js(card) == "rgb(255, 255, 255)" and reader.js(turned) == "none"
    natural = reader.js(
        "return [...document.querySelectorAll('.card svg')].map(e => "
        "[e.getBoundingClientRect().width, e.width.baseVal.value])"
    )
    assert all(width >= 0.9 * wanted for width, wanted in natural)


def test_compressed_plots_are_drawn(reader: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kt_cli.report.page.plots.PLAIN", 0)
    show(reader, 1280, False)
    reader.until("return document.querySelectorAll('.card > svg').length === 3")
    shown = reader.js(
        "return [...document.querySelectorAll('.card > svg')]"
        ".map(e => [e.getBoundingClientRect().height, e.getAttribute('aria-label')])"
    )
    assert all(height > 200 and "Gain against loss" in label for height, label in shown)


def test_numbers_are_right_aligned_in_figures_of_one_width(reader: Page) -> None:
    show(reader, 1280, False)
    styles = reader.js(
        "return [...document.querySelectorAll('td.n')].map(e => getComputedStyle(e))"
        ".map(s => s.textAlign + ' ' + s.fontVariantNumeric)"
    )
    assert set(styles) == {"right tabular-nums"}


def test_printed_the_tables_are_whole(reader: Page) -> None:
    show(reader, 1280, True)
    reader.media("print")
    assert not reader.find(".tools").is_displayed() and not reader.find(".rows").is_displayed()
    assert reader.find("table").is_displayed() and reader.find("figure").is_displayed()
    box = "const e = document.querySelector('.box'); return getComputedStyle(e).overflow"
    assert reader.js(box) == "visible"
    assert reader.js(CONTRAST) == []


def test_nothing_moves(reader: Page) -> None:
    show(reader, 1280, False)
    moving = (
        "return [...document.querySelectorAll('*')].map(e => getComputedStyle(e)).filter(s => "
        "parseFloat(s.transitionDuration) || s.animationName !== 'none' || "
        "s.scrollBehavior === 'smooth').length"
    )
    assert reader.js(moving) == 0


def test_the_first_stop_skips_to_the_content(reader: Page) -> None:
    show(reader, 390, False)
    reader.press("\ue004")  # Tab
    focused = "return document.activeElement.textContent"
    assert reader.js(focused) == "Skip to the content"
    seen = (
        "const r = document.activeElement.getBoundingClientRect(); return r.left >= 0 && r.top >= 0"
    )
    assert reader.js(seen)
    reader.press("\ue007")  # Enter
    assert reader.js("return document.activeElement.id") == "content"


def test_what_has_the_focus_can_be_seen(reader: Page) -> None:
    show(reader, 1280, False)
    order = []
    for _ in range(12):
        reader.press("\ue004")
        order.append(reader.js(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "const bottom = e.getBoundingClientRect().bottom + scrollY;"
            "return [bottom, s.outlineStyle, parseFloat(s.outlineWidth)]"
        ))  # fmt: skip
    assert all(style == "solid" and width >= 2 for _, style, width in order)
    bottoms = [bottom for bottom, *_ in order]
    # Links, then a table's filter, headers and rows; the skip link comes first wherever it is.
    assert bottoms[1:] == sorted(bottoms[1:])
