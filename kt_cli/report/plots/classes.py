"""Plots of where complementary knowledge lies: in which classes, and how alike these are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kt_cli.errors import counted
from kt_cli.report.codes import Floats
from kt_cli.report.groups import SAME_DATA, Group, split, trained
from kt_cli.report.intervals import numbers
from kt_cli.report.plots import style
from kt_cli.report.plots.pairs import pairs_note
from kt_cli.report.plots.style import PlotResult
from kt_cli.report.query import Query
from kt_cli.report.read import Results, read_results
from kt_cli.report.stats import quantiles
from kt_cli.rows import schema

# Kinds of teacher: the quantile of the accuracy differences and their sign (0: any), and the look.
KINDS: dict[str, tuple[float | None, int, dict[str, Any]]] = {
    "weak": (0.1, -1, {"color": style.RED, "marker": "v", "linestyle": ":"}),
    "equal": (None, 0, {"color": style.GREEN, "marker": "s", "linestyle": "--"}),
    "strong": (0.9, 1, {"color": style.BLUE, "marker": "^", "linestyle": "-"}),
}
ROLES = ("teacher", "student")
LINE = 48  # letters of the legend that fit a line
FEW_CLASSES = 30  # whose points are marked
BOX: dict[str, Any] = {
    "boxprops": {"facecolor": style.PALE, "edgecolor": style.INK, "linewidth": 0.7},
    "medianprops": {"color": style.INK, "linewidth": 1.4},
    "whiskerprops": {"linewidth": 0.7}, "capprops": {"linewidth": 0.7},
}  # fmt: skip


def class_flips(group: Group) -> PlotResult | None:
    """Share of ρ⁺ in each class, from the largest: the rows of `with_examples`."""
    pairs = group.rows.to_dict("records")
    if not pairs:
        return None
    figure, axes = style.one_axes("class, sorted by its share (rank)", "share of ρ⁺ (%)")
    names = style.short_names({str(pair[role]) for role in ROLES for pair in pairs})
    marks = {}
    classes = int(pairs[0]["num_classes"])
    for pair in pairs:
        flips = np.sort(np.asarray(pair["flips_by_class"], dtype=np.float64))[::-1]
        look = {**KINDS[pair["kind"]][2], **({"marker": ""} if classes > FEW_CLASSES else {})}
        teacher, student = (names[str(pair[role])] for role in ROLES)
        label = f"{pair['kind']} ({style.signed(pair['acc_diff'])} pp): {teacher} → {student}"
        label = label if len(label) <= LINE else label.replace("→ ", "→\n")
        (marks[label],) = axes.plot(np.arange(1, classes + 1), 100 * flips / flips.sum(), **look)
    uniform = axes.axhline(100 / classes, color=style.GREY, linewidth=0.8, zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=2))
    axes.set_xlim(0.5, classes + 0.5)
    axes.set_ylim(bottom=0)
    style.legend_below(figure, {**marks, "uniform over the classes": uniform})
    return PlotResult(figure, tuple(map(_example_note, pairs)))


def with_examples(results: Results) -> pd.DataFrame:
    """The pairs that stand for a weak, an equal and a strong teacher in each group, as `kind`.

    The flips of each class are read for them alone: of all pairs they would fill the memory.
    """
    rows = results.ok("complementarity")
    pairs, _ = trained(rows[rows["by_class"].eq(True) & (rows["pos_flips"] > 0)])
    found = [examples(group.rows) for group in split(pairs, SAME_DATA)]
    chosen = pd.concat(found, ignore_index=True) if found else pairs
    if "flips_by_class" not in chosen:
        flips = [_flips(pair, results) for pair in chosen.to_dict("records")]
        chosen = chosen.assign(flips_by_class=pd.Series(flips, chosen.index, dtype=object))
    return chosen[chosen["flips_by_class"].notna()]


def examples(pairs: pd.DataFrame) -> pd.DataFrame:
    """A pair for each of KINDS: at the 10% and 90% quantile of the accuracy differences, and with
    the smallest; of equal ones the first by name. A weak teacher is weaker, a strong one stronger.
    """
    ordered = pairs.sort_values(list(ROLES), ignore_index=True)
    difference = numbers(ordered, "acc_diff")
    found: dict[int, str] = {}
    for kind, (quantile, sign, _) in KINDS.items():
        right_sign = (np.sign(difference) == sign) | (sign == 0)
        fits = np.flatnonzero(np.isfinite(difference) & right_sign)
        if len(fits):
            aim = 0.0 if quantile is None else float(np.nanquantile(difference, quantile))
            found.setdefault(int(fits[np.argmin(np.abs(difference[fits] - aim))]), kind)
    return ordered.iloc[list(found)].assign(kind=list(found.values()))


def _flips(pair: Mapping[Any, Any], results: Results) -> Any:
    """The flips of each class of one pair; None where they are gone."""
    keys = [f"{role}_key" for role in ROLES]
    where = " and ".join(f"{key} == {str(pair[key])!r}" for key in keys)
    needs = {"complementarity": ("flips_by_class",)}
    folders = results.copies.get(pair["sweep"], ())
    found = read_results(folders, needs, Query(where=where, all_rows=True))
    rows = found.ok("complementarity")
    for column in (*keys, *SAME_DATA[1:]):
        value = pair[column]
        rows = rows[rows[column].isna() if pd.isna(value) else rows[column] == value]
    lists = rows["flips_by_class"].dropna()
    return lists.iloc[0] if len(lists) else None


def _example_note(pair: Mapping[Any, Any]) -> str:
    images = counted(int(np.sum(pair["flips_by_class"])), "image")
    names = f"{pair['teacher']} → {pair['student']}"
    return f"{pair['kind'].capitalize()}: {names}, {images} ({pair['pos_flips']:.2f}%)."


def class_similarity(group: Group) -> PlotResult | None:
    """How alike the top-p% classes are: against random sets of as many, and against the mean."""
    pairs, _ = trained(group.rows)
    percentiles = [numbers(pairs, f"top{p}_similarity_pct") for p in schema.TOP_PERCENTS]
    if not any(np.isfinite(values).any() for values in percentiles):
        return None
    average = numbers(pairs, "class_similarity")
    above = [numbers(pairs, f"top{p}_similarity") - average for p in schema.TOP_PERCENTS]
    figure = style.new_figure(style.DOUBLE, 2.6)
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


def _boxes(axes: Axes, values: Sequence[Floats], labels: Sequence[str], level: float) -> None:
    known = {i: column[np.isfinite(column)] for i, column in enumerate(values, 1)}
    places = [i for i, column in known.items() if len(column)]
    ends = [quantiles(known[i], [0.05, 0.25, 0.5, 0.75, 0.95]) for i in places]
    names = ("whislo", "q1", "med", "q3", "whishi")
    axes.bxp(
        [dict(zip(names, end, strict=True)) for end in ends], positions=places, widths=0.5,
        showfliers=False, patch_artist=True, manage_ticks=False, **BOX,
    )  # fmt: skip
    axes.axhline(level, color=style.GREY, linestyle=":", zorder=1)
    axes.set_xticks(range(1, len(labels) + 1), labels)
    axes.set_xlim(0.5, len(labels) + 0.5)
