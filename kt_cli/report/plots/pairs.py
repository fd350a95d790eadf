"""Plots of complementary knowledge: ordered pairs of models before any transfer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from kt_cli.errors import counted
from kt_cli.report.codes import Floats
from kt_cli.report.groups import Group, models_of, trained
from kt_cli.report.intervals import numbers
from kt_cli.report.plots import binning, style
from kt_cli.report.plots.style import Marks, PlotResult

DIFFERENCE = "teacher − student accuracy (pp)"
AS_POINTS = 3000  # at most
AS_SHAPES = 300  # more points are one small picture within the file
CELLS = 36  # hexagons across
GREYS = LinearSegmentedColormap.from_list("greys", ["#e4e4e4", "#5a5a5a"])


def knowledge(group: Group) -> PlotResult | None:
    """ρ⁺ against the difference in accuracy, with what an untrained teacher "knows"."""
    pairs, untrained = trained(group.rows)
    x, y = numbers(pairs, "acc_diff"), numbers(pairs, "pos_flips")
    if not _both(x, y).any():
        return None
    figure, axes = style.one_axes(DIFFERENCE, "ρ⁺ (% of images)")
    marks = _cloud_and_median(figure, axes, x, y)
    ends = np.array([np.nanmin(x), 0, np.nanmax(x)])
    ends = np.unique(np.clip(ends, ends[0], ends[2]))
    (marks["least possible"],) = axes.plot(
        ends, np.maximum(ends, 0), color=style.GREY, linestyle=":", zorder=1
    )
    notes = [pairs_note(pairs, x, y), "No ρ⁺ is below the difference itself (least possible)."]
    chance = numbers(untrained, "pos_flips")
    if np.isfinite(chance).any():
        level = float(np.nanmedian(chance))
        marks["untrained teacher"] = axes.axhline(level, color=style.RED, linestyle="--", zorder=2)
        notes.append(
            f"Untrained teacher: median ρ⁺ {level:.2f}% of "
            f"{counted(len(chance), 'pair')} with a randomly initialised teacher."
        )
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    style.legend_below(figure, marks)
    return PlotResult(figure, tuple(notes), Marks(axes, x, y, pairs.index))


def entropy(group: Group) -> PlotResult | None:
    """Entropy of the positive flips over classes against the difference in accuracy."""
    pairs, _ = trained(group.rows)
    x, y = numbers(pairs, "acc_diff"), numbers(pairs, "flip_entropy")
    if not _both(x, y).any():
        return None
    classes = int(pairs["num_classes"].iloc[0])
    figure, axes = style.one_axes(DIFFERENCE, "entropy of ρ⁺ (nats)")
    marks = _cloud_and_median(figure, axes, x, y)
    uniform = math.log(classes)
    line = axes.axhline(uniform, color=style.GREY, linestyle=":", zorder=1)
    style.legend_below(figure, {**marks, "uniform over the classes": line})
    note = f"Uniform: ln C = {uniform:.2f} nats for C = {classes:,} classes."
    return PlotResult(figure, (pairs_note(pairs, x, y), note), Marks(axes, x, y, pairs.index))


def _both(x: Floats, y: Floats) -> Any:
    return np.isfinite(x) & np.isfinite(y)


def _cloud_and_median(figure: Figure, axes: Axes, x: Floats, y: Floats) -> dict[str, Artist]:
    """Draws both; what the legend says of them."""
    marks: dict[str, Artist] = {}
    if cloud(figure, axes, x, y, "pairs", color=style.BLUE):
        marks["pair of models"] = axes.collections[-1]
    places, medians = binning.binned_median(x, y)
    if len(places) > 1:
        (marks["median"],) = axes.plot(places, medians, color=style.INK, marker="s", zorder=3)
    return marks


def cloud(figure: Figure, axes: Axes, x: Floats, y: Floats, what: str, **look: Any) -> bool:
    """Draw observations (n,), called `what`, against each other; those with a NaN are left out.

    Returns:
        Whether they are drawn as points; else, as these would hide each other, the shade of a
        hexagon says how many lie there, and a scale is beside the axes.
    """
    known = _both(x, y)
    x, y = x[known], y[known]
    if len(x) <= AS_POINTS:
        raster = len(x) > AS_SHAPES
        axes.scatter(x, y, **{"s": 9, "linewidths": 0, "alpha": 0.6, **look}, rasterized=raster)
        return True
    cells = axes.hexbin(
        x, y, gridsize=CELLS, mincnt=1, cmap=GREYS, norm=LogNorm(), linewidths=0, rasterized=True
    )
    scale = figure.colorbar(cells, ax=axes, pad=0.02, aspect=30)
    scale.set_label(f"{what} per hexagon")
    style.logarithmic(scale.ax.yaxis)
    scale.outline.set_visible(False)
    return False


def pairs_note(pairs: pd.DataFrame, x: Floats, y: Floats) -> str:
    """How many pairs have both values, of how many models."""
    count, models = int(_both(x, y).sum()), counted(models_of(pairs), "model")
    return f"n = {counted(count, 'ordered pair')} of {models}."
