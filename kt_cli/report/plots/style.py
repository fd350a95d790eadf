"""How all plots look: sizes, colours, markers, names; figures without pyplot.

Colours are Okabe and Ito's, told apart by the colour-blind; markers and line styles repeat what
they say, so that nothing is lost in grey.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from kt_cli.report.methods import METHOD_ORDER, method_rank
from kt_cli.report.table import Column

COLUMN, DOUBLE = 3.25, 6.75  # widths in inches of a column and of a page with two
INK, GREY, PALE = "#222222", "#8a8a8a", "#c8c8c8"
BLUE, ORANGE, GREEN, RED, PINK, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip
COLOURS = (RED, ORANGE, PINK, SKY, BLUE, GREEN, "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*", "8")
DASHES = ("-", "--", ":")
FILLS = {"guard": "white", "safe": "0.85", "shrink": "0.6"}  # of guarded methods' marks
FONT, SMALL = 8.0, 7.0
BELOW: Final = "outside lower center"
LEGEND_ROW = 0.16  # inches
TIMM = re.compile(r"[a-z]\w+\.\w+")  # an architecture with a tag
NAME = 24  # letters of a model's name
SHORT = 40  # letters of a label that has a line of the legend for itself
signed = Column("points", kind="signed", digits=1).show

_RC: dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": FONT,
    "axes.titlesize": FONT, "axes.labelsize": FONT,
    "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL, "legend.frameon": False,
    "legend.handlelength": 2.2, "legend.columnspacing": 1.2,
    "figure.dpi": 100, "savefig.dpi": 300,
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.unicode_minus": True,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.color": INK, "ytick.color": INK,
    "text.color": INK, "text.parse_math": False,  # names are foreign text
    "lines.linewidth": 1.1, "lines.markersize": 3.6, "hatch.linewidth": 0.5,
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "svg.fonttype": "path",
}  # fmt: skip


class Marks(NamedTuple):
    """What observations (n,) are drawn at (x, y) in axes, as the rows of an index."""

    axes: Axes
    x: Any
    y: Any
    rows: Any
    cells: bool = False  # whether each fills a square of 1 × 1 around its place


class PlotResult(NamedTuple):
    """A figure, and the sentences that explain it (n, what marks and bands are)."""

    figure: Figure
    notes: tuple[str, ...]
    marks: Marks | None = None


@contextmanager
def applied(salt: str = "kt") -> Iterator[None]:
    """Draw and save in this style, whatever the user's matplotlibrc says.

    Args:
        salt: what the identifiers of an SVG are made from.
    """
    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_RC, "svg.hashsalt": salt}
    for name in ("backend", "backend_fallback"):
        style.pop(name)
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # what the font lacks becomes a box
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))


def one_axes(xlabel: str, ylabel: str, height: float = 2.3) -> tuple[Figure, Axes]:
    """A figure of a column's width with one pair of axes, named."""
    figure = new_figure(COLUMN, height)
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return figure, axes


def looks(methods: Collection[str]) -> dict[str, dict[str, Any]]:
    """Of each method how its line is drawn, in the paper's order: everywhere the same."""
    ordered = sorted(methods, key=method_rank)
    split = {method: method.partition("+") for method in ordered}
    bases = dict.fromkeys((*METHOD_ORDER, *(base for base, _, _ in split.values())))
    places = {name: i for i, name in enumerate(bases)}
    return {m: _look(places[b], guard.partition(":")[0]) for m, (b, _, guard) in split.items()}


def _look(place: int, guard: str) -> dict[str, Any]:
    colour = COLOURS[place % len(COLOURS)]
    return {
        "color": colour,
        "linestyle": ":" if guard else DASHES[place // len(COLOURS) % 2],
        "marker": MARKERS[place % len(MARKERS)],
        "markerfacecolor": FILLS.get(guard, "white") if guard else colour,
        "markeredgecolor": colour,
    }


def legend_below(figure: Figure, marks: Mapping[str, Artist]) -> None:
    """A legend under the axes, in as many columns as fit; the figure grows by its rows."""
    width, height = figure.get_size_inches()
    labels, handles = list(marks), list(marks.values())
    for columns in range(min(len(labels), 6), 0, -1):
        legend = figure.legend(handles, labels, loc=BELOW, ncols=columns)
        if legend.get_window_extent().width <= figure.bbox.width - 4:
            break
        legend.remove()
    else:
        short = short_names(labels, SHORT)
        labels = [short[label] for label in labels]
        figure.legend(handles, labels, loc=BELOW, ncols=columns)
    rows = -(-len(labels) // columns) * (max(label.count("\n") for label in labels) + 1)
    figure.set_size_inches(width, height + LEGEND_ROW * rows)


def method_legend(figure: Figure, axes: Axes, methods: Collection[str]) -> None:
    """A legend below of what the lines of methods look like."""
    styles = looks(methods)
    legend_below(figure, {m: axes.plot([], [], **look)[0] for m, look in styles.items()})


def short_names(names: Collection[str], most: int = NAME) -> dict[str, str]:
    """Each name in at most `most` letters, and different names still different.

    A timm tag goes first, where no other name has the same architecture; then the middle.
    """
    bare = {n: n.partition(".")[0] if TIMM.fullmatch(n) else n for n in names}
    counts = Counter(bare.values())
    taken: Counter[str] = Counter()
    result = {}
    for name in sorted(names):
        text = _elide(bare[name] if counts[bare[name]] == 1 else name, most)
        taken[text] += 1
        number = f"({taken[text]})" if taken[text] > 1 else ""
        result[name] = _elide(text, most - len(number)) + number
    return result


def _elide(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    tail = (most - 1) * 2 // 5
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def slug(text: str) -> str:
    """Text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.") or "sweep"


def logarithmic(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers, at 1, 2 and 5 times powers of ten if few."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    axis.set_major_locator(LogLocator(10, subs=subs, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
