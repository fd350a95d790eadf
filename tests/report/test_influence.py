from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from kt_cli.report import influence
from kt_cli.report.influence import spearman
from kt_cli.report.intervals import Pairs
from tests.report.by_hand import jackknife


def crossed(students: int, teachers: int) -> Pairs:
    first, second = np.divmod(np.arange(students * teachers), teachers)
    return Pairs(first, second + students)


@pytest.mark.parametrize("ties", [False, True])
def test_value_and_interval_are_scipys_without_each_model(ties: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    x, y = (np.round(x), np.round(2 * y)) if ties else (x, y)
    pairs, y = crossed(5, 6), y + x / 2
    found = spearman(x, y, pairs)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    rows = pd.DataFrame({"student": pairs.students, "teacher": pairs.teachers, "x": x, "y": y})
    half = jackknife(rows, lambda some: np.arctanh(spearmanr(some["x"], some["y"]).statistic))
    middle = np.arctanh(found.value)
    assert np.arctanh([found.low, found.high]) == pytest.approx([middle - half, middle + half])


@pytest.mark.parametrize("ties", [False, True])
def test_of_many_models_the_linear_part_is_enough(
    ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    pairs = crossed(12, 12)
    x = rng.normal(size=144) + rng.normal(size=12)[pairs.students]
    y = x + rng.normal(size=144) + rng.normal(size=12)[pairs.teachers - 12]
    if ties:
        x, y = np.round(x), np.round(y)
    exact = spearman(x, y, pairs)
    monkeypatch.setattr(influence, "MOST_MODELS", 0)
    linear = spearman(x, y, pairs)
    width = exact.high - exact.low
    assert linear.value == exact.value
    assert linear.low == pytest.approx(exact.low, abs=0.1 * width)
    assert linear.high == pytest.approx(exact.high, abs=0.1 * width)


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


def test_what_is_perfect_or_of_few_models_has_no_interval() -> None:
    x = np.arange(30.0)
    assert spearman(x, x, crossed(5, 6)).value == pytest.approx(1.0)
    for found in (spearman(x, x, crossed(5, 6)), spearman(x, x**2 % 17, crossed(2, 15))):
        assert math.isnan(found.low) and math.isnan(found.high)


def test_a_property_of_students_has_a_wider_interval_than_of_independent_pairs() -> None:
    rng = np.random.default_rng(3)
    pairs = crossed(12, 12)
    size = rng.normal(size=12)[pairs.students]
    delta = rng.normal(size=12)[pairs.students] + 0.1 * rng.normal(size=144)
    clustered = spearman(size, delta, pairs)
    independent = spearman(size, delta, Pairs(np.arange(144), np.full(144, 144, dtype=np.intp)))
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)
