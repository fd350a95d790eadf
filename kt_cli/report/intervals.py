"""95% intervals of what is said of pairs of models, by leaving out one model after the other.

Two pairs of one model are no two independent observations, whichever role it has in them. So a
model is left out with all its pairs, as student and as teacher, and what changes without it says
how far a value depends on which models there are (the jackknife over the nodes of a network;
Snijders and Borgatti, 1999, Connections 22). docs/methods.md, Section 4, has the formulas, and
benchmarks/coverage.py shows how often these intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from kt_cli.report.table import Interval

FEWEST = 3  # students, and teachers, that an interval needs; or a single one of either
ROUNDING = 1e-9  # relative to the values: what is less has not changed

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


def numbers(rows: pd.DataFrame, column: str) -> Floats:
    """A column as floats (n,), null as NaN."""
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def mean_interval(rows: pd.DataFrame, column: str, percent: bool = False) -> Interval:
    """As `Pairs.mean`, of a column of rows, each of which names its `student` and `teacher`."""
    return Pairs.of(rows).mean(numbers(rows, column), percent)


@dataclass(frozen=True)
class Pairs:
    """Which student and which teacher each of n rows is about.

    Attributes:
        students, teachers: codes (n,) of one list of models.
    """

    students: Codes
    teachers: Codes

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Pairs:
        models = pd.factorize(pd.concat([rows["student"], rows["teacher"]]))[0]
        return cls(models[: len(rows)], models[len(rows) :])

    @cached_property
    def unordered(self) -> Codes:
        """Codes (n,) of the two models of each row, whichever teaches."""
        both = np.sort([self.students, self.teachers], axis=0)
        return np.asarray(pd.factorize(both[0] * (both.max(initial=0) + 1) + both[1])[0])

    def mean(self, values: Floats, percent: bool = False) -> Interval:
        """The mean of values (n,), of which NaN take no part, and its interval.

        NaN ends where models are too few, and where all values, or all models' means, are equal.

        Args:
            percent: values are shares in percent: the interval stays within 0 and 100.
        """
        known = ~np.isnan(values)
        if not known.any():
            return Interval(*[float("nan")] * 3)
        mean = float(values[known].mean())
        half = self.half_width(lambda *role: mean_changes(values - mean, role))
        if not half > ROUNDING * max(1.0, abs(mean)):
            return Interval(mean, float("nan"), float("nan"))
        if not percent:
            return Interval(mean, mean - half, mean + half)
        share = mean / 100
        odds = logit(share) + np.array([-1, 1]) * half / (100 * share * (1 - share))
        low, high = (100 * expit(odds)).tolist()
        return Interval(mean, low, high)

    def half_width(self, changes: Callable[..., Floats]) -> float:
        """Half of the 95% interval of a value; NaN where there are too few models.

        Args:
            changes: given codes (n,) of one or of both roles, by how much the value changes
                without the rows of each model; of none where these are all rows.
        """
        roles = changes(self.students), changes(self.teachers)
        vary = [role for role in roles if len(role)]
        if not vary or min(map(len, vary)) < FEWEST:
            return float("nan")
        models = changes(self.students, self.teachers)
        variance, freedom = _variance(models), len(models) - 1.0
        if len(vary) == 2 and variance > 0:
            own = min(0.5, _variance(changes(self.unordered)) / variance)
            variance *= 1 - 4 * own**3
            parts = np.array([_variance(role) for role in roles])
            if parts.any():
                terms = parts**2 / [len(role) - 1 for role in roles]
                freedom = min(freedom, float(parts.sum() ** 2 / terms.sum()))
        return float(stdtrit(freedom, 0.975) * np.sqrt(variance))


def _variance(changes: Floats) -> float:
    """The jackknife's."""
    return float((len(changes) - 1) / max(1, len(changes)) * (changes**2).sum())


def mean_changes(differences: Floats, role: Sequence[Codes]) -> Floats:
    """How much a mean changes without the rows of each model, as `Pairs.half_width` asks.

    Args:
        differences: values less their mean (n,), of which NaN take no part.
        role: codes (n,) of one or of both roles that a model may have in a row.
    """
    known = ~np.isnan(differences)
    sums, counts = (_sums(of, role) for of in (np.where(known, differences, 0.0), known * 1.0))
    left = (counts > 0) & (counts < known.sum())
    return np.asarray(-sums[left] / (known.sum() - counts[left]))


def _sums(values: Floats, role: Sequence[Codes]) -> Floats:
    """Of each model the sum over the rows that it is in, in whichever role."""
    count = 1 + max(int(codes.max(initial=0)) for codes in role)
    sums = np.bincount(role[0], values, count).astype(np.float64)
    for codes in role[1:]:
        sums += np.bincount(codes, np.where(codes == role[0], 0.0, values), count)
    return sums
