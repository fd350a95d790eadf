"""`--by` a setting: what it tells apart stands in one table, and is compared on the same pairs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from kt_cli.report.query import Query
from tests.report.records import records, sweep_tables

Sweep = Any  # of the conftest beside this file
AVERAGES = {"none": "aaaa", "last-half": "bbbb"}


@pytest.fixture
def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Two methods with learning rates of their own, each with both averages."""
    made = [
        sweep.transfer(t, s, method=method, settings=settings, average=average,
                       lr=0.01 if method == "kl-mcl" else 1e-4)
        for t, s in itertools.permutations(sweep.MODELS, 2)
        for method in ("kl", "kl-mcl") for average, settings in AVERAGES.items()
    ]  # fmt: skip
    sweep.write("transfer", made)
    return made


def test_a_setting_is_told_apart_in_one_table(sweep: Sweep, rows: list[dict[str, Any]]) -> None:
    parted = sweep_tables([sweep.folder], ["summary"], Query())
    assert len(parted) == 2 and parted[-1].notes[-1].startswith("--by average puts")
    (table,) = sweep_tables([sweep.folder], ["summary"], Query(by=("average",)))
    found = {(r["average"], r["method"]): r for r in records(table)}
    assert set(found) == set(itertools.product(AVERAGES, ("kl", "kl-mcl")))
    for (average, method), record in found.items():
        mine = [r["delta"] for r in rows if (r["average"], r["method"]) == (average, method)]
        assert record["n"] == 12 and record["delta"].mean == pytest.approx(np.mean(mine))
    assert table.group["settings"] == "aaaa, bbbb" and "--by" not in "".join(table.notes)


def test_other_settings_still_part_the_tables(sweep: Sweep, rows: list[dict[str, Any]]) -> None:
    more = [{**r, "run_id": f"m{r['run_id']}", "epochs": 9, "settings": f"{r['settings']}9"}
            for r in rows]  # fmt: skip
    sweep.write("transfer", more)
    tables = sweep_tables([sweep.folder], ["summary"], Query(by=("average",)))
    assert sorted(str(t.group["settings"]) for t in tables) == ["aaaa, bbbb", "aaaa9, bbbb9"]
    assert all(record["n"] == 12 for table in tables for record in records(table))
    tables = sweep_tables([sweep.folder], ["students"], Query(by=("average",)))
    assert len(tables) == 4  # which would average what differs


def test_only_settings_that_occur_on_the_same_images_are_named(
    sweep: Sweep, rows: list[dict[str, Any]]
) -> None:
    """One group has both averages, the other only one of them, and on it nothing is compared."""
    others = [{**r, "run_id": f"o{r['run_id']}", "eval_data": "others"}
              for r in rows if r["average"] == "none"]  # fmt: skip
    sweep.write("transfer", others)
    tables = sweep_tables([sweep.folder], ["summary"], Query(by=("average",)))
    found = {str(t.group["eval_data"]): t.group["settings"] for t in tables}
    assert found.pop("others") == "aaaa" and set(found.values()) == {"aaaa, bbbb"}


def of_all_signs(differences: NDArray[np.float64]) -> float:
    """Wilcoxon's p by all 2ⁿ ways in which equally large differences could have gone."""
    ranks = rankdata(np.abs(differences))
    sums = np.array([*itertools.product((0, 1), repeat=len(ranks))]) @ ranks
    found = ranks[differences > 0].sum()
    return min(1.0, 2 * min(np.mean(sums <= found), np.mean(sums >= found)))


def test_settings_are_compared_on_the_same_pairs(sweep: Sweep, rows: list[dict[str, Any]]) -> None:
    (table,) = sweep_tables([sweep.folder], ["compare"], Query(by=("average",)))
    found = {(r["method"], r["against"]): r for r in records(table)}
    assert len(found) == 6
    delta = {(r["method"], r["average"], r["teacher"], r["student"]): r["delta"] for r in rows}
    pairs = list(itertools.permutations(sweep.MODELS, 2))
    mine = [delta[("kl", "none", *pair)] - delta[("kl", "last-half", *pair)] for pair in pairs]
    record = found["kl, none", "kl, last-half"]
    assert record["difference"].value == pytest.approx(np.mean(mine))
    assert record["better"] == sum(d > 0 for d in mine) and record["pairs"] == 12
    assert record["p"] == pytest.approx(of_all_signs(np.round(mine, 9)))
    without = sweep_tables([sweep.folder], ["compare"], Query())
    assert [(r["method"], r["against"]) for t in without for r in records(t)] == [
        ("kl-mcl", "kl")
    ] * 2
