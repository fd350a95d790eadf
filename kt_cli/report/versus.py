"""Methods on the same pairs: how much one is better than another, and whether that is borne out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report.codes import Cells, Codes, Floats
from kt_cli.report.intervals import Pairs, numbers
from kt_cli.report.stats import DECIMALS, wilcoxon
from kt_cli.report.table import Interval

PAIR = ["student", "teacher"]


def by_run(
    rows: pd.DataFrame, values: str | list[str] = "delta", what: str = "method",
    within: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Values by student, teacher and seed (n), of each method (k): (n, k).

    Args:
        within: columns that tell runs apart too, and come first in the index.
    """
    several = [values] if isinstance(values, str) else values
    index = [*within, *PAIR, "seed"]
    known = rows[[*index, what, *several]].dropna(subset=several)
    runs, methods = Cells.of(known, index), Cells.of(known, [what])
    cells, shape = runs.across(methods), (len(runs.rows), len(methods.rows))
    means = [cells.means(numbers(known, column)).reshape(shape) for column in several]
    names = pd.Index(known[what].iloc[methods.rows])
    of_run = pd.MultiIndex.from_frame(known[index].iloc[runs.rows])
    found = {c: pd.DataFrame(m, of_run, names) for c, m in zip(several, means, strict=True)}
    return found[values] if isinstance(values, str) else pd.concat(found, axis=1)


class Versus(NamedTuple):
    """Differences of two methods on the pairs that both have."""

    interval: Interval  # their mean, with its interval
    differences: Floats  # of the first less the second (n,), the seeds that both have averaged
    p: float  # Wilcoxon's, which takes pairs for independent


class _Seeds:
    """Of runs (n,) in contests the pairs (p,), each of them in one contest, in the contests' order.

    Attributes:
        contests: codes (p,). pairs: with the contests as sets.
    """

    def __init__(self, runs: pd.Index, contests: Codes, count: int) -> None:
        who = runs.to_frame(index=False)[PAIR].assign(contest=contests)
        cells = Cells.of(who, ["contest", *PAIR])
        self._place, who = cells.codes, who.iloc[cells.rows]
        self.contests = who["contest"].to_numpy()
        self.pairs = Pairs.of(who, self.contests, count)

    def means(self, values: Floats) -> Floats:
        """Over the seeds of each pair (p,), of values (n,); NaN takes no part."""
        known, count = ~np.isnan(values), len(self.contests)
        sums = np.bincount(self._place[known], values[known], count)
        with np.errstate(invalid="ignore"):
            return (sums / np.bincount(self._place[known], minlength=count)).round(DECIMALS)


def versus(one: pd.Series[float], other: pd.Series[float]) -> Versus:
    """Compare two columns of `by_run`."""
    seeds = _Seeds(one.index, np.zeros(len(one), dtype=np.intp), 1)
    means = seeds.means(np.asarray(one - other, dtype=np.float64))
    differences = means[~np.isnan(means)]
    return Versus(seeds.pairs.mean(means), differences, wilcoxon(differences))


def borne_out(runs: pd.DataFrame, contests: Codes, count: int) -> list[str | None]:
    """Of each contest the method that is better than every other in it; None if none is.

    The one with the highest mean is, where its differences to each of the others have a mean whose
    95% interval is above zero, and the largest of Wilcoxon's p-values is below 0.05 after Holm's
    correction for as many contests.

    Args:
        runs: of `by_run`.
        contests: codes (n,) below `count`, of which each run is.
    """
    values, seeds = runs.to_numpy(dtype=np.float64), _Seeds(runs.index, contests, count)
    means = runs.groupby(contests).mean().reindex(range(count)).to_numpy(dtype=np.float64)
    ranked, entered = np.argsort(-means, axis=1, kind="stable"), (~np.isnan(means)).sum(axis=1)
    largest = np.where(entered > 1, 0.0, 1.0)  # p; 1 where an interval reaches zero
    for place in range(1, values.shape[1]):
        undecided = (largest < 1) & (entered > place)
        asked = np.flatnonzero(undecided[contests])
        best, other = ranked[contests[asked]][:, [0, place]].T
        differences = np.full(len(values), np.nan)
        differences[asked] = values[asked, best] - values[asked, other]
        differences = seeds.means(differences)
        intervals = seeds.pairs.means(differences)
        for i in np.flatnonzero(undecided):
            if not intervals[i].low > 0:
                largest[i] = 1.0
                continue
            mine = differences[(seeds.contests == i) & ~np.isnan(differences)]
            largest[i] = max(largest[i], wilcoxon(mine))
    chosen = holm(largest) < SIGNIFICANT
    return [str(runs.columns[ranked[i, 0]]) if one else None for i, one in enumerate(chosen)]
