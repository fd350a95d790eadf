"""What tables say about rows: pure functions on pandas values (docs/methods.md, Section 2).

Shares are in percent. Nulls never take part; what is left without a value is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from kt_cli.complementarity.significance import SIGNIFICANT
from kt_cli.report.table import MeanStd


class Spread(NamedTuple):
    """Where values lie; all but `n` NaN when there are none."""

    n: int
    min: float
    q05: float
    median: float
    mean: float
    max: float


def share(hits: pd.Series[bool]) -> float:
    """Percentage of true values."""
    return float(100 * hits.mean()) if len(hits) else float("nan")


def mean(values: pd.Series[float]) -> float:
    return float(values.mean())


def mean_std(values: pd.Series[float]) -> MeanStd:
    """Mean ± sample standard deviation (ddof = 1)."""
    return MeanStd(float(values.mean()), float(values.std(ddof=1)), int(values.count()))


def success_rate(rows: pd.DataFrame) -> float:
    """Share of transfers, over all pairs and seeds, with Δ > 0."""
    return share(rows["delta"].dropna() > 0)


def paper_success_rate(rows: pd.DataFrame) -> float:
    """Per student the share of its teachers with Δ > 0, then the median over students.

    Roth et al. have one seed; with more, a pair's Δ is its mean over seeds.
    """
    pairs = pair_deltas(rows)
    return float((pairs["delta"] > 0).groupby(pairs["student"]).mean().median() * 100)


def significant_share(rows: pd.DataFrame, sign: int) -> float:
    """Share of transfers with a significant gain (sign 1) or loss (sign −1).

    By McNemar's exact test of gain against loss, p < 0.05, uncorrected.
    """
    known = rows.dropna(subset=["delta", "transfer_p"])
    right_sign = np.sign(known["delta"]) == sign
    return share((known["transfer_p"] < SIGNIFICANT) & right_sign)


def pair_deltas(rows: pd.DataFrame) -> pd.DataFrame:
    """Δ of each (student, teacher, method), averaged over seeds."""
    by_pair = rows.dropna(subset=["delta"]).groupby(["student", "teacher", "method"], sort=True)
    return by_pair["delta"].mean().reset_index()


def spread(values: pd.Series[float]) -> Spread:
    """Minimum, 5% quantile (linear), median, mean and maximum."""
    known = values.dropna().to_numpy(dtype=float)
    if not len(known):
        return Spread(0, *[float("nan")] * 5)
    low, q05, median, high = np.quantile(known, [0, 0.05, 0.5, 1]).tolist()
    return Spread(len(known), low, q05, median, float(known.mean()), high)
