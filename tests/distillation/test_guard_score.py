"""The guard's lower bound, against scipy by hand and by simulation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from kt_cli.distillation.guard import ALPHAS, score


def flips(gained: int, lost: int, n: int = 100) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Right before and after, with so many gains and losses among n images."""
    before, after = np.arange(n) % 2 == 0, np.arange(n) % 2 == 0
    after[np.flatnonzero(~before)[:gained]] = True
    after[np.flatnonzero(before)[:lost]] = False
    return before, after


@pytest.mark.parametrize("gained", [0, 1, 5, 8, 20, 45])
@pytest.mark.parametrize("lost", [0, 1, 4, 30])
def test_the_score_is_the_exact_lower_bound_at_a_tenth_of_the_level(gained: int, lost: int) -> None:
    found, m = score(*flips(gained, lost)), gained + lost
    if m == 0:
        assert found == 0
        return
    test = binomtest(gained, m, alternative="greater")
    lowest = test.proportion_ci(confidence_level=1 - 0.05 / 10, method="exact").low
    assert found == pytest.approx(m / 100 * (2 * lowest - 1), abs=1e-9)


def test_the_score_is_positive_exactly_where_mcnemar_rejects() -> None:
    signs = set()
    for gained, lost in itertools.product(range(40), range(0, 20, 3)):
        if gained + lost:
            p = binomtest(gained, gained + lost, alternative="greater").pvalue
            assert (score(*flips(gained, lost)) > 0) == (p < 0.05 / 10), (gained, lost)
            signs.add(p < 0.05 / 10)
    assert signs == {True, False}


def violations(draw: Callable[[np.random.Generator], Any], simulations: int = 500) -> float:
    """Share of simulations in which any of the ten bounds lies above what it bounds."""
    rng, bad = np.random.default_rng(0), 0
    for _ in range(simulations):
        before, afters, expected = draw(rng)
        scores = np.array([score(before, after) for after in afters])
        bad += bool((scores > expected + 1e-12).any())
    return bad / simulations


N_GUARD, GAINING = 400, 0.6


def flipped_by(chance: NDArray[np.floating], gaining: NDArray[np.bool_]) -> Any:
    """What ten students make of images; `chance` (10, n) tells which of them change.

    An image that is to gain was wrong before. Given the m that change, each is a gain with the
    probability GAINING: so the expected share of gains less losses is m/n (2 π − 1).
    """
    changed = chance < np.array(ALPHAS)[:, None]
    before = ~gaining
    afters = before ^ changed
    return before, afters, changed.mean(axis=1) * (2 * GAINING - 1)


def test_all_ten_bounds_hold_at_once_for_correlated_students() -> None:
    """As on a line: an image that changed stays changed further on."""

    def draw(rng: np.random.Generator) -> Any:
        chance = np.broadcast_to(rng.random(N_GUARD) * 2, (10, N_GUARD))
        return flipped_by(chance, rng.random(N_GUARD) < GAINING)

    assert violations(draw) <= 0.05


def test_all_ten_bounds_hold_at_once_for_the_least_correlated_students() -> None:
    """Each with images of its own: the worst case, in which little is wasted."""

    def draw(rng: np.random.Generator) -> Any:
        afters, befores, expected = [], [], []
        for i in range(10):
            chance = np.full((10, N_GUARD), 2.0)
            chance[i] = rng.random(N_GUARD) * 2
            before, after, bound = flipped_by(chance, rng.random(N_GUARD) < GAINING)
            befores.append(before)
            afters.append(after[i])
            expected.append(bound[i])
        # Side by side on ten sets of images; nothing changes on the nine others.
        before = np.concatenate(befores)
        whole = np.tile(before, (10, 1))
        for i, after in enumerate(afters):
            whole[i, i * N_GUARD : (i + 1) * N_GUARD] = after
        return before, whole, np.array(expected) / 10

    assert 0.01 < violations(draw) <= 0.05
