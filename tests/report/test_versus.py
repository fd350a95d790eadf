from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kt_cli.report.stats import wilcoxon
from kt_cli.report.versus import borne_out, by_run, versus
from tests.report.by_hand import mean_ends

STUDENTS, TEACHERS = "abcdefg", "tuvw"


def rows_of(**means: float) -> pd.DataFrame:
    """Each method on all pairs and two seeds, with its mean Δ and a little noise."""
    random = np.random.default_rng(0)
    return pd.DataFrame([
        {"student": s, "teacher": t, "seed": seed, "method": method,
         "delta": mean + random.normal(0, 0.5)}
        for method, mean in means.items() for s in STUDENTS for t in TEACHERS for seed in (0, 1)
    ])  # fmt: skip


def winners(*contests: pd.DataFrame) -> list[str | None]:
    codes = np.repeat(np.arange(len(contests)), [len(runs) for runs in contests])
    return borne_out(pd.concat(contests), codes, len(contests))


def test_only_pairs_and_seeds_of_both_are_compared() -> None:
    rows = pd.DataFrame(
        [
            ("s1", "t1", 0, "one", 1.0), ("s1", "t1", 1, "one", -2.0), ("s1", "t2", 0, "one", 2.0),
            ("s1", "t1", 1, "two", -3.0), ("s1", "t2", 0, "two", 3.0), ("s2", "t1", 0, "two", 3.0),
        ],
        columns=["student", "teacher", "seed", "method", "delta"],
    )  # fmt: skip
    runs = by_run(rows)
    assert versus(runs["one"], runs["two"]).differences.tolist() == [1, -1]


def test_seeds_are_averaged_and_the_rest_is_by_hand() -> None:
    rows = rows_of(kl=0.0, own=0.4).sample(frac=0.8, random_state=1)
    found = versus(*(by_run(rows)[method] for method in ("own", "kl")))
    wide = rows.pivot_table(index=["student", "teacher", "seed"], columns="method", values="delta")
    pairs = (wide["own"] - wide["kl"]).dropna().groupby(["student", "teacher"]).mean()
    assert found.differences == pytest.approx(pairs.to_numpy())
    assert found.interval.value == pytest.approx(pairs.mean())
    ends = mean_ends(pairs.rename("difference").reset_index(), "difference")
    assert (found.interval.low, found.interval.high) == pytest.approx(ends)
    assert found.p == pytest.approx(wilcoxon(pairs.to_numpy().round(9)))


def test_the_best_must_be_better_than_each_other_one() -> None:
    clear, unclear = rows_of(a=2.0, b=0.0, c=-1.0), rows_of(a=0.0, b=2.0, c=2.001)
    assert winners(by_run(clear), by_run(unclear)) == ["a", None]
    assert winners(by_run(rows_of(a=2.0)), by_run(clear[:0])) == [None, None]


def test_one_student_that_carries_a_difference_does_not_bear_it_out() -> None:
    rows = rows_of(a=0.1, b=0.0)
    lucky = (rows["student"] == "a") & (rows["method"] == "a")
    rows["delta"] = (rows["method"] == "a") * 0.01 + 20.0 * lucky  # better in each pair
    runs = by_run(rows)
    found = versus(runs["a"], runs["b"])
    assert found.p < 0.001 and found.interval.low < 0
    assert winners(runs) == [None]


def test_p_values_are_those_of_as_many_contests() -> None:
    """Six pairs bear a method out alone (p = 1/32), not as one of two contests."""
    rows = rows_of(a=3.0, b=0.0)
    contest = by_run(rows[rows["student"].isin(list("abcdef")) & (rows["teacher"] == "t")])
    assert winners(contest) == ["a"]
    assert winners(contest, contest) == [None, None]


def test_nothing_is_borne_out_among_equals() -> None:
    """Of 100 contests of three equal methods at most a few have a winner."""
    random = np.random.default_rng(3)
    names = ["student", "teacher", "seed"]
    places = pd.MultiIndex.from_product([list(STUDENTS), list(TEACHERS), [0]], names=names)
    shape = (len(STUDENTS), len(TEACHERS), 3)
    won = 0
    for _ in range(100):
        models = random.normal(size=(shape[0], 1, 3)) + random.normal(size=(1, *shape[1:]))
        values = (models + random.normal(size=shape)).reshape(-1, 3)
        (winner,) = winners(pd.DataFrame(values, places, columns=list("abc")))
        won += winner is not None
    assert won <= 5
