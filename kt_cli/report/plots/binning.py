"""Many rows as few numbers: by method, in bins, as means with intervals and medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from kt_cli.errors import counted
from kt_cli.report.groups import DATA, OUTCOME, SETTINGS, TRAINING
from kt_cli.report.intervals import Floats, mean_interval, numbers
from kt_cli.report.methods import method_rank

BINS = 11
FEWEST = 5  # values of a bin whose median is drawn


@dataclass(frozen=True)
class Series:
    """One named line: places, values, and the ends of their 95% intervals (NaN: none); (k,)."""

    name: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats


def parts_of(rows: pd.DataFrame, column: str) -> dict[str, pd.DataFrame]:
    """The rows with a value in `column` of each method that has some, in the paper's order."""
    finite = np.isfinite(numbers(rows, column))
    rows = rows.drop(columns=[*DATA, *TRAINING, *SETTINGS, *OUTCOME], errors="ignore")
    known = rows if finite.all() else rows[finite]
    parts = {str(name): part for name, part in known.groupby("method", observed=True, sort=True)}
    return {method: parts[method] for method in sorted(parts, key=method_rank)}


def count_note(parts: Mapping[str, pd.DataFrame]) -> str:
    """How many transfers there are by method: one number where all have as many."""
    counts = [len(rows) for rows in parts.values()]
    if len(set(counts)) == 1:
        by = f"by {next(iter(parts))}" if len(counts) == 1 else "of each method"
        return f"n = {counted(counts[0], 'transfer')} {by}."
    named = (f"{count:,} by {method}" for method, count in zip(parts, counts, strict=True))
    return f"n = {', '.join(named)}."


def edges(values: Floats) -> Floats:
    """Round limits of at most about BINS bins of equal width that hold all finite values."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    ticks = MaxNLocator(BINS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return np.asarray(ticks, dtype=np.float64)


def _places(values: Floats, limits: Floats) -> Any:
    """The bin of each value (n,); the last one holds its upper end too."""
    return np.clip(np.searchsorted(limits, values, "right") - 1, 0, len(limits) - 2)


def binned_means(rows: pd.DataFrame, x: str, y: str, limits: Floats, name: str) -> Series:
    """The mean of `y` in each bin of `x` that has values, placed at the mean of `x` there."""
    known = rows[np.isfinite(numbers(rows, x)) & np.isfinite(numbers(rows, y))]
    place = _places(numbers(known, x), limits)
    parts = [known[place == i] for i in np.unique(place)]
    return series(name, [numbers(part, x).mean() for part in parts], parts, [y] * len(parts))


def series(
    name: str, x: Sequence[float], parts: Sequence[pd.DataFrame], columns: Sequence[str]
) -> Series:
    """The means of `columns[i]` over the rows `parts[i]`, with their intervals."""
    means = [
        mean_interval(part, column, percent=column.endswith("rate"))
        for part, column in zip(parts, columns, strict=True)
    ]
    ends = np.array([(one.value, one.low, one.high) for one in means], dtype=np.float64)
    return Series(name, np.array(x, dtype=np.float64), *ends.T)


def binned_median(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Where bins with at least FEWEST values are (median of x), and the median of y there."""
    known = np.isfinite(x) & np.isfinite(y)
    frame = pd.DataFrame({"x": x[known], "y": y[known]})
    groups = frame.groupby(_places(x[known], edges(x)))
    medians = groups.median()[groups.size() >= FEWEST]
    return medians["x"].to_numpy(), medians["y"].to_numpy()
