"""Plots of the transfer rate: how much of the teacher's complementary knowledge is learned."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kt_cli.report.derived import derived
from kt_cli.report.groups import Group
from kt_cli.report.plots.binning import Series, Values, numbers, series
from kt_cli.report.plots.lines import Frame, draw_lines
from kt_cli.report.plots.methods import BARS, count_note, parts_of
from kt_cli.report.plots.plot_result import PlotResult
from kt_cli.report.read import Results
from kt_cli.rows import schema

RATE = "transfer rate (% of ρ⁺)"
CLASSES = {f"top{p}_rate": f"{p}%" for p in schema.TOP_PERCENTS} | {"transfer_rate": "all"}
"""Columns of the rate, from the fewest classes to all."""
SIZE = "student_params_m"
SIZES = 6  # groups of students, at most
LIKE = 1.25  # ratio of sizes up to which students are in one group


def rate_classes(group: Group) -> PlotResult | None:
    """Mean transfer rate within the top-p% classes, a line for each method."""
    parts = parts_of(group.rows, "transfer_rate")
    columns = [c for c in CLASSES if c in group.rows and np.isfinite(numbers(group.rows, c)).any()]
    if not parts or columns == ["transfer_rate"]:
        return None
    places = [float(list(CLASSES).index(column)) for column in columns]
    lines = [
        series(method, places, [part] * len(columns), columns) for method, part in parts.items()
    ]
    ticks = [(place, CLASSES[column]) for place, column in zip(places, columns, strict=True)]
    frame = Frame("classes that hold a share of ρ⁺", RATE, ticks)
    note = f"2%: the fewest classes that hold 2% of ρ⁺. {BARS}"
    return PlotResult(draw_lines(lines, frame), (count_note(parts), note))


def rate_size(group: Group) -> PlotResult | None:
    """Mean transfer rate against the student's parameters, a line for each method."""
    rows = group.rows[numbers(group.rows, SIZE) > 0]
    parts = parts_of(rows, "transfer_rate")
    if not parts:
        return None
    sizes = np.unique(np.concatenate([numbers(part, SIZE) for part in parts.values()]))
    if len(sizes) < 2:
        return None
    limits = _limits(sizes)
    lines = [_by_size(part, limits, method) for method, part in parts.items()]
    frame = Frame("parameters of the student (millions)", RATE, log=True)
    grouped = f"Students of like size together: {len(limits) - 1} groups."
    return PlotResult(draw_lines(lines, frame), (count_note(parts), grouped, BARS))


def with_sizes(results: Results) -> pd.DataFrame:
    """Transfers, with the millions of parameters of their student where these are known."""
    return derived(results.ok("transfer"), [SIZE], results.ok("models"))


def _limits(sizes: Values) -> Values:
    """Limits of groups of sizes (sorted): of like ones, or of as many in each where many differ."""
    starts = [sizes[0]]
    for size in sizes:
        if size > LIKE * starts[-1]:
            starts.append(size)
    if len(starts) > SIZES:
        starts = list(np.unique(np.quantile(sizes, np.arange(SIZES) / SIZES)))
    return np.array([*starts, np.inf])


def _by_size(rows: pd.DataFrame, limits: Values, method: str) -> Series:
    place = np.searchsorted(limits, numbers(rows, SIZE), "right") - 1
    parts = [rows[place == i] for i in np.unique(place)]
    middle = [float(np.exp(np.log(numbers(part, SIZE)).mean())) for part in parts]
    return series(method, middle, parts, ["transfer_rate"] * len(parts))
