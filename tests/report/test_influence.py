from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from kt_cli.report.bootstrap import Pairs, draw
from kt_cli.report.influence import MOST_PAIRS, RESAMPLES, Ranked, spearman


def crossed(students: int, teachers: int) -> Pairs:
    first, second = np.divmod(np.arange(students * teachers), teachers)
    return Pairs(first, second)


@pytest.mark.parametrize("ties", [False, True])
def test_the_value_is_scipys(ties: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 42))
    x, y = (np.round(x), np.round(2 * y)) if ties else (x, y)
    found = spearman(x, y + x / 2, crossed(6, 7))
    assert found.value == pytest.approx(spearmanr(x, y + x / 2).statistic)
    assert found.low < found.value < found.high


def test_the_interval_is_that_of_scipy_on_drawn_pairs() -> None:
    rng = np.random.default_rng(1)
    pairs = crossed(5, 6)
    x, y = np.round(rng.normal(size=(2, 30)) * 2)
    draws = draw(5, 6, RESAMPLES)
    found = []
    for b in range(RESAMPLES):
        weights = draws.students[b][pairs.students] * draws.teachers[b][pairs.teachers]
        often = np.repeat(np.arange(30), weights.astype(int))
        if len(often) and np.ptp(x[often]) and np.ptp(y[often]):
            found.append(spearmanr(x[often], y[often]).statistic)
    interval = spearman(x, y, pairs)
    assert [interval.low, interval.high] == pytest.approx(np.percentile(found, [2.5, 97.5]))


def test_ranks_are_weighted_mid_ranks_around_zero() -> None:
    (ranks,) = Ranked.of(np.array([3.0, 1.0, 3.0, 2.0])).ranks(np.array([[1.0, 2.0, 1.0, 0.0]]))
    # As if 1, 1, 3, 3: mid-ranks 1 and 3 of 4, 2 between.
    assert ranks.tolist() == [1.0, -1.0, 1.0, 0.0]


def test_nan_takes_no_part() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 30))
    x[3], y[5] = np.nan, np.nan
    known = ~(np.isnan(x) | np.isnan(y))
    assert spearman(x, y, crossed(5, 6)).value == pytest.approx(
        spearmanr(x[known], y[known]).statistic
    )


def test_what_does_not_vary_has_no_correlation() -> None:
    x, flat = np.arange(6.0), np.ones(6)
    for one, other in ((x, flat), (flat, x), (x[:1], x[:1])):
        found = spearman(one, other, crossed(2, 3))
        assert all(map(math.isnan, (found.value, found.low, found.high)))


def test_a_property_of_students_has_a_wider_interval_than_of_independent_pairs() -> None:
    rng = np.random.default_rng(3)
    pairs = crossed(12, 12)
    size = rng.normal(size=12)[pairs.students]
    delta = rng.normal(size=12)[pairs.students] + 0.1 * rng.normal(size=144)
    clustered = spearman(size, delta, pairs)
    independent = spearman(size, delta, Pairs(np.arange(144), np.zeros(144, dtype=np.intp)))
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_many_pairs_keep_the_value_of_all_of_them() -> None:
    rng = np.random.default_rng(4)
    count = 4 * MOST_PAIRS
    pairs = Pairs(rng.integers(0, 200, count), rng.integers(0, 200, count))
    x = rng.normal(size=count)
    y = x + rng.normal(size=count)
    found = spearman(x, y, pairs)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.value < found.high
