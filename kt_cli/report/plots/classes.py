"""Plots of where complementary knowledge lies: in which classes, and how alike these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kt_cli.report.captions import counted
from kt_cli.report.groups import SAME_DATA, Group, split
from kt_cli.report.plots.binning import numbers
from kt_cli.report.plots.pairs import pairs_note, trained
from kt_cli.report.plots.plot_result import PlotResult
from kt_cli.report.plots.style import (
    BLUE,
    DOUBLE,
    GREEN,
    GREY,
    INK,
    PALE,
    RED,
    legend_below,
    new_figure,
    one_axes,
    short_names,
    signed,
)
from kt_cli.report.query import Query
from kt_cli.report.read import Results, read_results
from kt_cli.rows import schema

# Kinds of teacher: the quantile of the accuracy differences, and the look.
KINDS: dict[str, tuple[float | None, dict[str, Any]]] = {
    "weak": (0.1, {"color": RED, "marker": "v", "linestyle": ":"}),
    "equal": (None, {"color": GREEN, "marker": "s", "linestyle": "--"}),
    "strong": (0.9, {"color": BLUE, "marker": "^", "linestyle": "-"}),
}
SIGNS = {"weak": -1, "equal": 0, "strong": 1}  # of the accuracy difference; 0 for any
ROLES = ("teacher", "student")
LINE = 48  # letters of the legend that fit a line
FEW_CLASSES = 30  # whose points are marked
BOX: dict[str, Any] = {"boxprops": {"facecolor": PALE, "edgecolor": INK, "linewidth": 0.7},
       "medianprops": {"color": INK, "linewidth": 1.4},
       "whiskerprops": {"linewidth": 0.7}, "capprops": {"linewidth": 0.7}}  # fmt: skip


def class_flips(group: Group) -> PlotResult | None:
    """Share of ρ⁺ in each class, from the largest: the rows of `with_examples`."""
    if group.rows.empty:
        return None
    figure, axes = one_axes("class, sorted by its share (rank)", "share of ρ⁺ (%)")
    names = short_names({str(name) for role in ROLES for name in group.rows[role]})
    labels, handles = [], []
    classes = int(group.rows["num_classes"].iloc[0])
    for pair in group.rows.to_dict("records"):
        flips = np.sort(np.asarray(pair["flips_by_class"], dtype=np.float64))[::-1]
        look = dict(KINDS[pair["kind"]][1])
        if classes > FEW_CLASSES:
            look["marker"] = ""
        handles += axes.plot(np.arange(1, classes + 1), 100 * flips / flips.sum(), **look)
        teacher, student = (names[str(pair[role])] for role in ROLES)
        label = f"{pair['kind']} ({signed(pair['acc_diff'])} pp): {teacher} → {student}"
        labels.append(label if len(label) <= LINE else label.replace("→ ", "→\n"))
    handles.append(axes.axhline(100 / classes, color=GREY, linewidth=0.8, zorder=1))
    labels.append("uniform over the classes")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=2))
    axes.set_xlim(0.5, classes + 0.5)
    axes.set_ylim(bottom=0)
    legend_below(figure, handles, labels)
    return PlotResult(figure, tuple(map(_example_note, group.rows.to_dict("records"))))


def with_examples(results: Results) -> pd.DataFrame:
    """The pairs that stand for a weak, an equal and a strong teacher in each group, as `kind`.

    The flips of each class are read for them alone: of all pairs they would fill the memory.
    """
    rows = results.ok("complementarity")
    pairs, _ = trained(rows[rows["by_class"].eq(True) & (rows["pos_flips"] > 0)])
    found = [_with_flips(examples(group.rows), results) for group in split(pairs, SAME_DATA)]
    kept = [part[part["flips_by_class"].notna()] for part in found]
    return pd.concat(kept, ignore_index=True) if kept else pairs.assign(flips_by_class=None)


def examples(pairs: pd.DataFrame) -> pd.DataFrame:
    """A pair for each of KINDS: at the 10% and 90% quantile of the accuracy differences, and with
    the smallest; of equal ones the first by name. A weak teacher is weaker, a strong one stronger.
    """
    ordered = pairs.sort_values(list(ROLES), ignore_index=True)
    difference = numbers(ordered, "acc_diff")
    found: dict[int, str] = {}
    for kind, (quantile, _) in KINDS.items():
        sign = SIGNS[kind]
        fits = np.flatnonzero(
            np.isfinite(difference) & ((np.sign(difference) == sign) | (sign == 0))
        )
        if len(fits):
            aim = 0.0 if quantile is None else float(np.nanquantile(difference, quantile))
            found.setdefault(int(fits[np.argmin(np.abs(difference[fits] - aim))]), kind)
    return ordered.iloc[list(found)].assign(kind=list(found.values()))


def _with_flips(pairs: pd.DataFrame, results: Results) -> pd.DataFrame:
    if "flips_by_class" in pairs:
        return pairs
    flips = [_flips(pair, results) for pair in pairs.to_dict("records")]
    return pairs.assign(flips_by_class=pd.Series(flips, pairs.index, dtype=object))


def _flips(pair: Mapping[Any, Any], results: Results) -> Any:
    """The flips of each class of one pair; None where they are gone."""
    keys = [f"{role}_key" for role in ROLES]
    where = " and ".join(f"{key} == {str(pair[key])!r}" for key in keys)
    folder = results.folders[pair["sweep"]]
    needs = {"complementarity": ("flips_by_class",)}
    rows = read_results([folder], needs, Query(where=where)).ok("complementarity")
    for column in (*keys, *SAME_DATA[1:]):
        value = pair[column]
        rows = rows[rows[column].isna() if pd.isna(value) else rows[column] == value]
    lists = rows["flips_by_class"].dropna()
    return lists.iloc[0] if len(lists) else None


def _example_note(pair: Mapping[Any, Any]) -> str:
    flips = int(np.sum(pair["flips_by_class"]))
    return (
        f"{pair['kind'].capitalize()}: {pair['teacher']} → {pair['student']}, "
        f"{counted(flips, 'image')} ({pair['pos_flips']:.2f}%)."
    )


def class_similarity(group: Group) -> PlotResult | None:
    """How alike the top-p% classes are: against random sets of as many, and against the mean."""
    pairs, _ = trained(group.rows)
    percentiles = [numbers(pairs, f"top{p}_similarity_pct") for p in schema.TOP_PERCENTS]
    if not any(np.isfinite(values).any() for values in percentiles):
        return None
    average = numbers(pairs, "class_similarity")
    above = [numbers(pairs, f"top{p}_similarity") - average for p in schema.TOP_PERCENTS]
    figure = new_figure(DOUBLE, 2.6)
    left, right = figure.subplots(1, 2)
    counts = [int(np.isfinite(values).sum()) for values in percentiles]
    labels = [f"{p}%\nn = {n:,}" for p, n in zip(schema.TOP_PERCENTS, counts, strict=True)]
    _boxes(left, percentiles, labels, 50.0)
    _boxes(right, above, labels, 0.0)
    left.set_ylim(0, 100)
    left.set_ylabel("percentile among random sets")
    right.set_ylabel("mean cosine − that of all classes")
    figure.supxlabel("classes that hold a share of ρ⁺; n ordered pairs", fontsize="medium")
    return PlotResult(figure, (
        pairs_note(pairs, average, average),
        "Box: quartiles and median; whiskers: 5% and 95%; line: as random classes.",
        "Pairs whose share lies in one class have no similarity.",
    ))  # fmt: skip


def _boxes(axes: Axes, values: Sequence[Any], labels: Sequence[str], level: float) -> None:
    stats = []
    places = []
    for i, column in enumerate(values):
        known = column[np.isfinite(column)]
        if len(known):
            low, q1, median, q3, high = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95])
            stats.append({"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high})
            places.append(i + 1)
    axes.bxp(
        stats, positions=places, widths=0.5, showfliers=False, patch_artist=True,
        manage_ticks=False, **BOX,
    )  # fmt: skip
    axes.axhline(level, color=GREY, linestyle=":", zorder=1)
    axes.set_xticks(range(1, len(labels) + 1), labels)
    axes.set_xlim(0.5, len(labels) + 0.5)
