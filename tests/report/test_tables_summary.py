"""The summary as the query splits it, and its intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kt_cli.knowledge.significance import mcnemar
from kt_cli.report.query import Query
from kt_cli.report.table import Interval
from kt_cli.report.tables.shared import smallest_seen
from kt_cli.rows import store
from tests.report.by_hand import mean_ends
from tests.report.records import records, sweep_tables

Sweep = Any  # of the conftest beside this file


def rows_of(folder: Path, name: str) -> pd.DataFrame:
    """Finished rows with plain strings."""
    rows = store.read([folder], name)
    return rows[rows["status"] == "ok"].reset_index(drop=True)


METHODS = ("kl", "xekl", "kl-dp", "kl-dp+guard", "kl-dp-u")


def test_by_splits_the_summary_and_each_part_is_that_of_its_rows(filled: Sweep) -> None:
    rows = rows_of(filled.folder, "transfer")
    (table,) = sweep_tables([filled.folder], ["summary"], Query(by=("student", "seed")))
    found = {(r["student"], r["seed"], r["method"]): r for r in records(table)}
    groups = rows.groupby(["student", "seed", "method"])
    assert list(found) == sorted(found, key=lambda k: (k[0], k[1], list(METHODS).index(k[2])))
    assert len(found) == len(groups)
    for key, mine in groups:
        assert found[key]["n"] == len(mine)
        assert found[key]["delta"].mean == pytest.approx(mine["delta"].mean())
    assert not table.bold  # three teachers bear out nothing


def test_by_a_derived_column(filled: Sweep) -> None:
    (table,) = sweep_tables([filled.folder], ["summary"], Query(by=("student_type", "stronger")))
    rows = rows_of(filled.folder, "transfer")
    stronger = rows[(rows["acc_diff"] > 0.5) & rows["student"].isin(["resnet50", "convnext_tiny"])]
    for record in records(table):
        if (record["student_type"], record["stronger"]) == ("cnn", "stronger"):
            mine = stronger[stronger["method"] == record["method"]]
            assert record["delta"].mean == pytest.approx(mine["delta"].mean())
    sides = [record["stronger"] for record in records(table) if record["student_type"] == "cnn"]
    assert sides == ["stronger"] * 5 + ["weaker"] * 5  # not by name


def test_seeds_are_averaged_first_if_that_is_asked_for(filled: Sweep) -> None:
    rows = rows_of(filled.folder, "transfer")
    (table,) = sweep_tables([filled.folder], ["summary"], Query(seed_average=True))
    for record in records(table):
        mine = rows[rows["method"] == record["method"]]
        means = mine.groupby(["student", "teacher"])["delta"].mean()
        assert record["n"] == record["pairs"] == len(means) == 12
        assert record["success_rate"].value == pytest.approx(100 * (means > 0).mean())
        assert record["delta"].std == pytest.approx(means.std())
        assert math.isnan(record["significant_gain"])
    assert any(note.startswith("n = 60 means over seeds: 12 pairs × 5") for note in table.notes)


def test_intervals_of_the_summary_are_those_over_pairs(filled: Sweep) -> None:
    rows = rows_of(filled.folder, "transfer")
    (table,) = sweep_tables([filled.folder], ["summary"])
    for record in records(table):
        mine = rows[rows["method"] == record["method"]]
        wanted = mean_ends(mine.assign(won=100.0 * (mine["delta"] > 0)), "won", percent=True)
        assert isinstance(record["success_rate"], Interval)
        assert (record["success_rate"].low, record["success_rate"].high) == pytest.approx(wanted)
        interval = record["delta_interval"]
        assert (interval.low, interval.high) == pytest.approx(mean_ends(mine, "delta"))


def test_a_guard_that_stays_abstains(sweep: Sweep) -> None:
    rows = [
        sweep.transfer(t, s, method="kl+guard", guard_alpha=alpha, delta=delta)
        for (t, s), alpha, delta in (
            (("a", "b"), 0.0, 0.0), (("a", "c"), 0.5, 1.0), (("b", "c"), 0.3, -1.0),
            (("b", "a"), 0.0, 0.0), (("c", "a"), 1.0, None),
        )
    ]  # fmt: skip
    sweep.write("transfer", [*rows, sweep.transfer("a", "b", method="kl", delta=1.0)])
    (table,) = sweep_tables([sweep.folder], ["summary"])
    plain, guarded = records(table)
    assert (guarded["n"], guarded["abstained"], guarded["success_rate"].value) == (4, 50.0, 25.0)
    assert guarded["paper_success_rate"] == 0.0  # the median of 0 (a), 0 (b) and 50 (c)
    assert (plain["n"], plain["abstained"]) == (1, None)
    assert "abstained" in [column.key for column in table.shown]
    assert any(note.startswith("abstained: share where the guard") for note in table.notes)
    assert "Left out: 1 transfer without Δ." in table.notes


def test_without_a_guard_nothing_is_said_of_abstaining(sweep: Sweep) -> None:
    sweep.write("transfer", [sweep.transfer("a", "b")])
    (table,) = sweep_tables([sweep.folder], ["summary"])
    assert "abstained" not in [column.key for column in table.shown]
    assert not any("abstained" in note for note in table.notes)


def test_the_best_is_bold_where_the_same_pairs_bear_it_out(sweep: Sweep) -> None:
    models, rng = "abcde", np.random.default_rng(0)
    sweep.write("transfer", [
        sweep.transfer(t, s, method=method, delta=delta + rng.normal(0, 0.3))
        for method, delta in (("kl-dp", 2.0), ("kl", 0.2), ("xekl", -0.5))
        for t in models for s in models if s != t
    ])  # fmt: skip
    (table,) = sweep_tables([sweep.folder], ["summary"])
    best = [record["method"] for record in records(table)].index("kl-dp")
    assert (best, "delta") in table.bold
    assert {i for i, _ in table.bold} == {best}
    assert not any(key == "paper_success_rate" for _, key in table.bold)


@pytest.mark.parametrize(("n", "changed"), [(899, 27), (50_000, 1350), (300, 39)])
def test_the_smallest_delta_that_can_be_seen_is_mcnemars(n: int, changed: int) -> None:
    """The exact test of as many changed images is significant from there on."""
    gained = np.arange(changed // 2, changed + 1)
    deltas = 100 * (2 * gained - changed) / n
    exact = deltas[mcnemar(gained, changed - gained) < 0.05].min()
    least = smallest_seen(100 * changed / n, n)
    assert least == pytest.approx(exact)


def test_the_smallest_delta_that_can_be_seen_by_simulation() -> None:
    """Half of the transfers that truly gain as much are significant; a third more, nearly all."""
    random, n, changed = np.random.default_rng(0), 10_000, 4.0
    for factor, low, high in ((1.0, 0.4, 0.6), (1.6, 0.8, 0.95), (0.3, 0.02, 0.15)):
        delta = factor * smallest_seen(changed, n)
        rates = [(changed + delta) / 200, (changed - delta) / 200, 1 - changed / 100]
        gained, lost, _ = random.multinomial(n, rates, 2000).T
        assert low < (mcnemar(gained, lost) < 0.05).mean() < high


def test_six_images_at_least_must_change() -> None:
    assert smallest_seen(0.01, 900) == pytest.approx(600 / 900)
    p = mcnemar(np.array([5, 6]), np.array([0, 0]))
    assert p[0] > 0.05 > p[1]


def test_what_can_be_seen_is_said(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("a", "b", method=m, gain=g, loss=1.0) for m, g in (("xekl", 2), ("kl", 5))
    ])  # fmt: skip
    for name in ("summary", "students", "matrix"):
        notes = sweep_tables([sweep.folder], [name])[0].notes
        (said,) = [note for note in notes if "is significant from about" in note]
        assert said.startswith(
            "On 200 images a single transfer’s Δ is significant from about ±4.00 (kl)"
        )


def test_by_a_column_of_the_same_name_as_one_of_the_table(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", gain=gain, order=order)
        for gain, order in ((1.0, None), (2.0, "asc"), (2.0, "asc"))
    ])  # fmt: skip
    (table,) = sweep_tables([sweep.folder], ["summary"], Query(by=("gain", "order")))
    found = [(r["by_gain"], r["order"], r["n"], r["gain"]) for r in records(table)]
    assert found == [(1.0, None, 1, 1.0), (2.0, "asc", 2, 2.0)]


def test_small_values_of_a_setting_are_told_apart(sweep: Sweep) -> None:
    rates = (0.0001, 0.0005, 0.00425)
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", lr=lr, settings=f"{lr}") for lr in rates
    ])  # fmt: skip
    (table,) = sweep_tables([sweep.folder], ["summary"], Query(by=("lr",)))
    shown = [row[0] for row in table.texts()]
    assert shown == ["0.00010", "0.00050", "0.00425"]
