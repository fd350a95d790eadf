"""What tables say about rows: pure functions on pandas values (docs/methods.md, Section 4).

Shares are in percent. Nulls never take part; what is left without a value is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from kt_cli.knowledge.significance import SIGNIFICANT
from kt_cli.report.codes import Cells, Floats
from kt_cli.report.intervals import numbers
from kt_cli.report.table import MeanStd

DECIMALS = 9  # of points: a mean over seeds that is zero, or equal to another, is so exactly
MOST_EXACT = 50  # non-zero differences up to which Wilcoxon's test is exact


class Spread(NamedTuple):
    """Where values lie; all but `n` NaN when there are none."""

    n: int
    min: float
    q05: float
    median: float
    q95: float
    max: float


def mean(values: pd.Series[float]) -> float:
    return float(values.mean())


def mean_std(values: pd.Series[float]) -> MeanStd:
    """Mean ± sample standard deviation (ddof = 1)."""
    mean = round(float(values.mean()), DECIMALS)
    return MeanStd(mean, float(values.std(ddof=1)), int(values.count()))


def student_success(pairs: pd.DataFrame, within: str = "method") -> pd.Series[float]:
    """Of each student the share of its teachers with Δ > 0, from `pair_deltas`.

    Roth et al. report the median over students. They have one seed; with more, a pair's Δ is its
    mean over seeds.
    """
    of = Cells.of(pairs, [within, "student"])
    won = of.means(np.where(pairs["delta"] > 0, 100.0, 0.0))
    return pd.Series(won, pd.MultiIndex.from_frame(pairs[[within, "student"]].iloc[of.rows]))


def significant(rows: pd.DataFrame, sign: int) -> pd.Series[float]:
    """100 where a transfer has a significant gain (sign 1) or loss (sign −1), 0 where it has none.

    By McNemar's exact test of gain against loss, p < 0.05, uncorrected; NaN without p.
    """
    found = (rows["transfer_p"] < SIGNIFICANT) & (np.sign(rows["delta"]) == sign)
    known: pd.Series[float] = (100.0 * found).where(rows["transfer_p"].notna())
    return known


def pair_deltas(rows: pd.DataFrame, within: str = "method") -> pd.DataFrame:
    """Δ of each student and teacher, within a method, averaged over seeds."""
    columns = ["student", "teacher", within]
    known = rows[[*columns, "delta"]].dropna(subset=["delta"])
    of = Cells.of(known, columns)
    means = of.means(numbers(known, "delta")).round(DECIMALS)
    return known.iloc[of.rows].assign(delta=means)


def over_teachers(rows: pd.DataFrame) -> dict[tuple[str, str], MeanStd]:
    """Of each (student, method) the Δ over its teachers, of which seeds are averaged first."""
    pairs = pair_deltas(rows)
    of = Cells.of(pairs, ["student", "method"])
    found = pairs["delta"].groupby(of.codes).agg(["mean", "std", "count"]).round({"mean": DECIMALS})
    who = pairs[["student", "method"]].iloc[of.rows].astype(str).itertuples(index=False)
    each = zip(who, found.itertuples(index=False), strict=True)
    return {(s, m): MeanStd(mean, std, int(count)) for (s, m), (mean, std, count) in each}


def spread(values: Floats) -> Spread:
    """Minimum, 5% quantile (linear), median, 95% quantile and maximum."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Spread(0, *[float("nan")] * 5)
    return Spread(len(known), *quantiles(known, [0, 0.05, 0.5, 0.95, 1]).tolist())


def quantiles(values: Floats, shares: Sequence[float]) -> Floats:
    """NumPy's (linear) of values without NaN (n,); sorted, as several of many are found sooner."""
    ranked, places = np.sort(values), np.asarray(shares) * (len(values) - 1)
    low = places.astype(np.intp)
    below, above = ranked[low], ranked[np.minimum(low + 1, len(values) - 1)]
    part, step = places - low, above - below
    return np.where(part < 0.5, below + step * part, above - step * (1 - part))


def wilcoxon(differences: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros are left out, ties share their mean rank.

    Exact up to 50 differences, ties included; else by the normal approximation, corrected for ties.
    NaN without any difference, 1 where all are zero.
    """
    found = differences[differences != 0]
    if not len(found):
        return 1.0 if len(differences) else float("nan")
    _, places, ties = np.unique(np.abs(found), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(ties) - ties + 1)[places]  # twice the mid-rank: a whole number
    statistic = int(doubled[found > 0].sum())
    if len(found) <= MOST_EXACT:
        return _exact(doubled, statistic)
    centre, deviation = doubled.sum() / 2, np.sqrt((doubled**2).sum()) / 2
    return float(2 * ndtr(-abs(statistic - centre) / deviation))


def _exact(doubled: NDArray[np.int_], statistic: int) -> float:
    """Share of all signs of the ranks whose sum is as far from the middle as `statistic`."""
    total = int(doubled.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in doubled.tolist():
        moved = np.zeros_like(chances)
        moved[rank:] = chances[: total + 1 - rank]
        chances = (chances + moved) / 2
    fewer = min(statistic, total - statistic)
    return min(1.0, 2 * float(chances[: fewer + 1].sum()))
