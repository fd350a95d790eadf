"""Lines of several methods with intervals: in one pair of axes, or, where many, in one each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from kt_cli.report.plots.binning import Series, Values
from kt_cli.report.plots.style import (
    DOUBLE,
    FONT,
    GREY,
    PALE,
    Look,
    legend_below,
    logarithmic,
    looks,
    new_figure,
    one_axes,
)

TOGETHER = 4  # methods whose intervals are told apart in one pair of axes
ACROSS = 4  # pairs of axes beside each other
DODGE = 0.008  # of the width, between the intervals of two methods


@dataclass(frozen=True)
class Frame:
    """The axes of a plot: names with units, and what they show besides the lines.

    Attributes:
        ticks: place and text of each tick of x; empty for numbers.
        zero: where a horizontal line says "no change"; None for nowhere.
        log: whether x is logarithmic.
    """

    xlabel: str
    ylabel: str
    ticks: Sequence[tuple[float, str]] = ()
    zero: float | None = None
    log: bool = False

    def dress(self, axes: Axes) -> None:
        if self.log:
            axes.set_xscale("log")
            logarithmic(axes.xaxis)
        if self.zero is not None:
            axes.axhline(self.zero, color=GREY, linewidth=0.7, zorder=1)
        if self.ticks:
            axes.xaxis.set_major_locator(FixedLocator([place for place, _ in self.ticks]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels([text for _, text in self.ticks])


def draw_lines(lines: Sequence[Series], frame: Frame) -> Figure:
    """A line for each method, in the order given; the legend is outside."""
    styles = looks([line.name for line in lines])
    if len(lines) <= TOGETHER:
        return _together(lines, styles, frame)
    return _apart(lines, styles, frame)


def _together(lines: Sequence[Series], styles: Mapping[str, Look], frame: Frame) -> Figure:
    figure, axes = one_axes(frame.xlabel, frame.ylabel)
    frame.dress(axes)
    span = _span(lines, frame.log)
    for i, line in enumerate(lines):
        x = _moved(line.x, (i - (len(lines) - 1) / 2) * DODGE * span, frame.log)
        _line(axes, line, x, styles[line.name])
    if len(lines) > 1:
        handles = [axes.plot([], [], **styles[line.name].line())[0] for line in lines]
        legend_below(figure, handles, [line.name for line in lines])
    else:
        axes.set_title(lines[0].name, loc="left", color=styles[lines[0].name].colour)
    return figure


def _apart(lines: Sequence[Series], styles: Mapping[str, Look], frame: Frame) -> Figure:
    """One pair of axes for each method; the others stand behind it in grey."""
    across = min(ACROSS, -(-len(lines) // 2))
    down = -(-len(lines) // across)
    figure = new_figure(DOUBLE, 0.45 + 1.15 * down)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, line in zip(grid, lines, strict=False):
        frame.dress(axes)
        for other in lines:
            if other is not line:
                axes.plot(other.x, other.y, color=PALE, linewidth=0.6, zorder=1)
        _line(axes, line, line.x, styles[line.name])
        axes.set_title(line.name, loc="left", fontsize=FONT)
    for axes in grid[len(lines) :]:
        axes.remove()
    for axes in grid[max(0, len(lines) - across) : len(lines)]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel(frame.xlabel, fontsize=FONT)
    figure.supylabel(frame.ylabel, fontsize=FONT)
    return figure


def _line(axes: Axes, line: Series, x: Values, look: Look) -> None:
    ends = np.maximum(np.vstack([line.y - line.low, line.high - line.y]), 0)  # NaN stays
    axes.errorbar(
        x, line.y, ends, **look.line(), elinewidth=0.7, capsize=1.5,
        capthick=0.7, zorder=3,
    )  # fmt: skip


def _span(lines: Sequence[Series], log: bool) -> float:
    every = np.concatenate([line.x for line in lines])
    every = np.log(every) if log else every
    return float(np.ptp(every)) if len(every) else 0.0


def _moved(x: Values, by: float, log: bool) -> Values:
    moved: Values = x * np.exp(by) if log else x + by
    return moved
