"""Many rows as few numbers: bins, means with intervals, medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kt_cli.report.intervals import mean_interval

Values = NDArray[np.float64]
BINS = 11
FEWEST = 5  # values of a bin whose median is drawn


@dataclass(frozen=True)
class Series:
    """One named line: places, values, and the ends of their 95% intervals (NaN: none); (k,)."""

    name: str
    x: Values
    y: Values
    low: Values
    high: Values


def numbers(rows: pd.DataFrame, column: str) -> Values:
    """A column as floats, null as NaN."""
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def edges(values: Values, bins: int = BINS) -> Values:
    """Round limits of at most about `bins` bins of equal width that hold all finite values."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    ticks = MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return np.asarray(ticks, dtype=np.float64)


def binned_means(rows: pd.DataFrame, x: str, y: str, limits: Values, name: str) -> Series:
    """The mean of `y` in each bin of `x` that has values, placed at the mean of `x` there."""
    known = rows[np.isfinite(numbers(rows, x)) & np.isfinite(numbers(rows, y))]
    place = np.clip(np.searchsorted(limits, numbers(known, x), "right") - 1, 0, len(limits) - 2)
    parts = [known[place == i] for i in range(len(limits) - 1)]
    parts = [part for part in parts if len(part)]
    return series(name, [numbers(part, x).mean() for part in parts], parts, [y] * len(parts))


def series(
    name: str, x: Sequence[Any], parts: Sequence[pd.DataFrame], columns: Sequence[str]
) -> Series:
    """The means of `columns[i]` over the rows `parts[i]`, by models left out."""
    found = [
        mean_interval(part, column, percent=column.endswith("rate"))
        for part, column in zip(parts, columns, strict=True)
    ]
    value, low, high = (
        np.array([getattr(one, field) for one in found], dtype=np.float64)
        for field in ("value", "low", "high")
    )
    return Series(name, np.array(x, dtype=np.float64), value, low, high)


def binned_median(x: Values, y: Values, limits: Values) -> tuple[Values, Values]:
    """Where bins with at least FEWEST values are (median of x), and the median of y there."""
    known = np.isfinite(x) & np.isfinite(y)
    frame = pd.DataFrame({"x": x[known], "y": y[known]})
    place = np.clip(np.searchsorted(limits, frame["x"], "right") - 1, 0, len(limits) - 2)
    groups = frame.groupby(place)
    medians = groups.median()[groups.size() >= FEWEST]
    return medians["x"].to_numpy(), medians["y"].to_numpy()


def by_method(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each method."""
    return {str(name): part for name, part in rows.groupby("method", observed=True, sort=True)}
