"""Plots are readable: texts within the figure, none over another, legends beside the data."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from kt_cli.report import plots
from kt_cli.report.plots import style
from kt_cli.report.read import Results
from tests.report import plots_toys as toys

LONG = tuple(f"my_organisation/a_model_$with$_{'x' * 36}_number_{i}_of_many" for i in range(5))
MANY = tuple(f"vit_base_patch{i}_clip_224.openai_ft_in1k" for i in range(40))
CASES = {
    "usual": {},
    "twelve methods": {"methods": (*toys.TWELVE, "kl-dp+guard")},
    "long names": {"models": LONG, "methods": ("kl", "a_method_of_my_own_with_a_long_name+guard")},
    "one pair": {"models": LONG[:2], "methods": ("kl-dp",), "pairs": 1, "untrained": 0},
    "forty models": {"models": MANY, "methods": ("kl",)},
    "many models": {"models": [*MANY, "a", "b", "c"], "methods": ("kl", "self")},
}


@cache
def results(case: str) -> Results:
    return toys.results(**CASES[case])


def ticks(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    found = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [
        label
        for tick in found
        if low <= tick.get_loc() <= high
        for label in (tick.label1, tick.label2)
    ]


def texts(figure: Figure) -> list[Text]:
    """All that is written and not empty."""
    axes: list[Axes] = figure.axes
    of_axes = {axis: ticks(axis) for one in axes for axis in (one.xaxis, one.yaxis)}
    every = {t for one in axes for axis in (one.xaxis, one.yaxis) for tick in
             [*axis.get_major_ticks(), *axis.get_minor_ticks()]
             for t in (tick.label1, tick.label2)}  # fmt: skip
    shown = {text for found in of_axes.values() for text in found}
    others = [text for text in figure.findobj(Text) if text not in every]
    return [t for t in [*others, *shown] if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize(
    ("case", "name"),
    [
        (case, name)
        for case, name in itertools.product(CASES, plots.PLOTS)
        if "models" not in case or name in ("matrix", "knowledge", "class-flips")
    ],
)
def test_texts_are_within_the_figure_and_apart(case: str, name: str) -> None:
    for drawn in itertools.islice(plots.draw_all(results(case), [name]), 1):
        assert_readable(drawn)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_matrix_may_have_one_row_or_one_column(role: str) -> None:
    found = results("forty models")
    rows = found.ok("transfer")
    one = Results({**found.frames, "transfer": rows[rows[role] == MANY[0]]})
    (drawn,) = plots.draw_all(one, ["matrix"])
    assert_readable(drawn)


def assert_readable(drawn: plots.Drawn) -> None:
    boxes = laid_out(drawn.figure)
    width, height = drawn.figure.bbox.size
    for text, box in boxes:
        inside = box.x0 > -0.5 and box.y0 > -0.5 and box.x1 < width + 0.5
        assert inside and box.y1 < height + 0.5, f"{text!r} leaves the figure: {box}"
    assert not overlapping(boxes)
    assert drawn.figure.get_size_inches()[0] <= style.DOUBLE


def laid_out(figure: Figure) -> list[tuple[str, Bbox]]:
    """Each text and where it is, in pixels."""
    FigureCanvasAgg(figure)
    with style.applied():
        figure.draw_without_rendering()
        found = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
        for axes in figure.axes:
            for legend in figure.legends:
                inner = axes.get_window_extent()
                assert not overlap(legend.get_window_extent(), inner, 1), "a legend over the data"
    return found


def overlapping(boxes: list[tuple[str, Bbox]]) -> list[tuple[str, str]]:
    corners = np.array([box.extents for _, box in boxes])
    found = []
    for i, (text, _) in enumerate(boxes):
        x0, y0, x1, y1 = (corners[i + 1 :, k] for k in range(4))
        a0, b0, a1, b1 = corners[i]
        hit = (np.minimum(a1, x1) - np.maximum(a0, x0) > 1) & (
            np.minimum(b1, y1) - np.maximum(b0, y0) > 1
        )
        found += [(text, boxes[i + 1 + int(j)][0]) for j in np.flatnonzero(hit)]
    return found


def overlap(one: Bbox, other: Bbox, by: float) -> bool:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(width > by and height > by)


@pytest.mark.parametrize("name", plots.PLOTS)
def test_axes_say_what_they_show(name: str) -> None:
    drawn = next(plots.draw_all(results("usual"), [name]))
    figure = drawn.figure
    named = [axes for axes in figure.axes if axes.get_xlabel() and axes.get_ylabel()]
    above = figure.get_supxlabel() or figure.get_supylabel()
    assert named or above or name == "success"  # whose rows are methods by name
    assert "n = " in drawn.caption or name == "class-flips"
    assert drawn.caption.startswith(plots.PLOTS[name].title)


def test_labels_fit_a_column_at_their_size() -> None:
    figure = next(plots.draw_all(results("usual"), ["delta"])).figure
    assert figure.get_size_inches()[0] == style.COLUMN
    assert {text.get_fontsize() for text in texts(figure)} <= {style.FONT, style.SMALL}
