"""95% intervals of what is said of pairs of models, by leaving out one model after the other.

Two pairs of one model are no two independent observations, whichever role it has in them. So a
model is left out with all its pairs, as student and as teacher, and what changes without it says
how far a value depends on which models there are (the jackknife over the nodes of a network;
Snijders and Borgatti, 1999, Connections 22). docs/methods.md, Section 4, has the formulas, and
benchmarks/coverage.py shows how often these intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from kt_cli.report.codes import Codes, Floats, compact
from kt_cli.report.model_labels import unlabelled
from kt_cli.report.table import Interval
from kt_cli.spec import TOGETHER

FEWEST = 3  # students, and teachers, that an interval needs; or a single one of either
ROUNDING = 1e-9  # relative to the values: what is less has not changed


def numbers(rows: pd.DataFrame, column: str) -> Floats:
    """A column as floats (n,), null as NaN."""
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def mean_interval(rows: pd.DataFrame, column: str, percent: bool = False) -> Interval:
    """As `Pairs.mean`, of a column of rows, each of which names its `student` and `teacher`."""
    return Pairs.of(rows).mean(numbers(rows, column), percent)


@dataclass(frozen=True)
class Role:
    """Models that are left out, each set of rows its own: in one role, in either or two at once."""

    codes: Sequence[Codes]  # what each row is left out with: codes (n,); m where it has that twice
    sets: Codes  # the set that each code is of (m,)
    # Rows that take part (n,), all if None; values of the others are to be 0.
    known: NDArray[np.bool_] | None = None
    whole: Role | None = None  # of all rows, where some take no part

    def sums(self, values: Floats) -> Floats:
        """Of each code the sum (m,) of values (n,) over the rows that are left out with it."""
        found = [np.bincount(codes, values, len(self.sets) + 1) for codes in self.codes]
        return np.asarray(sum(found), dtype=np.float64)[:-1]

    @cached_property
    def counts(self) -> Floats:
        """Of each code the rows (m,) that are left out with it, as floats."""
        if self.whole is None or self.known is None:
            return self._counts(self.codes)
        return self.whole.counts - self._counts([codes[~self.known] for codes in self.codes])

    def _counts(self, codes: Sequence[Codes]) -> Floats:
        found = [np.bincount(some, minlength=len(self.sets) + 1) for some in codes]
        return np.asarray(sum(found), dtype=np.float64)[:-1]

    def among(self, known: NDArray[np.bool_] | None) -> Role:
        return self if known is None else replace(self, known=known, whole=self)

    def mean_changes(self, differences: Floats, role: Role) -> Floats:
        """How much the means of these sets change without what each code of `role` stands for.

        NaN where it is in no row, or in all rows of its set.

        Args:
            differences: values less the mean of their set (n,).
        """
        others = self.counts[role.sets] - role.counts
        left = (role.counts > 0) & (others > 0)
        changes = np.full(len(left), np.nan)
        np.divide(-role.sums(differences), others, changes, where=left)
        return changes


@dataclass(frozen=True)
class Pairs:
    """Which student and which teacher each of n rows is about, and which of k sets it is in."""

    # students, teachers: codes (n,) of one list of models; teams have a code for each member (k,
    # n), some of them twice where others are larger.
    students: Codes
    teachers: Codes
    # Codes (n,), each of them one of `count`; by default all rows are one set.
    sets: Codes | None = None
    count: int = 1
    directed: bool = True  # else it is the same which of the two teaches

    @classmethod
    def of(cls, rows: pd.DataFrame, sets: Codes | None = None, count: int = 1) -> Pairs:
        (students, taught), (teachers, who) = (
            pd.factorize(rows[r]) for r in ("student", "teacher")
        )
        teams = list(map(_members, who))
        most = max(map(len, teams), default=1)
        filled = [team[i % len(team)] for team in teams for i in range(most)]
        models = pd.factorize(np.array([*map(str, taught), *filled], dtype=object))[0]
        members = models[len(taught) :].reshape(-1, most).T[:, teachers]
        return cls(models[students], members if most > 1 else members[0], sets, count)

    def mean(self, values: Floats, percent: bool = False) -> Interval:
        """As `means`, of a single set."""
        return self.means(values, percent)[0]

    def means(self, values: Floats, percent: bool = False) -> list[Interval]:
        """The mean in each set of values (n,), of which NaN take no part, and its interval.

        NaN ends where models are too few, and where all values, or all models' means, are equal.

        Args:
            percent: values are shares in percent: the interval stays within 0 and 100.
        """
        known = _some(~np.isnan(values))
        whole, values = self.whole.among(known), _zeroed(values, known)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = whole.sums(values) / whole.counts
            differences = _zeroed(values - means[whole.codes[0]], known)
            half = self.half_widths(lambda role: whole.mean_changes(differences, role), known)
            half[~(half > ROUNDING * np.maximum(1.0, np.abs(means)))] = np.nan
            if percent:
                share = means / 100
                wide = half / (100 * share * (1 - share))
                low, high = (100 * expit(logit(share) + sign * wide) for sign in (-1, 1))
            else:
                low, high = means - half, means + half
        return [Interval(*ends) for ends in np.transpose([means, low, high]).tolist()]

    def half_widths(
        self, changes: Callable[[Role], Floats], known: NDArray[np.bool_] | None = None
    ) -> Floats:
        """Half of the 95% interval of a value of each set; NaN where there are too few models.

        Args:
            changes: by how much the value changes without what each code of a role stands for
                (m,); NaN of what is in no row, or in all rows of its set.
            known: rows that take part (n,); None for all.
        """
        roles = [role.among(known) for role in self._roles]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = [_variances(changes(role), role.sets, self.count) for role in roles]
            own, (variance, models), (of_pairs, _) = found[:2], *found[2:]
            parts, number = (np.array(values) for values in zip(*own, strict=True))
            satterthwaite = parts.sum(axis=0) ** 2 / (parts**2 / (number - 1)).sum(axis=0)
            both, freedom = (number > 0).all(axis=0), models - 1.0
            freedom = np.where(both, np.fmin(freedom, satterthwaite), freedom)
            single = both & ~self._teams(known)
            twice = np.where(single, 4 * np.fmin(0.5, of_pairs / variance) ** 3, 0.0)
            half = stdtrit(freedom, 0.975) * np.sqrt(variance * (1 - twice))
        few = ((number > 0) & (number < FEWEST)).any(axis=0) | (number == 0).all(axis=0)
        return np.where(few, np.nan, half)

    @cached_property
    def whole(self) -> Role:
        """Sets, each as a whole."""
        sets = np.zeros(len(self.students), dtype=np.intp) if self.sets is None else self.sets
        return Role((sets,), np.arange(self.count))

    def _teams(self, known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Which sets have teams."""
        if self.teachers.ndim == 1:
            return np.zeros(self.count, dtype=bool)
        several = (self.teachers != self.teachers[:1]).any(axis=0)
        (sets,) = self.whole.codes
        return np.bincount(sets, several if known is None else several & known, self.count) > 0

    @cached_property
    def _roles(self) -> tuple[Role, Role, Role, Role]:
        """Students, teachers, models in either role, and two models, whichever teaches.

        Students and teachers are models in either role where it is the same which of them teaches.
        """
        size = 1 + int(max(self.students.max(initial=0), self.teachers.max(initial=0)))
        members = np.atleast_2d(self.teachers)
        either = self._role(size, self.students, *members)
        if not self.directed:
            return either, either, either, self.unordered
        students, teachers = self._role(size, self.students), self._role(size, *members)
        return students, teachers, either, self.unordered

    @cached_property
    def unordered(self) -> Role:
        """The two models of each row, whichever teaches; of a team its first member."""
        first = np.atleast_2d(self.teachers)[0]
        low, high = (of(self.students, first) for of in (np.minimum, np.maximum))
        size = 1 + int(high.max(initial=0))
        found, pairs = compact(low * size + high, size**2)
        return self._role(len(found), pairs)

    def _role(self, size: int, *codes: Codes) -> Role:
        """Codes below `size` as those of a role, in which each set has its own."""
        (sets,) = self.whole.codes
        own = [sets * size + one for one in codes]
        if self.count * size <= 2 * len(sets):
            return Role(_once(own, self.count * size), np.repeat(np.arange(self.count), size))
        known, places = compact(np.concatenate(own), self.count * size)
        return Role(_once(np.split(places, len(own)), len(known)), known // size)


def _members(teacher: object) -> Sequence[str]:
    """The models behind the text of a teacher; what tells teams of one name apart is none's."""
    if isinstance(teacher, tuple):
        return teacher
    several = str(teacher).split(TOGETHER)
    return [*several[:-1], unlabelled(several[-1])] if len(several) > 1 else several


def _once(codes: Sequence[Codes], other: int) -> list[Codes]:
    """Codes (n,) with `other` where an earlier one is the same."""
    return [
        np.where(np.any([one == earlier for earlier in codes[:place]], axis=0), other, one)
        if place else one
        for place, one in enumerate(codes)
    ]  # fmt: skip


def _some(known: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return None if known.all() else known


def _zeroed(values: Floats, known: NDArray[np.bool_] | None) -> Floats:
    return values if known is None else np.where(known, values, 0.0)


def _variances(changes: Floats, sets: Codes, count: int) -> tuple[Floats, Codes]:
    """The jackknife's of each set, and how many changes that are."""
    left = ~np.isnan(changes)
    if count == 1:
        number, squares = np.array([left.sum()]), np.array([np.nansum(changes**2)])
    else:
        number = np.bincount(sets[left], minlength=count)
        squares = np.bincount(sets, np.where(left, changes**2, 0.0), count)
    return (number - 1) / np.maximum(1, number) * squares, number
