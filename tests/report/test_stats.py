from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata, wilcoxon

from kt_cli.report import stats

# Two students, three and two teachers; the first pair has two seeds with a mean Δ of −0.5.
ROWS = [
    ("s1", "t1", 0, 1.0, 0.01),
    ("s1", "t1", 1, -2.0, 0.01),
    ("s1", "t2", 0, 2.0, 0.20),
    ("s1", "t3", 0, 0.0, 0.04),
    ("s2", "t1", 0, 3.0, 0.04),
    ("s2", "t2", 0, 0.5, 0.05),
]


def student_success(rows: pd.DataFrame) -> pd.Series:
    return stats.student_success(stats.pair_deltas(rows))["kl"]


@pytest.fixture
def rows() -> pd.DataFrame:
    frame = pd.DataFrame(ROWS, columns=["student", "teacher", "seed", "delta", "transfer_p"])
    return frame.assign(method="kl")


def test_student_success_counts_teachers_whose_mean_over_seeds_is_positive(
    rows: pd.DataFrame,
) -> None:
    # s1: only t2 of three teachers (t1's mean is negative); s2: both of two.
    found = student_success(rows)
    assert found.to_dict() == pytest.approx({"s1": 100 / 3, "s2": 100})
    assert found.median() == pytest.approx((100 / 3 + 100) / 2)


def test_student_success_against_a_loop(rows: pd.DataFrame) -> None:
    third = rows.assign(student="s3", delta=-rows["delta"])
    rows = pd.concat([rows, third])
    shares = {}
    for student in sorted(set(rows["student"])):
        of_student = rows[rows["student"] == student]
        teachers = sorted(set(of_student["teacher"]))
        means = [
            statistics.fmean(of_student["delta"][of_student["teacher"] == t]) for t in teachers
        ]
        shares[student] = 100 * sum(mean > 0 for mean in means) / len(means)
    assert student_success(rows).to_dict() == pytest.approx(shares)


def test_seeds_that_cancel_are_no_success(rows: pd.DataFrame) -> None:
    three = rows.iloc[[0, 0, 0]].assign(seed=range(3), delta=[0.1, 0.2, -0.3])  # sums to 2.8e-17
    assert student_success(three).to_dict() == {"s1": 0.0}


@pytest.mark.parametrize("sign", [1, -1])
def test_a_significant_one_needs_p_and_sign(rows: pd.DataFrame, sign: int) -> None:
    hits = sum(p < 0.05 and delta * sign > 0 for *_, delta, p in ROWS)
    assert hits  # p = 0.05 and Δ = 0 are in neither
    assert stats.significant(rows, sign).mean() == pytest.approx(100 * hits / len(ROWS))


def test_mean_std_is_the_sample_standard_deviation() -> None:
    values = [1.0, 2.5, -4.0, 0.25]
    found = stats.mean_std(pd.Series([*values, None]))
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert found.std == pytest.approx(statistics.stdev(values))
    assert found.n == 4


def test_mean_std_of_one_value_has_no_spread() -> None:
    found = stats.mean_std(pd.Series([3.0]))
    assert (found.mean, found.n) == (3.0, 1)
    assert math.isnan(found.std)


def test_pair_deltas_average_seeds(rows: pd.DataFrame) -> None:
    pairs = stats.pair_deltas(rows).set_index(["student", "teacher"])["delta"]
    assert len(pairs) == 5
    assert pairs["s1", "t1"] == pytest.approx(-0.5)


def test_nulls_take_no_part(rows: pd.DataFrame) -> None:
    more = pd.concat([rows, rows.iloc[:1].assign(teacher="t9", delta=float("nan"))])
    assert student_success(more).equals(student_success(rows))
    assert stats.significant(rows.assign(transfer_p=np.nan), 1).isna().all()


def test_spread_against_the_sorted_list() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    found = stats.spread(np.array([*values, np.nan]))
    assert found[:2] == (5, 1.0)
    assert found.q05 == pytest.approx(1.0 + 0.05 * 4 * (2.0 - 1.0))
    assert found.q95 == pytest.approx(1.0 + 0.95 * 4 * (2.0 - 1.0))
    assert (found.median, found.max) == (3.0, 5.0)


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_quantiles_are_those_of_numpy(count: int) -> None:
    values, shares = np.random.default_rng(count).normal(size=count), [0, 0.05, 0.5, 0.81, 1]
    np.testing.assert_array_equal(stats.quantiles(values, shares), np.quantile(values, shares))


def test_nothing_is_nan() -> None:
    empty = np.array([])
    assert stats.spread(empty).n == 0
    assert all(math.isnan(value) for value in stats.spread(empty)[1:])


def test_over_teachers_is_the_spread_of_pairs(rows: pd.DataFrame) -> None:
    found = stats.over_teachers(pd.concat([rows, rows.assign(method="own", delta=7.0)]))
    assert set(found) == {(s, m) for s in ("s1", "s2") for m in ("kl", "own")}
    means = [-0.5, 2.0, 0.0]
    assert found["s1", "kl"].mean == pytest.approx(statistics.fmean(means))
    assert found["s1", "kl"].std == pytest.approx(statistics.stdev(means))
    assert found["s1", "kl"].n == 3
    assert (found["s2", "own"].mean, found["s2", "own"].std) == (7.0, 0.0)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_wilcoxon_is_exact_with_ties(count: int) -> None:
    """Against all signs of the ranks."""
    rng = np.random.default_rng(count)
    values = rng.integers(-4, 5, count).astype(float)
    known = values[values != 0]
    ranks = rankdata(np.abs(known))
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(known))]
    observed = np.dot(known > 0, ranks)
    p_less, p_more = np.mean(np.array(sums) <= observed), np.mean(np.array(sums) >= observed)
    assert stats.wilcoxon(values) == pytest.approx(min(1, 2 * min(p_less, p_more)))


@pytest.mark.parametrize("count", [6, 30, 50])
def test_wilcoxon_is_scipys_exact_test_without_ties(count: int) -> None:
    values = np.random.default_rng(count).normal(0.3, 1, count)
    assert stats.wilcoxon(values) == pytest.approx(wilcoxon(values, method="exact").pvalue)


@pytest.mark.parametrize("scale", [1, 1000])
def test_wilcoxon_of_many_is_scipys_approximation(scale: float) -> None:
    """With many ties and zeros, and with few."""
    values = np.round(np.random.default_rng(1).normal(0.2, 1, 400) * scale)
    assert stats.wilcoxon(values) == pytest.approx(wilcoxon(values, method="approx").pvalue)


def test_wilcoxon_of_nothing() -> None:
    assert math.isnan(stats.wilcoxon(np.array([])))
    assert stats.wilcoxon(np.zeros(5)) == 1.0
