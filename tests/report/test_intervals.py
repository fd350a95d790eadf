from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kt_cli.report.intervals import FEWEST, Pairs, mean_interval
from tests.report.by_hand import mean_ends

Random = np.random.Generator


def rows_of(cells: np.ndarray, random: Random, share: float = 1.0) -> pd.DataFrame:
    """A row for each cell of a students × teachers matrix, or for a share of them."""
    places = [(s, t) for s, t in np.ndindex(cells.shape) if random.random() < share]
    columns = {
        "student": [f"s{s:02}" for s, _ in places],
        "teacher": [f"t{t:02}" for _, t in places],
        "delta": [cells[place] for place in places],
    }
    return pd.DataFrame(columns)


def additive(random: Random, students: int, teachers: int, noise: float = 0.5) -> np.ndarray:
    effects = random.normal(size=(students, 1)) + random.normal(size=(1, teachers))
    return effects + noise * random.normal(size=(students, teachers))


def zoo(random: Random, models: int, share: float = 1.0) -> pd.DataFrame:
    """Ordered pairs of models that teach and learn."""
    taught, teaching = random.normal(size=(2, models))
    pairs = [p for p in permutations(range(models), 2) if random.random() < share]
    return pd.DataFrame({
        "student": [f"m{s}" for s, _ in pairs], "teacher": [f"m{t}" for _, t in pairs],
        "delta": [taught[s] + teaching[t] + random.normal() for s, t in pairs],
    })  # fmt: skip


@pytest.mark.parametrize("percent", [False, True])
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_intervals_against_loops_that_leave_out_models(share: float, percent: bool) -> None:
    random = np.random.default_rng(0)
    for rows in (rows_of(additive(random, 4, 6), random, share), zoo(random, 6, share)):
        # Seeds, a null, and a pair that is there once more than others.
        rows = pd.concat([rows, rows.assign(delta=rows["delta"] + 0.1), rows[:1]])
        rows = rows.assign(delta=rows["delta"].where(rows["delta"] < rows["delta"].max()) + 50)
        found = mean_interval(rows, "delta", percent)
        assert found.value == pytest.approx(rows["delta"].mean())
        assert (found.low, found.high) == pytest.approx(mean_ends(rows, "delta", percent))


@pytest.mark.parametrize("percent", [False, True])
def test_of_several_sets_each_is_as_by_itself(percent: bool) -> None:
    random = np.random.default_rng(3)
    several = [zoo(random, 6), rows_of(additive(random, 4, 9), random, 0.7), zoo(random, 2),
               zoo(random, 5, 0.0), rows_of(additive(random, 1, 6), random)]  # fmt: skip
    several[1].loc[3, "delta"] = np.nan
    sets = np.repeat(np.arange(5), [len(rows) for rows in several])
    order = random.permutation(len(sets))
    rows = pd.concat(several, ignore_index=True).iloc[order]
    values = rows["delta"].to_numpy(float) + 50
    found = Pairs.of(rows, sets[order], 5).means(values, percent)
    for one, mine in zip(found, several, strict=True):
        shifted = mine.assign(delta=mine["delta"].astype(float) + 50)
        alone = mean_interval(shifted, "delta", percent)
        assert (one.value, one.low, one.high) == pytest.approx(
            (alone.value, alone.low, alone.high), nan_ok=True
        )


def test_pairs_that_are_alike_in_both_directions_are_as_good_as_one() -> None:
    random = np.random.default_rng(1)
    rows = zoo(random, 7)
    once = rows[rows["student"] < rows["teacher"]]
    both = pd.concat([once, once.rename(columns={"student": "teacher", "teacher": "student"})])
    one, two = mean_interval(once, "delta"), mean_interval(both, "delta")
    assert two.value == pytest.approx(one.value)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), rel=0.02)


def test_a_team_is_left_out_with_each_of_its_members() -> None:
    random = np.random.default_rng(0)
    effect = random.normal(size=6)
    teams = [*combinations(range(6), 2), (0, 1, 2)]
    means = np.array([effect[list(team)].mean() for team in teams])
    kept = [np.array([model not in team for team in teams]) for model in range(6)]
    changes = [means[some].mean() - means.mean() for some in kept]
    half = stats.t.ppf(0.975, 5) * math.sqrt(5 / 6 * sum(change**2 for change in changes))
    names = [" + ".join(f"m{model}" for model in team) for team in teams]
    names[3] += " (0123abcd)"  # a label
    found = mean_interval(pd.DataFrame({"student": "s", "teacher": names, "delta": means}), "delta")
    assert found.high - found.value == pytest.approx(half)
    by_code = Pairs(np.full(2, 3), np.array([[0, 1], [1, 2]])).mean(np.array([1.0, 2.0]))
    assert math.isnan(by_code.low)  # two teams, of three: one model is in both


@pytest.mark.parametrize("models", [3, 4, 8])
def test_where_it_is_the_same_who_teaches_the_order_of_names_is_no_matter(models: int) -> None:
    """Each two models once is the same as in both directions, which a loop by hand says too."""
    random = np.random.default_rng(models)
    rows = zoo(random, models)
    once = rows[rows["student"] < rows["teacher"]]
    turned = once.rename(columns={"student": "teacher", "teacher": "student"})
    mixed = pd.concat([once[::2], turned[1::2]])
    ends = mean_ends(pd.concat([once, turned], ignore_index=True), "delta")
    assert not np.isnan(ends).any()
    for some in (once, turned, mixed):
        (found,) = replace(Pairs.of(some), directed=False).means(some["delta"].to_numpy())
        assert (found.low, found.high) == pytest.approx(ends)


def test_seeds_of_a_pair_are_no_independent_observations() -> None:
    random = np.random.default_rng(5)
    rows = rows_of(additive(random, 6, 6), random)
    tenfold = pd.concat([rows] * 10)
    once, often = (mean_interval(r, "delta") for r in (rows, tenfold))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_of_one_student_the_interval_is_students_t_over_its_teachers() -> None:
    random = np.random.default_rng(6)
    values = random.normal(size=12)
    found = mean_interval(rows_of(values[None], random), "delta")
    half = 2.200985 * values.std(ddof=1) / math.sqrt(12)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_the_order_and_the_kind_of_the_rows_are_no_matter() -> None:
    random = np.random.default_rng(7)
    rows = rows_of(additive(random, 5, 7), random, 0.8)
    shuffled = rows.sample(frac=1, random_state=0)
    names = [f"{role}{i:02}" for role in "ts" for i in range(30)][::-1]
    coded = rows.astype(dict.fromkeys(("student", "teacher"), pd.CategoricalDtype(names)))
    wanted = mean_interval(rows, "delta")
    for same in (shuffled, coded):
        found = mean_interval(same, "delta")
        assert (found.value, found.low, found.high) == pytest.approx(
            (wanted.value, wanted.low, wanted.high)
        )


def test_nulls_take_no_part() -> None:
    random = np.random.default_rng(8)
    rows = rows_of(additive(random, 5, 5), random)
    more = pd.concat([rows, rows.iloc[:9].assign(delta=np.nan, student="other")])
    found, wanted = mean_interval(more, "delta"), mean_interval(rows, "delta")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize("wins", [1, 5, 34, 35])
def test_shares_stay_within_their_bounds(wins: int) -> None:
    random = np.random.default_rng(wins)
    won = np.zeros(36)
    won[random.choice(36, wins, replace=False)] = 100.0
    found = mean_interval(rows_of(won.reshape(6, 6), random), "delta", percent=True)
    assert 0 < found.low < found.value < found.high < 100


@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (1, 2), (1, 1)])
def test_too_few_models_have_no_interval(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(9)
    found = mean_interval(rows_of(additive(random, *shape), random), "delta")
    assert not math.isnan(found.value)
    assert math.isnan(found.low) and math.isnan(found.high)
    enough = mean_interval(rows_of(additive(random, FEWEST, FEWEST), random), "delta")
    assert enough.low < enough.value < enough.high


def test_no_interval_where_nothing_changes() -> None:
    random = np.random.default_rng(0)
    for values in (np.full((4, 4), 2.0), np.full((3, 3), np.nan)):
        assert math.isnan(mean_interval(rows_of(values, random), "delta").low)
    one_win_each = pd.concat([rows_of(np.zeros((1, 3)), random), rows_of(np.ones((1, 3)), random)])
    assert math.isnan(mean_interval(one_win_each, "delta").low)
    assert math.isnan(mean_interval(one_win_each[:0], "delta").value)


def test_many_pairs_are_quick() -> None:
    random = np.random.default_rng(11)
    students, teachers = (random.integers(0, 1500, 1_000_000) for _ in range(2))
    pairs = Pairs(students.astype(np.intp), teachers.astype(np.intp))
    start = time.perf_counter()
    for _ in range(3):
        pairs.mean(random.normal(size=1_000_000))
    assert time.perf_counter() - start < 15  # half a second on two free cores
