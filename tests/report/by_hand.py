"""The report's intervals once more, with loops that leave out rows and compute again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import t as student_t

Ends = tuple[float, float]


def mean_ends(rows: pd.DataFrame, column: str, percent: bool = False) -> Ends:
    """The interval of the mean of a column; NaN where there is none."""
    rows = rows.dropna(subset=[column])
    half = jackknife(rows, lambda some: some[column].mean())
    mean = rows[column].mean()
    if not half > 1e-9 or np.isnan(half):
        return float("nan"), float("nan")
    if percent:
        share = mean / 100
        steps = half / 100 / (share * (1 - share))
        return 100 * expit(logit(share) - steps), 100 * expit(logit(share) + steps)
    return mean - half, mean + half


def jackknife(rows: pd.DataFrame, value: Callable[[pd.DataFrame], float]) -> float:
    """Half of the interval of a value of rows with `student` and `teacher`."""
    student, teacher = rows["student"].astype(str), rows["teacher"].astype(str)
    unordered = pd.Series(
        [" ".join(sorted(both)) for both in zip(student, teacher, strict=True)], rows.index
    )
    full = value(rows)

    def variance(*roles: pd.Series) -> tuple[float, int]:
        changes = []
        for name in sorted(set(pd.concat(roles))):
            without = np.ones(len(rows), dtype=bool)
            for role in roles:
                without &= (role != name).to_numpy()
            if without.any():
                changes.append(value(rows[without]) - full)
        count = len(changes)
        return (count - 1) / max(count, 1) * sum(change**2 for change in changes), count

    (by_student, students), (by_teacher, teachers) = variance(student), variance(teacher)
    if max(students, teachers) == 0 or 0 < students < 3 or 0 < teachers < 3:
        return float("nan")
    found, models = variance(student, teacher)
    freedom = models - 1.0
    if students and teachers and found > 0:
        ratio = min(0.5, variance(unordered)[0] / found)
        found *= 1 - 4 * ratio**3
        squares = by_student**2 / (students - 1) + by_teacher**2 / (teachers - 1)
        if squares > 0:
            freedom = min(freedom, (by_student + by_teacher) ** 2 / squares)
    return float(student_t.ppf(0.975, freedom) * np.sqrt(found))
