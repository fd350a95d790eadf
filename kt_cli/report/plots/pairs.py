"""Plots of complementary knowledge: ordered pairs of models before any transfer."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kt_cli.report.captions import counted
from kt_cli.report.groups import Group
from kt_cli.report.plots import binning
from kt_cli.report.plots.binning import Values, numbers
from kt_cli.report.plots.plot_result import PlotResult
from kt_cli.report.plots.scatter import cloud
from kt_cli.report.plots.style import BLUE, GREY, INK, RED, legend_below, one_axes

DIFFERENCE = "teacher − student accuracy (pp)"


def knowledge(group: Group) -> PlotResult | None:
    """ρ⁺ against the difference in accuracy, with what an untrained teacher "knows"."""
    pairs, untrained = trained(group.rows)
    x, y = numbers(pairs, "acc_diff"), numbers(pairs, "pos_flips")
    if not _any(x, y):
        return None
    figure, axes = one_axes(DIFFERENCE, "ρ⁺ (% of images)")
    marks = _cloud_and_median(figure, axes, x, y)
    ends = np.array([np.nanmin(x), 0, np.nanmax(x)])
    ends = np.unique(np.clip(ends, ends[0], ends[2]))
    (least,) = axes.plot(ends, np.maximum(ends, 0), color=GREY, linestyle=":", zorder=1)
    marks |= {"least possible": least}
    notes = [pairs_note(pairs, x, y), "No ρ⁺ is below the difference itself (least possible)."]
    chance = numbers(untrained, "pos_flips")
    if np.isfinite(chance).any():
        level = float(np.nanmedian(chance))
        marks["untrained teacher"] = axes.axhline(level, color=RED, linestyle="--", zorder=2)
        notes.append(
            f"Untrained teacher: median ρ⁺ {level:.2f}% of "
            f"{counted(len(chance), 'pair')} with a randomly initialised teacher."
        )
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    legend_below(figure, list(marks.values()), list(marks))
    return PlotResult(figure, tuple(notes))


def entropy(group: Group) -> PlotResult | None:
    """Entropy of the positive flips over classes against the difference in accuracy."""
    pairs, _ = trained(group.rows)
    x, y = numbers(pairs, "acc_diff"), numbers(pairs, "flip_entropy")
    if not _any(x, y):
        return None
    classes = int(pairs["num_classes"].iloc[0])
    figure, axes = one_axes(DIFFERENCE, "entropy of ρ⁺ (nats)")
    marks = _cloud_and_median(figure, axes, x, y)
    uniform = math.log(classes)
    marks["uniform over the classes"] = axes.axhline(uniform, color=GREY, linestyle=":", zorder=1)
    legend_below(figure, list(marks.values()), list(marks))
    return PlotResult(figure, (
        pairs_note(pairs, x, y),
        f"Uniform: ln C = {uniform:.2f} nats for C = {classes:,} classes.",
    ))  # fmt: skip


def trained(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs with a trained teacher, and those with a randomly initialised one."""
    keys = [key for key in rows["teacher_key"].unique() if str(key).startswith("random:")]
    untrained = rows["teacher_key"].isin(keys)
    return rows[~untrained], rows[untrained]


def _any(x: Values, y: Values) -> bool:
    return bool((np.isfinite(x) & np.isfinite(y)).any())


def _cloud_and_median(figure: Figure, axes: Axes, x: Values, y: Values) -> dict[str, Artist]:
    """Draws both; what the legend says of them."""
    marks: dict[str, Artist] = {}
    if cloud(figure, axes, x, y, "pairs", color=BLUE):
        marks["pair of models"] = axes.collections[-1]
    places, medians = binning.binned_median(x, y, binning.edges(x))
    if len(places) > 1:
        (marks["median"],) = axes.plot(places, medians, color=INK, marker="s", zorder=3)
    return marks


def pairs_note(pairs: pd.DataFrame, x: Values, y: Values) -> str:
    """How many pairs have both values, of how many models."""
    count = int((np.isfinite(x) & np.isfinite(y)).sum())
    models = {*pairs["teacher"].unique(), *pairs["student"].unique()}
    return f"n = {counted(count, 'ordered pair')} of {counted(len(models), 'model')}."
