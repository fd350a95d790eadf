"""Plots of how transfers went: loss, accuracy and share taught after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kt_cli.report.codes import Floats
from kt_cli.report.groups import Group
from kt_cli.report.plots import style
from kt_cli.report.plots.binning import ByMethod
from kt_cli.report.plots.style import PlotResult
from kt_cli.rows.scan import stacked

PANELS = {
    "curve_loss": "training loss",
    "curve_acc": "top-1 on training views,\nchange since epoch 1 (pp)",
    "curve_taught": "views taught by teacher (%)",
}
MARKED = 12  # epochs, each of which has a mark
BANDS = 5  # methods whose bands are told apart
WIDE = 30.0  # ratio of losses from which their axis is logarithmic


class Line(NamedTuple):
    """One method's mean by epoch, and the ends of its band; all of its curves would take much."""

    mean: pd.Series[float]
    band: tuple[pd.Series[float], pd.Series[float]] | None


def curves(group: Group) -> PlotResult | None:
    """Mean of each curve over transfers, a line for each method, with a band."""
    by = ByMethod.of(group.rows, "delta")
    if not by.methods:
        return None
    few = len(by.methods) <= BANDS
    found = {name: _lines(by, name, few) for name in PANELS}
    shown = [name for name in found if any(len(line.mean) for line in found[name].values())]
    if not shown:
        return None
    figure = style.new_figure(max(style.COLUMN, style.DOUBLE * len(shown) / len(PANELS)), 2.3)
    looks = style.looks(by.methods)
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for method, line in found[name].items():
            _draw(axes, line, looks[method])
        axes.set(xlabel="epoch", ylabel=PANELS[name])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        _scale(axes, [line.mean for line in found[name].values()], name)
    style.method_legend(figure, axes, by.methods)
    band = "; bands: quartiles over transfers" if few else ""
    return PlotResult(figure, (by.note(), f"Lines: means over transfers{band}."))


def _lines(by: ByMethod, name: str, band: bool) -> dict[str, Line]:
    """One panel's, by method."""
    curves_ = by.rows[name]
    values, codes = stacked(curves_), by.codes[curves_.notna().to_numpy()]
    since_first = name == "curve_acc"  # students differ far more than epochs
    return {m: _line(values[codes == i], band, since_first) for i, m in enumerate(by.methods)}


def _line(values: Floats, band: bool, since_first: bool) -> Line:
    if since_first:
        values = values - values[:, :1]
    epochs = pd.DataFrame(values, columns=range(1, values.shape[1] + 1), copy=False)
    mean = epochs.mean().dropna()
    if not band or len(epochs) < 2 or mean.empty:
        return Line(mean, None)
    shown = epochs[mean.index]
    return Line(mean, (shown.quantile(0.25), shown.quantile(0.75)))


def _draw(axes: Axes, line: Line, look: dict[str, Any]) -> None:
    mean = line.mean
    if mean.empty:
        return
    every = 1 if len(mean) <= MARKED else len(mean) // 6
    axes.plot(mean.index, mean, **look, markevery=every, zorder=3)
    if line.band is not None:
        low, high = line.band
        axes.fill_between(mean.index, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _scale(axes: Axes, lines: Sequence[pd.Series[float]], name: str) -> None:
    """Losses of methods may be far apart; shares are percentages."""
    if name == "curve_loss":
        means = pd.concat(lines)
        if means.min() > 0 and means.max() > WIDE * means.min():
            axes.set_yscale("log")
            axes.set_ylim(means.min() / 3, means.max() * 3)
            style.logarithmic(axes.yaxis)
    elif name == "curve_taught":
        axes.set_ylim(-3, 103)
