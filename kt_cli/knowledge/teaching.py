"""Who could teach a student, by what models say about the same images (docs/teachers.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kt_cli.knowledge.predictions import Predictions
from kt_cli.knowledge.significance import SIGNIFICANT, kappa, mcnemar, percent

Values = NDArray[np.float64]
SUREST = 0.2  # share of the images of which a teacher is the most confident
REACHABLE, CONFIDENT = "reachable", "confident"
# What teachers are ranked by, with labels and without: docs/teachers.md has what bears it out.
RANKED_BY = {True: "accuracy", False: CONFIDENT}


@dataclass(frozen=True)
class Teaching:
    """A student and M teachers on the same n images.

    labelled: whether labels may be looked at.
    """

    student: Predictions
    teachers: Sequence[Predictions]
    labelled: bool = True

    @property
    def n(self) -> int:
        return len(self.student.pred)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(M, n) which images teachers have right."""
        return np.stack([said.right for said in self.teachers])

    @cached_property
    def reach(self) -> Values:
        """(n,) how much of an image's answer is within the student's reach, in [0, 1].

        0 where it is right; else the probability that it gives the label, as a share of what it
        gives its own answer.
        """
        share = self.student.label_prob / self.student.confidence
        return np.where(self.student.right, 0.0, np.nan_to_num(share)).astype(np.float64)

    @property
    def ranking(self) -> Values:
        """(M,) of `scores` that by which teachers are ranked, without the others."""
        if not self.labelled:
            return self._confident(slice(None))
        return np.array([percent(said.right.sum(), self.n) for said in self.teachers])

    @cached_property
    def scores(self) -> dict[str, Values]:
        """`scores_among` of all images."""
        return self.scores_among(slice(None))

    def scores_among(self, among: NDArray[np.bool_] | slice) -> dict[str, Values]:
        """(M,) each predictor of each teacher, from some of the images; more is better.

        `reachable`: expected images in percent that a perfect teacher's answers would turn,
        (1/n) Σ 1[teacher right, student wrong] · p_s(y) / c_s. `surest`: accuracy among its most
        confident answers, less the student's. `unlike`: 1 − κ. `confident`, without labels: by how
        much it is the more confident where it differs.
        """
        if not self.labelled:
            return {CONFIDENT: self._confident(among)}
        right, student = self.right[:, among], self.student.right[among]
        n, reach = right.shape[1], self.reach[among]
        positive = (right & ~student).sum(axis=1)
        negative = (~right & student).sum(axis=1)
        return {
            REACHABLE: 100 * (right @ reach) / n,
            "surest": 100 * (self._surest(right, among) - student.mean()),
            "unlike": 1 - kappa(positive, negative, right.sum(axis=1), student.sum(), n),
            "accuracy": percent(right.sum(axis=1), n),
            "pos_flips": percent(positive, n),
        }

    def _surest(self, right: NDArray[np.bool_], among: NDArray[np.bool_] | slice) -> Values:
        count = max(1, round(SUREST * right.shape[1]))
        found = []
        for said, ours in zip(self.teachers, right, strict=True):
            top = np.argpartition(-said.confidence[among], count - 1)[:count]
            found.append(ours[top].mean())
        return np.array(found)

    def _confident(self, among: NDArray[np.bool_] | slice) -> Values:
        pred, sure = self.student.pred[among], self.student.confidence[among]
        found = []
        for said in self.teachers:
            ahead = said.confidence[among] - sure
            found.append(100 * np.maximum(ahead, 0)[said.pred[among] != pred].sum() / len(pred))
        return np.array(found)

    def team(self, size: int) -> list[int]:
        """Teachers that together have the most within reach, the most useful first (greedy).

        With labels; the next is who adds the most to those before. Fewer where none adds any.
        """
        left, chosen = self.reach.copy(), list[int]()
        while len(chosen) < size:
            added = self.right @ left
            best = int(added.argmax())
            if added[best] <= 0:
                break
            chosen.append(best)
            left[self.right[best]] = 0
        return chosen

    def visible(self, reachable: float) -> bool:
        """Whether so many percent, all gained and nothing lost, would be more than chance."""
        images = int(reachable * self.n / 100 + 1e-6)  # six of 291 are no five
        return float(mcnemar(images, 0)) < SIGNIFICANT


@dataclass(frozen=True)
class Measured:
    """What earlier transfers of a student came to. delta: Δ of their mean, of `count` of them."""

    delta: float
    count: int
    p: float  # the smallest McNemar's p among them, times their number
    sign: int  # 1 or −1 where all that are more than chance, and Δ, say the same; else 0


def ranked(scores: Values, measured: Sequence[Measured | None]) -> list[int]:
    """Teachers from the best to the worst: what was measured to help first, to harm last."""
    signs = [0 if one is None else one.sign for one in measured]
    return sorted(range(len(scores)), key=lambda i: (-signs[i], -scores[i], i))


def by_teacher(
    rows: Sequence[tuple[str, float, float]], keys: Sequence[str]
) -> list[Measured | None]:
    """Earlier transfers (teacher, Δ, McNemar's p) of a student, put together for each teacher."""
    known: Mapping[str, list[tuple[float, float]]] = {key: [] for key in keys}
    for key, delta, p in rows:
        if key in known:
            known[key].append((delta, p))
    return [_measured(known[key]) if known[key] else None for key in keys]


def _measured(transfers: Sequence[tuple[float, float]]) -> Measured:
    deltas, p = np.array(transfers).T
    p = np.minimum(1.0, len(p) * p)  # Bonferroni
    signs = {*np.sign([deltas.mean(), *deltas[p < SIGNIFICANT]]).astype(int).tolist()}
    agreed = (p < SIGNIFICANT).any() and len(signs) == 1
    return Measured(float(deltas.mean()), len(deltas), float(p.min()), signs.pop() if agreed else 0)
