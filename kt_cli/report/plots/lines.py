"""Lines of several methods with intervals: in one pair of axes, or, where many, in one each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kt_cli.report.codes import Floats
from kt_cli.report.plots import style
from kt_cli.report.plots.binning import Series

TOGETHER = 4  # methods whose intervals are told apart in one pair of axes
ACROSS = 4  # pairs of axes beside each other
DODGE = 0.008  # of the width, between the intervals of two methods


Dress = Callable[[Axes], object]  # what axes show besides the lines


def draw_lines(lines: Sequence[Series], xlabel: str, ylabel: str, dress: Dress) -> Figure:
    """A line for each method, in the order given; the legend is outside."""
    draw = _together if len(lines) <= TOGETHER else _apart
    return draw(lines, xlabel, ylabel, dress)


def _together(lines: Sequence[Series], xlabel: str, ylabel: str, dress: Dress) -> Figure:
    figure, axes = style.one_axes(xlabel, ylabel)
    dress(axes)
    log = axes.get_xscale() == "log"
    looks = style.looks([line.name for line in lines])
    every = np.concatenate([line.x for line in lines])
    span = np.ptp(np.log(every) if log else every)
    for i, line in enumerate(lines):
        by = (i - (len(lines) - 1) / 2) * DODGE * span
        _line(axes, line, line.x * np.exp(by) if log else line.x + by, looks[line.name])
    if len(lines) > 1:
        style.method_legend(figure, axes, list(looks))
    else:
        axes.set_title(lines[0].name, loc="left", color=looks[lines[0].name]["color"])
    return figure


def _apart(lines: Sequence[Series], xlabel: str, ylabel: str, dress: Dress) -> Figure:
    """One pair of axes for each method; the others stand behind it in grey."""
    across = min(ACROSS, -(-len(lines) // 2))
    down = -(-len(lines) // across)
    figure = style.new_figure(style.DOUBLE, 0.45 + 1.15 * down)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    looks = style.looks([line.name for line in lines])
    for axes, line in zip(grid, lines, strict=False):
        dress(axes)
        for other in lines:
            if other is not line:
                axes.plot(other.x, other.y, color=style.PALE, linewidth=0.6, zorder=1)
        _line(axes, line, line.x, looks[line.name])
        axes.set_title(line.name, loc="left", fontsize=style.FONT)
    for axes in grid[len(lines) :]:
        axes.remove()
    for axes in grid[max(0, len(lines) - across) : len(lines)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(xlabel, fontsize=style.FONT)
    figure.supylabel(ylabel, fontsize=style.FONT)
    return figure


def _line(axes: Axes, line: Series, x: Floats, look: dict[str, Any]) -> None:
    ends = np.maximum(np.vstack([line.y - line.low, line.high - line.y]), 0)  # NaN stays
    axes.errorbar(x, line.y, ends, **look, elinewidth=0.7, capsize=1.5, capthick=0.7, zorder=3)
