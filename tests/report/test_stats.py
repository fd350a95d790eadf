from __future__ import annotations

import math
import statistics

import pandas as pd
import pytest

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


@pytest.fixture
def rows() -> pd.DataFrame:
    frame = pd.DataFrame(ROWS, columns=["student", "teacher", "seed", "delta", "transfer_p"])
    return frame.assign(method="kl")


def test_success_rate_counts_rows_with_a_positive_delta(rows: pd.DataFrame) -> None:
    wins = 0
    for _, _, _, delta, _ in ROWS:
        wins += delta > 0
    assert stats.success_rate(rows) == pytest.approx(100 * wins / len(ROWS))


def test_paper_success_rate_is_the_median_over_students(rows: pd.DataFrame) -> None:
    # s1: only t2 of three teachers (t1's mean is negative); s2: both of two.
    assert stats.paper_success_rate(rows) == pytest.approx((100 / 3 + 100) / 2)


def test_paper_success_rate_against_a_loop(rows: pd.DataFrame) -> None:
    third = rows.assign(student="s3", delta=-rows["delta"])
    rows = pd.concat([rows, third])
    shares = []
    for student in sorted(set(rows["student"])):
        of_student = rows[rows["student"] == student]
        teachers = sorted(set(of_student["teacher"]))
        means = [
            statistics.fmean(of_student["delta"][of_student["teacher"] == t]) for t in teachers
        ]
        shares.append(100 * sum(mean > 0 for mean in means) / len(means))
    assert stats.paper_success_rate(rows) == pytest.approx(statistics.median(shares))


@pytest.mark.parametrize("sign", [1, -1])
def test_significant_share_needs_p_and_sign(rows: pd.DataFrame, sign: int) -> None:
    hits = sum(p < 0.05 and delta * sign > 0 for *_, delta, p in ROWS)
    assert hits  # p = 0.05 and Δ = 0 are in neither
    assert stats.significant_share(rows, sign) == pytest.approx(100 * hits / len(ROWS))


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
    assert stats.success_rate(more) == stats.success_rate(rows)
    assert stats.paper_success_rate(more) == stats.paper_success_rate(rows)
    assert stats.significant_share(more, 1) == stats.significant_share(rows, 1)


def test_spread_against_the_sorted_list() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    found = stats.spread(pd.Series([*values, None]))
    assert found[:2] == (5, 1.0)
    assert found.q05 == pytest.approx(1.0 + 0.05 * 4 * (2.0 - 1.0))
    assert (found.median, found.mean, found.max) == (3.0, 3.0, 5.0)


def test_nothing_is_nan() -> None:
    empty = pd.Series([], dtype=float)
    assert stats.spread(empty).n == 0
    assert all(math.isnan(value) for value in stats.spread(empty)[1:])
    assert math.isnan(stats.share(pd.Series([], dtype=bool)))
