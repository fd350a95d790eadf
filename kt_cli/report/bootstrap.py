"""95% intervals of means over pairs, by a bootstrap that resamples students and teachers.

Two pairs of one student, or of one teacher, are no two independent observations. So students and
teachers are resampled, each with replacement, and a pair weighs the product of how often its two
models were drawn (the pigeonhole bootstrap; A. B. Owen, 2007, Annals of Applied Statistics 1).
The percentiles of 2,000 resampled means are the interval; above 500 × 500 models the normal one
with the standard error that they tend to. Where all pairs share one student, only teachers vary,
and vice versa. It errs on the wide side where models matter little, and on the narrow one below
about ten models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kt_cli.report.table import Interval

RESAMPLES = 2000
MOST_CELLS = 250_000  # students × teachers up to which there are resamples
ROUNDING = 1e-5  # of single precision
NORMAL = 1.959964  # quantile of the normal distribution
ENDS = (2.5, 97.5)

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


def mean_interval(rows: pd.DataFrame, column: str) -> Interval:
    """The mean of a column over rows with `student` and `teacher`, and its interval.

    Nulls take no part. NaN ends where resampling has nothing to say: of a single student and a
    single teacher, and where all values, or all models' means, are equal.
    """
    return mean_intervals(rows, [column])[0]


def mean_intervals(rows: pd.DataFrame, columns: Sequence[str]) -> list[Interval]:
    """As `mean_interval`, for several columns with the same draws."""
    pairs = Pairs.of(rows)
    values = [rows[column].to_numpy(dtype=np.float64, na_value=np.nan) for column in columns]
    return intervals(values, pairs)


@dataclass(frozen=True)
class Pairs:
    """Which student and which teacher each of n rows is about.

    Attributes:
        students, teachers: codes (n,) in order of the names, from 0 and without gaps.
    """

    students: Codes
    teachers: Codes

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Pairs:
        return cls(codes(rows["student"]), codes(rows["teacher"]))

    @property
    def shape(self) -> tuple[int, int]:
        """How many students and teachers there are."""
        both = (self.students, self.teachers)
        students, teachers = (int(one.max(initial=-1)) + 1 for one in both)
        return students, teachers

    def vary(self, known: NDArray[np.bool_]) -> bool:
        """Whether the known pairs have more than one student, or more than one teacher."""
        both = (self.students[known], self.teachers[known])
        return any(len(one) > 0 and one.max() > one.min() for one in both)

    def cells(self, values: Floats) -> Floats:
        """Sums of values (n,) in a matrix of students × teachers."""
        students, teachers = self.shape
        places = self.students * teachers + self.teachers
        sums = np.bincount(places, values, students * teachers)
        return np.asarray(sums, dtype=np.float64).reshape(students, teachers)


def codes(names: pd.Series[str]) -> Codes:
    """Equal names by equal numbers, in the names' order, so that the order of rows is no matter."""
    if isinstance(names.dtype, pd.CategoricalDtype):
        known, order = np.unique(names.cat.codes, return_inverse=True)
        rank = np.argsort(np.argsort(names.cat.categories.astype(str).to_numpy()[known]))
        return np.asarray(rank[order], dtype=np.intp)
    return np.asarray(pd.factorize(names, sort=True)[0], dtype=np.intp)


def intervals(values: Sequence[Floats], pairs: Pairs) -> list[Interval]:
    """Means of several values (n,) over the same pairs, with their intervals."""
    counted: dict[bytes, Floats] = {}
    return [_interval(one, pairs, counted) for one in values]


def _interval(values: Floats, pairs: Pairs, counted: dict[bytes, Floats]) -> Interval:
    known = ~np.isnan(values)
    if not known.any():
        return Interval(*[float("nan")] * 3)
    mean = float(values[known].mean())
    if np.ptp(values[known]) == 0 or not pairs.vary(known):
        return Interval(mean, float("nan"), float("nan"))
    differences = np.where(known, values - mean, 0.0)
    students, teachers = pairs.shape
    if students * teachers > MOST_CELLS:
        half = NORMAL * _standard_error(differences, pairs, int(known.sum()))
        return Interval(mean, mean - half, mean + half)
    draws = draw(students, teachers)
    mask = known.tobytes()
    if mask not in counted:
        counted[mask] = draws.sums(pairs.cells(known.astype(np.float64)))
    counts = counted[mask]
    found = counts > 0  # a draw of models of which no pair was run says nothing
    means = mean + draws.sums(pairs.cells(differences))[found] / counts[found]
    low, high = np.percentile(means, ENDS)
    if high - low < ROUNDING:
        return Interval(mean, float("nan"), float("nan"))
    return Interval(mean, float(low), float(high))


def _standard_error(differences: Floats, pairs: Pairs, count: int) -> float:
    """What the resampled means' standard deviation tends to as models become many.

    A multiplicity has mean and variance 1, so that the product of two has covariance 1 with that
    of another pair with the same student or teacher, and variance 3.
    """
    by_model = [np.bincount(role, differences) for role in (pairs.students, pairs.teachers)]
    squares = sum(float((sums**2).sum()) for sums in (*by_model, differences))
    return float(np.sqrt(squares)) / count


@dataclass(frozen=True)
class Draws:
    """How often each model is drawn: resamples × students, resamples × teachers."""

    students: NDArray[np.float32]
    teachers: NDArray[np.float32]

    def sums(self, cells: Floats) -> Floats:
        """The weighted sum of cells (students × teachers) in each resample."""
        # Whole numbers and centred sums: single precision is enough, and twice as quick.
        by_teacher = self.students @ cells.astype(np.float32)  # resamples × teachers
        sums: Floats = np.einsum("bt,bt->b", by_teacher, self.teachers).astype(np.float64)
        return sums


@lru_cache(maxsize=4)
def draw(students: int, teachers: int, resamples: int = RESAMPLES) -> Draws:
    """Multiplicities of each model, the same for the same numbers of models."""
    random = np.random.default_rng((students, teachers))
    return Draws(*(_multiplicities(random, count, resamples) for count in (students, teachers)))


def _multiplicities(random: np.random.Generator, count: int, resamples: int) -> NDArray[np.float32]:
    drawn = random.integers(0, max(1, count), (resamples, count))
    places = drawn + np.arange(resamples)[:, None] * count
    found = np.bincount(places.ravel(), minlength=resamples * count)
    return found.reshape(resamples, count).astype(np.float32)
