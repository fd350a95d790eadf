"""Tests and intervals against SciPy and a hand-written Holm."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kt_cli.knowledge.significance import SIGNIFICANT, holm, least_seen, mcnemar, wilson


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
