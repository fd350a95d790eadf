"""Spearman's ρ of what goes with Δ, with intervals that leave out models (see intervals.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kt_cli.report.codes import Floats
from kt_cli.report.intervals import ROUNDING, Pairs, Role
from kt_cli.report.stats import DECIMALS
from kt_cli.report.table import Interval

FEWEST_PAIRS = 10  # for an interval
MOST_MODELS = 50  # that are left out one by one; more, as far as ρ is linear in them
HIGHEST = 1 - 1e-6  # ρ without a model, so that Fisher's scale ends


def spearman(x: Floats, y: Floats, pairs: Pairs) -> Interval:
    """Spearman's ρ of x (n,) and y (n,) over pairs of models, with its 95% interval.

    On Fisher's scale artanh ρ the interval is that of a mean. Pairs in which either is NaN take no
    part. NaN where one of them does not vary; NaN ends below ten pairs, with too few models, and
    at ±1.
    """
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = (values[known].round(DECIMALS) for values in (x, y))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Interval(*[float("nan")] * 3)
    value, influences = _linear(x, y)
    if len(x) < FEWEST_PAIRS or 1 - abs(value) < ROUNDING:
        return Interval(value, float("nan"), float("nan"))

    pairs = Pairs(pairs.students[known], pairs.teachers[known])

    def changes(role: Role) -> Floats:
        if np.count_nonzero(role.counts) > MOST_MODELS:
            return pairs.whole.mean_changes(influences / (1 - value**2), role)
        kept = (np.all([codes != m for codes in role.codes], axis=0) for m in range(len(role.sets)))
        left = np.array([_without(x, y, rows) for rows in kept])
        return np.asarray(np.arctanh(left) - np.arctanh(value))

    half = float(pairs.half_widths(changes)[0])
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half])).tolist()
    return Interval(value, low, high)


def _without(x: Floats, y: Floats, kept: NDArray[np.bool_]) -> float:
    """ρ of some of the pairs; NaN of none or all of them, and where one of both does not vary."""
    x, y = x[kept], y[kept]
    if kept.all() or len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.clip((_Ranks(x).standard * _Ranks(y).standard).mean(), -HIGHEST, HIGHEST))


def _linear(x: Floats, y: Floats) -> tuple[float, Floats]:
    """ρ, and the influence of each pair (n,): how ρ grows with its weight, times n.

    That is its own product of ranks, and that it moves the ranks of the others.
    """
    of_x, of_y = _Ranks(x), _Ranks(y)
    value = float((of_x.standard * of_y.standard).mean())
    squares = of_x.standard**2 + of_y.standard**2
    own = of_x.standard * of_y.standard - value * squares / 2
    moved = of_x.moved(of_y.standard - value * of_x.standard)
    return value, own + moved + of_y.moved(of_x.standard - value * of_y.standard)


class _Ranks:
    """The mid-ranks of values (n,) that are not all equal; `standard` with mean 0, variance 1."""

    def __init__(self, values: Floats) -> None:
        _, self._tie, ties = np.unique(values, return_inverse=True, return_counts=True)
        self._ranks: Floats = ((np.cumsum(ties) - ties / 2) / len(values))[self._tie]
        self._deviation = float(self._ranks.std())
        self.standard: Floats = (self._ranks - 0.5) / self._deviation

    def moved(self, slopes: Floats) -> Floats:
        """What it does that a value is below others, whose ranks count by `slopes` (n,)."""
        in_tie = np.bincount(self._tie, slopes)
        above = in_tie.sum() - np.cumsum(in_tie) + in_tie / 2
        found: Floats = above[self._tie] - (self._ranks * slopes).sum()
        return found / (len(slopes) * self._deviation)
