"""Which place of the line from before to after a guard takes, by what its images gain and lose.

A rule sees counts alone, and may be asked about many transfers at once (benchmarks/guards.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, ndtr

from kt_cli.knowledge.significance import paired_above, paired_bound

ALPHAS = tuple(i / 10 for i in range(1, 11))
LEVEL = 0.05
WEIGHT = 4  # transfers as which what is stated counts
STATED = 0.01  # standard deviation of Δ at α = 1 where nothing is known
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Flips:
    """What each of ALPHAS gains and loses against θ₀, of n images."""

    gained: NDArray[np.integer]  # gained, lost: (…, 10) counts of images
    lost: NDArray[np.integer]
    n: int

    @property
    def delta(self) -> Values:
        """Gains less losses (…, 10), as a share of the images."""
        return np.asarray((self.gained - self.lost) / self.n, np.float64)

    @property
    def variance(self) -> Values:
        """Of `delta` (…, 10); with one flip more than were seen, so that none is not certainty."""
        flips = (self.gained + self.lost + 1) / self.n
        return np.asarray((flips - self.delta**2) / self.n, np.float64)


@dataclass(frozen=True)
class Prior:
    """What is expected of Δ at each of ALPHAS, as shares of images: normal, both (…, 10).

    transfers: others of the same student that say so.
    """

    mean: Values
    variance: Values
    transfers: int = 0

    @classmethod
    def of(cls, others: Sequence[Flips]) -> Prior:
        """From the student's other transfers; by moments, beside what is stated.

        Stated is that Δ has mean 0 and a standard deviation of α points, half of its variance
        between students, half between the transfers of one, which counts as `WEIGHT` transfers.
        """
        half = (STATED * np.array(ALPHAS)) ** 2 / 2
        if not others:
            return cls(0 * half, 2 * half)
        deltas, noise = (np.stack([getattr(o, k) for o in others]) for k in ("delta", "variance"))
        seen = ((deltas - deltas.mean(axis=0)) ** 2).sum(axis=0)
        degrees = len(others) - 1
        extra = np.maximum(0.0, seen - degrees * noise.mean(axis=0))
        between = (WEIGHT * half + extra) / (WEIGHT + degrees)
        weights = 1 / (between + noise)
        precision = 1 / half + weights.sum(axis=0)
        mean = (weights * deltas).sum(axis=0) / precision
        return cls(mean, between + 1 / precision, len(others))


@dataclass(frozen=True)
class Verdict:
    """What a rule makes of flips."""

    place: NDArray[np.integer]  # (…) how many steps of the line the student goes, 0 to 10
    score: Values  # (…, 10) what it goes by, as a share: a bound of Δ, or Δ as it is expected
    p: Values  # (…, 10) the chance of what must not be, as the rule has it
    # (…) least Δ of the whole way, as a share, that passes where as many images flip, or where that
    # many never do, the fewest that can; NaN where all would not be enough, and None of a rule that
    # asks for no proof.
    least: Values | None = None


def gain(flips: Flips, margin: float, prior: Prior) -> Verdict:
    """Where a lower bound that holds for all places at once is best, if it is above zero.

    Given the m images that flip, gains are binomial: the bound is Clopper and Pearson's of their
    probability, at level 0.05 / 10 (Bonferroni). Positive exactly where the one-sided exact
    McNemar test, whose p this is, rejects at that level.
    """
    gained, lost = flips.gained, flips.lost
    some = np.maximum(gained, 1)
    level = LEVEL / len(ALPHAS)
    lowest = np.where(gained > 0, betaincinv(some, lost + 1, level), 0.0)
    score = (gained + lost) / flips.n * (2 * lowest - 1)
    least = _least(flips, lambda gained, lost: _mcnemar_above(gained, lost) < level)
    return Verdict(_best(score), score, _mcnemar_above(gained, lost), least)


def safe(flips: Flips, margin: float, prior: Prior) -> Verdict:
    """As far as Δ is above −margin: with a chance of 5% at most that it is not.

    Two walks share the 5%. One goes up from the first place for as long as each place passes: a
    fixed order, which needs no correction. The other asks about the whole way alone, and with the
    5% of both where the first has come that far (Wiens, 2003).
    """
    p = paired_above(flips.gained, flips.lost, flips.n, -margin)
    steps = np.logical_and.accumulate(p[..., :-1] <= LEVEL / 2, axis=-1)
    level = np.where(steps[..., -1], LEVEL, LEVEL / 2)
    whole = p[..., -1] <= level
    place = np.where(whole, len(ALPHAS), steps.sum(axis=-1))
    bound = paired_bound(flips.gained, flips.lost, flips.n)
    least = _least(flips, lambda up, down: paired_above(up, down, flips.n, -margin) <= level)
    return Verdict(place, bound, p, least)


def shrink(flips: Flips, margin: float, prior: Prior) -> Verdict:
    """Where Δ is expected to be best, given the prior; p is the chance that it is below zero."""
    kept = prior.variance / (prior.variance + flips.variance)
    score = kept * flips.delta + (1 - kept) * prior.mean
    return Verdict(_best(score), score, ndtr(-score / np.sqrt(kept * flips.variance)))


def _best(score: Values) -> NDArray[np.integer]:
    """The first of the best places, 0 where none is above zero."""
    return np.where(score.max(axis=-1) > 0, score.argmax(axis=-1) + 1, 0)


def _least(flips: Flips, passes: Callable[[Any, Any], NDArray[np.bool_]]) -> Values:
    """As `Verdict.least`. passes: whether so many gained and lost do; more gains do too."""
    flipped = np.array(flips.gained[..., -1] + flips.lost[..., -1])
    while (few := ~passes(flipped, 0) & (flipped < flips.n)).any():
        flipped += few
    enough = passes(flipped, 0)
    low, high = np.full_like(flipped, -1), flipped  # gains that do not pass, and that do
    while (high - low).max() > 1:
        middle = (low + high) // 2
        passed = passes(middle, flipped - middle)
        low, high = np.where(passed, low, middle), np.where(passed, middle, high)
    return np.where(enough, (2 * high - flipped) / flips.n, np.nan)


def _mcnemar_above(gained: Any, lost: Any) -> Values:
    """Exact one-sided p-values of gains being no likelier than losses."""
    return np.where(gained > 0, betainc(np.maximum(gained, 1), lost + 1, 0.5), 1.0)


Rule = Callable[[Flips, float, Prior], Verdict]
RULES: Mapping[str, Rule] = MappingProxyType({"gain": gain, "safe": safe, "shrink": shrink})
