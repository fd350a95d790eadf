"""Spearman's ρ of what goes with Δ, with intervals that resample students and teachers.

In each resample both ranks are taken anew, ties at their mean rank, a pair weighing the product of
how often its student and its teacher were drawn (see bootstrap.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kt_cli.report.bootstrap import ENDS, Draws, Floats, Pairs, draw
from kt_cli.report.stats import DECIMALS
from kt_cli.report.table import Interval

RESAMPLES = 1000
FEWEST_PAIRS = 10  # for an interval
MOST_PAIRS = 2000  # above these it is as wide as that of as many drawn at random: quick
AT_ONCE = 4_000_000  # weights in memory


def spearman(x: Floats, y: Floats, pairs: Pairs) -> Interval:
    """Spearman's ρ of x (n,) and y (n,) over pairs of models, with its 95% interval.

    Pairs in which either is NaN take no part. NaN where one of them does not vary; NaN ends below
    ten pairs and of a single student with a single teacher.
    """
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = (values[known].round(DECIMALS) for values in (x, y))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Interval(*[float("nan")] * 3)
    value = float(_correlations(Ranked.of(x), Ranked.of(y), np.ones((1, len(x))))[0])
    if len(x) < FEWEST_PAIRS or not pairs.vary(known):
        return Interval(value, float("nan"), float("nan"))
    chosen = np.flatnonzero(known)
    if len(chosen) > MOST_PAIRS:
        some = np.sort(np.random.default_rng(0).choice(len(chosen), MOST_PAIRS, replace=False))
        chosen, x, y = chosen[some], x[some], y[some]
    few = Pairs(pairs.students[chosen], pairs.teachers[chosen])
    ranked = Ranked.of(x), Ranked.of(y)
    shift = value - float(_correlations(*ranked, np.ones((1, len(x))))[0])
    found = shift + np.nanpercentile(_resampled(*ranked, few, pairs.shape), ENDS)
    low, high = np.clip(found, -1.0, 1.0).tolist()
    return Interval(value, low, high)


@dataclass(frozen=True)
class Ranked:
    """Values in ascending order, equal ones in one tie.

    Attributes:
        order: indices (n,) that sort the values.
        starts: where in `order` each tie begins (ties,).
        tie: of each value in its own place its tie (n,).
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    tie: NDArray[np.intp]

    @classmethod
    def of(cls, values: Floats) -> Ranked:
        order = np.argsort(values, kind="stable")
        first = np.diff(values[order], prepend=-np.inf) > 0
        tie = np.empty(len(values), dtype=np.intp)
        tie[order] = np.cumsum(first) - 1
        return cls(order, np.flatnonzero(first), tie)

    def ranks(self, weights: Floats) -> Floats:
        """Mid-ranks (b, n) of values that weigh `weights` (b, n), centred on their mean."""
        in_tie = np.add.reduceat(weights[:, self.order], self.starts, axis=1)  # b × ties
        middle: Floats = np.cumsum(in_tie, axis=1) - in_tie / 2
        # A mid-rank's weighted mean is half of the total weight.
        centred: Floats = middle - in_tie.sum(axis=1, keepdims=True) / 2
        return centred[:, self.tie]


def _correlations(x: Ranked, y: Ranked, weights: Floats) -> Floats:
    """Pearson's correlation of the ranks under each row of weights (b, n); NaN without spread."""
    of_x, of_y = x.ranks(weights), y.ranks(weights)
    weighted = weights * of_x
    both = np.einsum("bn,bn->b", weighted, of_y)
    squares = np.einsum("bn,bn->b", weighted, of_x) * np.einsum("bn,bn,bn->b", weights, of_y, of_y)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = both / np.sqrt(squares)
    return found


def _resampled(x: Ranked, y: Ranked, pairs: Pairs, shape: tuple[int, int]) -> Floats:
    draws: Draws = draw(*shape, RESAMPLES)
    step = max(1, AT_ONCE // len(x.order))
    found = []
    for start in range(0, RESAMPLES, step):
        some = slice(start, start + step)
        weights = draws.students[some][:, pairs.students] * draws.teachers[some][:, pairs.teachers]
        found.append(_correlations(x, y, weights.astype(np.float64)))
    return np.concatenate(found)
