"""Percentages, tests and intervals against fractions, SciPy and a hand-written Holm."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.guards import size
from kt_cli.knowledge.significance import (
    SIGNIFICANT,
    holm,
    least_seen,
    mcnemar,
    paired_above,
    paired_bound,
    percent,
    wilson,
)


@given(st.integers(1, 1_281_167).flatmap(lambda n: st.tuples(st.integers(-n, n), st.just(n))))
def test_a_percentage_is_the_nearest_float(counts: tuple[int, int]) -> None:
    count, n = counts
    nearest = float(Fraction(100 * count, n))
    assert percent(count, n) == nearest
    assert percent(np.array([count]), n).tolist() == [nearest]
    assert float(percent(np.int64(count), n)) == nearest


def test_mcnemar_equals_binomtest() -> None:
    for positive, negative in ((0, 0), (1, 0), (3, 9), (9, 3), (20, 20), (150, 90), (4000, 3800)):
        total = positive + negative
        wanted = scipy.stats.binomtest(positive, total).pvalue if total else 1.0
        assert float(mcnemar(positive, negative)) == pytest.approx(wanted)


@pytest.mark.parametrize("changed", [0, 1, 5, 6, 7, 31, 312])
def test_the_least_surplus_that_mcnemar_finds(changed: int) -> None:
    def found(gained: int, total: int) -> bool:
        return bool(total and scipy.stats.binomtest(gained, total).pvalue < SIGNIFICANT)

    total = max(changed, 6)  # of five, all on one side may be chance
    surpluses = [2 * gained - total for gained in range(total + 1) if found(gained, total)]
    assert least_seen(changed) == min(s for s in surpluses if s > 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_by_hand(p_values: list[float]) -> None:
    count, largest = len(p_values), 0.0
    wanted = [0.0] * count
    for rank, i in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, (count - rank) * p_values[i])
        wanted[i] = min(1.0, largest)
    np.testing.assert_allclose(holm(np.array(p_values)), wanted)


def test_holm_keeps_the_shape_and_leaves_nan_out() -> None:
    found = holm(np.array([[0.01, np.nan], [0.04, 0.03]]))
    np.testing.assert_allclose(found, [[0.03, np.nan], [0.06, 0.06]])


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (40123, 50000)])
def test_wilson_equals_scipy(right: int, n: int) -> None:
    wanted = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    low, high = wilson(right, n)
    assert float(low) == pytest.approx(wanted.low, abs=1e-12)
    assert float(high) == pytest.approx(wanted.high, abs=1e-12)


def likeliest(gained: int, lost: int, n: int, difference: float) -> float:
    """The share of losses that makes the counts likeliest, where gains are `difference` more."""

    def unlikely(q: float) -> float:
        shares = q + difference, q, 1 - 2 * q - difference
        return -sum(scipy.special.xlogy(c, p) for c, p in zip((gained, lost, n - gained - lost),
                                                               shares, strict=True))  # fmt: skip

    ends = max(0.0, -difference) + 1e-13, (1 - difference) / 2 - 1e-13
    found = scipy.optimize.minimize_scalar(unlikely, bounds=ends, options={"xatol": 1e-12})
    return min((*ends, float(found.x)), key=unlikely)


@pytest.mark.parametrize("difference", [-0.2, -0.01, -0.001, 0.0, 0.02])
@pytest.mark.parametrize("counts", [(0, 0), (3, 0), (0, 4), (12, 7), (60, 90)])
def test_paired_above_is_the_score_test(counts: tuple[int, int], difference: float) -> None:
    """Of a multinomial whose likelihood is maximised numerically under the hypothesis."""
    n, (gained, lost) = 400, counts
    q = likeliest(gained, lost, n, difference)
    spread = (n * (2 * q + difference - difference**2)) ** 0.5
    z = (gained - lost - n * difference) / spread if spread > 1e-5 else 0.0
    found = float(paired_above(gained, lost, n, difference))
    assert found == pytest.approx(scipy.stats.norm.sf(z), abs=2e-5)


def test_paired_above_zero_is_mcnemar_without_correction() -> None:
    for gained, lost in ((5, 3), (30, 55), (200, 150)):
        p = scipy.stats.norm.sf((gained - lost) / (gained + lost) ** 0.5)
        assert float(paired_above(gained, lost, 1000, 0.0)) == pytest.approx(p)


def test_the_paired_bound_is_the_difference_that_is_just_refused() -> None:
    gained, lost = np.array([[0, 5], [40, 3]]), np.array([[0, 9], [10, 0]])
    low = paired_bound(gained, lost, 500)
    np.testing.assert_allclose(paired_above(gained, lost, 500, low), 0.05, atol=1e-9)
    assert (low < (gained - lost) / 500).all()


@pytest.mark.parametrize("flips", [0.003, 0.01, 0.04])
def test_paired_above_passes_what_is_at_the_margin_in_5_percent_at_most(flips: float) -> None:
    """Exactly, from the chance of all counts."""
    assert size(1000, 0.002, flips) <= 5.2
