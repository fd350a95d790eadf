from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest

from kt_cli.report import bootstrap
from kt_cli.report.table import Interval


def rows_of(cells: np.ndarray, rng: np.random.Generator, share: float = 1.0) -> pd.DataFrame:
    """A row for each cell of a students × teachers matrix, or for a share of them."""
    places = [(s, t) for s, t in np.ndindex(cells.shape) if rng.random() < share]
    columns = {
        "student": [f"s{s:02}" for s, _ in places],
        "teacher": [f"t{t:02}" for _, t in places],
        "delta": [cells[place] for place in places],
    }
    return pd.DataFrame(columns)


def by_hand(rows: pd.DataFrame, resamples: int = 400, seed: int = 1) -> tuple[float, float]:
    """The pigeonhole bootstrap as a plain loop over drawn models."""
    rng = np.random.default_rng(seed)
    students, teachers = sorted(set(rows["student"])), sorted(set(rows["teacher"]))
    values = {(r.student, r.teacher): r.delta for r in rows.itertuples()}
    means = []
    for _ in range(resamples):
        drawn = itertools.product(
            rng.choice(students, len(students)), rng.choice(teachers, len(teachers))
        )
        found = [values[pair] for pair in drawn if pair in values]
        if found:
            means.append(np.mean(found))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def additive(
    rng: np.random.Generator, students: int, teachers: int, noise: float = 0.5
) -> np.ndarray:
    effects = rng.normal(size=(students, 1)) + rng.normal(size=(1, teachers))
    return effects + noise * rng.normal(size=(students, teachers))


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_interval_against_a_loop_over_drawn_models(share: float) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(additive(rng, 8, 10), rng, share)
    found = bootstrap.mean_interval(rows, "delta")
    assert found.value == pytest.approx(rows["delta"].mean())
    low, high = by_hand(rows, 3000)
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)


def test_one_resample_is_the_mean_weighted_by_both_multiplicities() -> None:
    rng = np.random.default_rng(3)
    rows = rows_of(additive(rng, 4, 5), rng, 0.7)
    pairs = bootstrap.Pairs.of(rows)
    draws = bootstrap.draw(*pairs.shape, 50)
    sums = draws.sums(pairs.cells(rows["delta"].to_numpy()))
    for b in range(50):
        wanted = sum(
            draws.students[b, s] * draws.teachers[b, t] * value
            for s, t, value in zip(pairs.students, pairs.teachers, rows["delta"], strict=True)
        )
        assert sums[b] == pytest.approx(wanted, rel=1e-5, abs=1e-5)
    assert (draws.students.sum(axis=1) == pairs.shape[0]).all()
    assert (draws.teachers.sum(axis=1) == pairs.shape[1]).all()


def test_seeds_of_a_pair_are_no_independent_observations() -> None:
    rng = np.random.default_rng(5)
    rows = rows_of(additive(rng, 6, 6), rng)
    tenfold = pd.concat([rows] * 10)
    once, often = (bootstrap.mean_interval(r, "delta") for r in (rows, tenfold))
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=1e-4)


def test_one_student_varies_over_its_teachers_alone() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=40)
    found = bootstrap.mean_interval(rows_of(values[None], rng), "delta")
    error = values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.35 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.35 * error)


def test_the_order_and_the_kind_of_the_rows_are_no_matter() -> None:
    rng = np.random.default_rng(7)
    rows = rows_of(additive(rng, 5, 7), rng, 0.8)
    shuffled = rows.sample(frac=1, random_state=0)
    # Categories in another order than the names', with some that no row has.
    coded = rows.assign(
        student=pd.Categorical(rows["student"], [f"s{i:02}" for i in range(30)][::-1])
    )
    wanted = bootstrap.mean_interval(rows, "delta")
    for same in (shuffled, coded):
        found = bootstrap.mean_interval(same, "delta")
        assert (found.value, found.low, found.high) == pytest.approx(
            (wanted.value, wanted.low, wanted.high), rel=1e-5
        )


def test_nulls_take_no_part() -> None:
    rng = np.random.default_rng(8)
    rows = rows_of(additive(rng, 5, 5), rng)
    more = pd.concat([rows, rows.iloc[:9].assign(delta=np.nan)])
    assert bootstrap.mean_interval(more, "delta") == bootstrap.mean_interval(rows, "delta")


def test_several_columns_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(9)
    rows = rows_of(additive(rng, 5, 5), rng)
    rows = rows.assign(gain=np.where(rng.random(len(rows)) < 0.3, np.nan, rows["delta"] ** 2))
    both = bootstrap.mean_intervals(rows, ["delta", "gain"])
    assert both == [bootstrap.mean_interval(rows, column) for column in ("delta", "gain")]


@pytest.mark.parametrize(
    ("values", "mean"), [([[1.0]], 1.0), ([[2.0, 2.0], [2.0, 2.0]], 2.0), ([[float("nan")]], None)]
)
def test_no_interval_where_resampling_has_nothing_to_say(
    values: list[list[float]], mean: float | None
) -> None:
    rows = rows_of(np.array(values), np.random.default_rng(0))
    found = bootstrap.mean_interval(rows, "delta")
    assert math.isnan(found.value) if mean is None else found.value == mean
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    one_win_each = pd.concat([rows_of(np.zeros((1, 3)), np.random.default_rng(0)),
                              rows_of(np.ones((1, 3)), np.random.default_rng(0))])  # fmt: skip
    assert math.isnan(bootstrap.mean_interval(one_win_each, "delta").low)
    empty = bootstrap.mean_interval(rows[:0], "delta")
    assert math.isnan(empty.value)


def test_coverage() -> None:
    """Pairs whose models matter: some 95% of the intervals hold the mean, naive ones do not."""
    rng = np.random.default_rng(10)
    covered = naive = 0
    for _ in range(200):
        rows = rows_of(additive(rng, 20, 20), rng, 0.5)
        found: Interval = bootstrap.mean_interval(rows, "delta")
        covered += found.low < 0 < found.high
        naive += abs(rows["delta"].mean()) < 1.96 * rows["delta"].std() / math.sqrt(len(rows))
    assert 0.88 <= covered / 200 <= 0.99
    assert naive / 200 < 0.6


def test_many_pairs_are_quick() -> None:
    rng = np.random.default_rng(11)
    students, teachers = (rng.integers(0, 1500, 1_000_000) for _ in range(2))
    pairs = bootstrap.Pairs(students.astype(np.intp), teachers.astype(np.intp))
    start = time.perf_counter()
    bootstrap.intervals([rng.normal(size=1_000_000) for _ in range(3)], pairs)
    assert time.perf_counter() - start < 5  # a tenth of a second on two free cores


def test_many_models_have_the_normal_interval_that_resamples_tend_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(12)
    rows = rows_of(additive(rng, 100, 120, noise=2.0), rng, 0.5)
    resampled = bootstrap.mean_interval(rows, "delta")
    monkeypatch.setattr(bootstrap, "MOST_CELLS", 100)
    normal = bootstrap.mean_interval(rows, "delta")
    width = resampled.high - resampled.low
    assert normal.value == resampled.value
    assert normal.low == pytest.approx(resampled.low, abs=0.05 * width)
    assert normal.high == pytest.approx(resampled.high, abs=0.05 * width)
