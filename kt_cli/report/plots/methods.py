"""Plots of what transfer does, by method."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kt_cli.report.captions import counted
from kt_cli.report.groups import Group
from kt_cli.report.intervals import mean_interval
from kt_cli.report.methods import method_rank
from kt_cli.report.plots import binning
from kt_cli.report.plots.binning import by_method, numbers
from kt_cli.report.plots.lines import Frame, draw_lines
from kt_cli.report.plots.pairs import DIFFERENCE
from kt_cli.report.plots.plot_result import PlotResult
from kt_cli.report.plots.scatter import cloud
from kt_cli.report.plots.style import (
    COLUMN,
    GREY,
    INK,
    PALE,
    legend_below,
    looks,
    new_figure,
    one_axes,
    short_names,
)

NAME = 20  # letters of a method
WITHIN = 0.98  # of the transfers, at least, are within the axes of gain and loss
BARS = "Bars: 95% intervals, each model left out in turn."


def success(group: Group) -> PlotResult | None:
    """Share of transfers with Δ > 0 by method."""
    parts = parts_of(group.rows, "delta")
    if not parts:
        return None
    shares = {m: rows.assign(success=100.0 * (rows["delta"] > 0)) for m, rows in parts.items()}
    found = [mean_interval(rows, "success", percent=True) for rows in shares.values()]
    places = np.arange(len(parts))
    figure = new_figure(COLUMN, 0.75 + 0.2 * len(parts))
    axes = figure.add_subplot()
    values = [one.value for one in found]
    axes.barh(places, values, 0.62, color=PALE, edgecolor=INK, linewidth=0.6, zorder=2)
    for place, one, rows in zip(places, found, shares.values(), strict=True):
        if np.isfinite(one.low):
            axes.plot([one.low, one.high], [place, place], color=INK, marker="|", zorder=3)
        text = f"{one.value:.0f}% of {len(rows):,}"
        axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center",
                      fontsize="small", annotation_clip=False)  # fmt: skip
    axes.axvline(50, color=GREY, linestyle=":", zorder=1)
    names = short_names(list(parts), NAME)
    axes.set_yticks(places, [names[method] for method in parts])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("transfers with Δ > 0 (%)")
    return PlotResult(figure, (count_note(parts), BARS))


def delta(group: Group) -> PlotResult | None:
    """Mean Δ in bins of the difference in accuracy, a line for each method."""
    rows = group.rows[np.isfinite(numbers(group.rows, "acc_diff"))]
    parts = parts_of(rows, "delta")
    if not parts:
        return None
    limits = binning.edges(np.concatenate([numbers(part, "acc_diff") for part in parts.values()]))
    lines = [
        binning.binned_means(part, "acc_diff", "delta", limits, method)
        for method, part in parts.items()
    ]
    frame = Frame(DIFFERENCE, "transfer delta Δ (pp)", zero=0.0)
    width = f"{limits[1] - limits[0]:g}"
    return PlotResult(
        draw_lines(lines, frame), (count_note(parts), f"Means in bins of {width} pp.", BARS)
    )


def gain_loss(group: Group) -> PlotResult | None:
    """Gain against loss: each transfer, and the mean of each method."""
    known = np.isfinite(numbers(group.rows, "gain")) & np.isfinite(numbers(group.rows, "loss"))
    parts = parts_of(group.rows[known], "gain")
    if not parts:
        return None
    rows = pd.concat(list(parts.values()))
    x, y = numbers(rows, "loss"), numbers(rows, "gain")
    means = {m: (numbers(r, "loss").mean(), numbers(r, "gain").mean()) for m, r in parts.items()}
    top = 1.05 * max(*np.quantile([x, y], WITHIN, axis=1), *map(max, means.values())) or 1.0
    within = (x <= top) & (y <= top)
    figure, axes = one_axes(
        "knowledge loss (% of images)", "knowledge gain (% of images)", height=2.6
    )
    cloud(figure, axes, x[within], y[within], "transfers", color=GREY, s=5, alpha=0.4)
    axes.plot([0, top], [0, top], color=INK, linewidth=0.7, linestyle=":", zorder=1)
    styles = looks(list(parts))
    marks = {"markersize": 6.5, "markeredgewidth": 0.6, "linestyle": "", "zorder": 4}
    handles = [axes.plot(*means[m], **{**styles[m].stamp(), **marks})[0] for m in parts]
    axes.set(xlim=(0, top), ylim=(0, top))
    legend_below(figure, handles, list(parts))
    beyond = int((~within).sum())
    outside = f" {counted(beyond, 'transfer')} beyond the axes." if beyond else ""
    note = f"Large marks: means; small ones: transfers; above the dotted line Δ > 0.{outside}"
    return PlotResult(figure, (count_note(parts), note))


def parts_of(rows: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """The rows with a value in `column` of each method that has some, in the paper's order."""
    parts = by_method(rows[np.isfinite(numbers(rows, column))])
    return {method: parts[method] for method in sorted(parts, key=method_rank)}


def count_note(parts: Mapping[str, pd.DataFrame]) -> str:
    """How many transfers there are by method: one number where all have as many."""
    counts = [len(rows) for rows in parts.values()]
    if len(set(counts)) == 1:
        by = f"by {next(iter(parts))}" if len(counts) == 1 else "of each method"
        return f"n = {counted(counts[0], 'transfer')} {by}."
    named = (f"{count:,} by {method}" for method, count in zip(parts, counts, strict=True))
    return f"n = {', '.join(named)}."
