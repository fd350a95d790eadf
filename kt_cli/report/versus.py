"""Methods on the same pairs: how much one is better than another, and whether that is borne out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report.intervals import Floats, Pairs
from kt_cli.report.stats import DECIMALS, wilcoxon
from kt_cli.report.table import Interval

RUN = ["student", "teacher", "seed"]


def by_run(rows: pd.DataFrame, column: str = "delta", what: str = "method") -> pd.DataFrame:
    """A column's values by student, teacher and seed (n), of each method (k): (n, k)."""
    known = rows.dropna(subset=[column])
    found = known.groupby([*RUN, what], observed=True, dropna=False)[column].mean()
    return found.unstack(what)


class Versus(NamedTuple):
    """Differences of two methods on the pairs that both have.

    Attributes:
        interval: their mean, with its interval.
        differences: of the first less the second (n,), the seeds that both have averaged.
        p: Wilcoxon's, which takes pairs for independent.
    """

    interval: Interval
    differences: Floats
    p: float


def versus(one: pd.Series[float], other: pd.Series[float]) -> Versus:
    """Compare two columns of `by_run`."""
    both = (one - other).dropna().rename("difference")
    pairs = both.groupby(level=RUN[:2], observed=True).mean().reset_index()
    differences = pairs["difference"].to_numpy(dtype=float).round(DECIMALS)
    return Versus(Pairs.of(pairs).mean(differences), differences, wilcoxon(differences))


def borne_out(contests: Iterable[pd.DataFrame]) -> list[str | None]:
    """Of each contest (of `by_run`) the method that is better than every other; None if none is.

    The one with the highest mean is, where its differences to each of the others have a mean whose
    95% interval is above zero, and the largest of Wilcoxon's p-values is below 0.05 after Holm's
    correction for as many contests.
    """
    found = [_best(contest) for contest in contests]
    corrected = holm(np.array([p for _, p in found]))
    return [
        name if p < SIGNIFICANT else None for (name, _), p in zip(found, corrected, strict=True)
    ]


def _best(contest: pd.DataFrame) -> tuple[str, float]:
    """The method with the highest mean, and its largest p: 1 where an interval reaches zero."""
    ranked = list(contest.mean().sort_values(ascending=False, kind="stable").index)
    if len(ranked) < 2:
        return "", 1.0
    best, largest = ranked[0], 0.0
    for other in ranked[1:]:
        found = versus(contest[best], contest[other])
        if not found.interval.low > 0:
            return str(best), 1.0
        largest = max(largest, found.p)
    return str(best), largest
