"""Many rows as few numbers: by method, in bins, as means with intervals and medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from kt_cli.errors import counted
from kt_cli.report.codes import Codes, Floats
from kt_cli.report.intervals import Pairs, numbers
from kt_cli.report.methods import method_rank
from kt_cli.report.table import Interval

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


@dataclass(frozen=True)
class ByMethod:
    """Rows, and which of the methods each is by: codes (n,) of `methods`, in the paper's order."""

    rows: pd.DataFrame
    methods: Sequence[str]
    codes: Codes

    @classmethod
    def of(cls, rows: pd.DataFrame, *columns: str) -> ByMethod:
        """The rows with a finite value in each of the columns."""
        finite = np.all([np.isfinite(numbers(rows, column)) for column in columns], axis=0)
        known = rows if finite.all() else rows[finite]
        codes, names = pd.factorize(known["method"])
        ranks = np.argsort(sorted(range(len(names)), key=lambda i: method_rank(str(names[i]))))
        return cls(known, sorted(map(str, names), key=method_rank), ranks[codes])

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs.of(self.rows, self.codes, len(self.methods))

    @cached_property
    def counts(self) -> list[int]:
        """Rows of each method."""
        return list(map(int, np.bincount(self.codes, minlength=len(self.methods))))

    def note(self) -> str:
        """How many rows there are by method: one number where all have as many."""
        if len(set(self.counts)) == 1:
            by = f"by {self.methods[0]}" if len(self.methods) == 1 else "of each method"
            return f"n = {counted(self.counts[0], 'transfer')} {by}."
        each = zip(self.counts, self.methods, strict=True)
        return f"n = {', '.join(f'{count:,} by {method}' for count, method in each)}."

    def means(self, column: str) -> list[Interval]:
        """Of each method the mean of a column, and its interval."""
        return self.pairs.means(numbers(self.rows, column), percent=_is_percent(column))

    def lines(self, x: Floats, column: str, place: Codes) -> list[Series]:
        """Of each method the means of a column in the places (n,) that it has rows in, each at the
        mean of x (n,) there."""
        count = 1 + int(place.max(initial=0))
        sets, most = self.codes * count + place, len(self.methods) * count
        pairs = Pairs.of(self.rows, sets, most)
        means = pairs.means(numbers(self.rows, column), percent=_is_percent(column))
        rows = np.bincount(sets, minlength=most)
        middle = np.bincount(sets, x, most) / np.maximum(1, rows)
        own = np.split(np.arange(most), len(self.methods))
        filled = [places[rows[places] > 0] for places in own]
        return [
            line(method, middle[some], [means[i] for i in some])
            for method, some in zip(self.methods, filled, strict=True)
        ]


def line(name: str, x: Floats, means: Sequence[Interval]) -> Series:
    ends = np.array([(one.value, one.low, one.high) for one in means], dtype=np.float64)
    return Series(name, x, *ends.T)


def _is_percent(column: str) -> bool:
    return column.endswith("rate")


def edges(values: Floats) -> Floats:
    """Round limits of at most about BINS bins of equal width that hold all finite values."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    ticks = MaxNLocator(BINS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return np.asarray(ticks, dtype=np.float64)


def places(values: Floats, limits: Floats) -> Codes:
    """The bin of each value (n,); the last one holds its upper end too."""
    found = np.searchsorted(limits, values, "right") - 1
    return np.clip(found, 0, len(limits) - 2)


def binned_median(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Where bins with at least FEWEST values are (median of x), and the median of y there."""
    known = np.isfinite(x) & np.isfinite(y)
    frame = pd.DataFrame({"x": x[known], "y": y[known]})
    groups = frame.groupby(places(x[known], edges(x)))
    medians = groups.median()[groups.size() >= FEWEST]
    return medians["x"].to_numpy(), medians["y"].to_numpy()
