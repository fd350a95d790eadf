"""Plots of what transfer does, by method: how often it helps, by how much, what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from kt_cli.errors import counted
from kt_cli.report.codes import Floats
from kt_cli.report.derived import derived
from kt_cli.report.groups import KEYS, Group
from kt_cli.report.intervals import numbers
from kt_cli.report.plots import binning, style
from kt_cli.report.plots.binning import ByMethod
from kt_cli.report.plots.lines import draw_lines
from kt_cli.report.plots.pairs import DIFFERENCE, cloud
from kt_cli.report.plots.style import GREY, INK, Marks, PlotResult
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Interval
from kt_cli.rows import schema

NAME = 20  # letters of a method
WIDE = 4.6  # inches of two axes beside each other
POINTS = Column("", kind="signed")
WITHIN = 0.98  # of the transfers, at least, are within the axes of gain and loss
BARS = "Bars: 95% intervals, each model left out in turn."
RATE = "transfer rate (% of ρ⁺)"
# Columns of the rate, from the fewest classes to all.
CLASSES = {f"top{p}_rate": f"{p}%" for p in schema.TOP_PERCENTS} | {"transfer_rate": "all"}
SIZE = "student_params_m"
SIZES = 6  # groups of students, at most
LIKE = 1.25  # ratio of sizes up to which students are in one group


def success(group: Group) -> PlotResult | None:
    """Share of transfers with Δ > 0, and mean Δ, by method."""
    found = ByMethod.of(group.rows, "delta")
    if not found.methods:
        return None
    won = np.where(numbers(found.rows, "delta") > 0, 100.0, 0.0)
    shares, means = found.pairs.means(won, percent=True), found.means("delta")
    places = np.arange(len(shares))
    figure = style.new_figure(WIDE, 0.75 + 0.2 * len(shares))
    left, right = figure.subplots(1, 2, sharey=True)
    values = [share.value for share in shares]
    left.barh(places, values, 0.62, color=style.PALE, edgecolor=INK, linewidth=0.6, zorder=2)
    middle = [mean.value for mean in means]
    right.plot(middle, places, color=INK, marker="o", linestyle="", zorder=3)
    each = zip(values, found.counts, strict=True)
    counts = [f"{share:.0f}% of {count:,}" for share, count in each]
    _ends(left, shares, counts)
    _ends(right, means, list(map(POINTS.show, middle)))
    left.axvline(50, color=GREY, linestyle=":", zorder=1)
    right.axvline(0, color=GREY, linestyle=":", zorder=1)
    names = style.short_names(found.methods, NAME)
    left.set_yticks(places, [names[method] for method in found.methods])
    left.invert_yaxis()
    left.set_xlim(0, 100)
    left.set_xlabel("transfers with Δ > 0 (%)")
    right.set_xlabel("mean Δ (pp)")
    return PlotResult(figure, (found.note(), BARS))


def _ends(axes: Axes, found: Sequence[Interval], texts: Sequence[str]) -> None:
    """The intervals of values, one below the other, and what is said of each beside them."""
    for place, (one, text) in enumerate(zip(found, texts, strict=True)):
        if np.isfinite(one.low):
            axes.plot([one.low, one.high], [place, place], color=INK, marker="|", zorder=3)
        axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center",
                      fontsize="small", annotation_clip=False)  # fmt: skip


def delta(group: Group) -> PlotResult | None:
    """Mean Δ in bins of the difference in accuracy, a line for each method."""
    found = ByMethod.of(group.rows, "acc_diff", "delta")
    if not found.methods:
        return None
    x = numbers(found.rows, "acc_diff")
    limits = binning.edges(x)
    figure = draw_lines(
        found.lines(x, "delta", binning.places(x, limits)), DIFFERENCE, "transfer delta Δ (pp)",
        lambda axes: axes.axhline(0.0, color=GREY, linewidth=0.7, zorder=1),
    )  # fmt: skip
    binned = f"Means in bins of {limits[1] - limits[0]:g} pp."
    return PlotResult(figure, (found.note(), binned, BARS))


def gain_loss(group: Group) -> PlotResult | None:
    """Gain against loss: each transfer, and the mean of each method."""
    found = ByMethod.of(group.rows, "loss", "gain")
    if not found.methods:
        return None
    x, y = numbers(found.rows, "loss"), numbers(found.rows, "gain")
    means = np.array([np.bincount(found.codes, values) for values in (x, y)]) / found.counts
    top = 1.05 * max(*np.quantile([x, y], WITHIN, axis=1), means.max()) or 1.0
    within = (x <= top) & (y <= top)
    labels = "knowledge loss (% of images)", "knowledge gain (% of images)"
    figure, axes = style.one_axes(*labels, height=2.6)
    cloud(figure, axes, x[within], y[within], "transfers", color=GREY, s=5, alpha=0.4)
    axes.plot([0, top], [0, top], color=INK, linewidth=0.7, linestyle=":", zorder=1)
    large = {"markersize": 6.5, "markeredgewidth": 0.6, "linestyle": "", "zorder": 4}
    marks = {}
    looks = style.looks(found.methods)
    for (method, look), mean in zip(looks.items(), means.T, strict=True):
        face = look["markerfacecolor"]
        edge = look["color"] if face == "white" else "white"  # a mark may lie on others
        (marks[method],) = axes.plot(*mean, **{**look, "markeredgecolor": edge, **large})
    axes.set(xlim=(0, top), ylim=(0, top))
    style.legend_below(figure, marks)
    beyond = int((~within).sum())
    outside = f" {counted(beyond, 'transfer')} beyond the axes." if beyond else ""
    note = f"Large marks: means; small ones: transfers; above the dotted line Δ > 0.{outside}"
    return PlotResult(figure, (found.note(), note), Marks(axes, x, y, found.rows.index))


def rate_classes(group: Group) -> PlotResult | None:
    """Mean transfer rate within the top-p% classes, a line for each method."""
    found = ByMethod.of(group.rows, "transfer_rate")
    columns = [c for c in CLASSES if c in group.rows and np.isfinite(numbers(group.rows, c)).any()]
    if not found.methods or columns == ["transfer_rate"]:
        return None
    places = [float(list(CLASSES).index(column)) for column in columns]
    means = zip(*map(found.means, columns), strict=True)
    lines = [binning.line(*one) for one in zip(found.methods, repeat(np.array(places)), means)]

    def dress(axes: Axes) -> None:
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([CLASSES[column] for column in columns])

    figure = draw_lines(lines, "classes that hold a share of ρ⁺", RATE, dress)
    note = f"2%: the fewest classes that hold 2% of ρ⁺. {BARS}"
    return PlotResult(figure, (found.note(), note))


def rate_size(group: Group) -> PlotResult | None:
    """Mean transfer rate against the student's parameters, a line for each method."""
    found = ByMethod.of(group.rows[numbers(group.rows, SIZE) > 0], "transfer_rate")
    size = numbers(found.rows, SIZE)
    sizes = np.unique(size)
    if len(sizes) < 2:
        return None
    limits = _size_limits(sizes)
    lines = found.lines(np.log(size), "transfer_rate", binning.places(size, limits))
    lines = [replace(line, x=np.exp(line.x)) for line in lines]

    def dress(axes: Axes) -> None:
        axes.set_xscale("log")
        style.logarithmic(axes.xaxis)

    figure = draw_lines(lines, "parameters of the student (millions)", RATE, dress)
    grouped = f"Students of like size together: {len(limits) - 1} groups."
    return PlotResult(figure, (found.note(), grouped, BARS))


def with_sizes(results: Results) -> pd.DataFrame:
    """Transfers, with the millions of parameters of their student where these are known."""
    rows = results.ok("transfer")
    few = rows[["sweep", *KEYS["transfer"], "transfer_rate"]]  # each group of them is copied
    return derived(few, [SIZE], results.ok("models"))


def _size_limits(sizes: Floats) -> Floats:
    """Limits of groups of sizes (sorted): of like ones, or of as many in each where many differ."""
    starts = [sizes[0]]
    for size in sizes:
        if size > LIKE * starts[-1]:
            starts.append(size)
    if len(starts) > SIZES:
        starts = list(np.unique(np.quantile(sizes, np.arange(SIZES) / SIZES)))
    return np.array([*starts, np.inf])
