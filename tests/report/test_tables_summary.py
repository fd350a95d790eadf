"""The summary as the query splits it, and its intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kt_cli import store
from kt_cli.report.bootstrap import mean_interval
from kt_cli.report.query import Query
from kt_cli.report.table import Interval
from kt_cli.report.tables import sweep_tables
from tests.report.records import records

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
    for start in range(0, len(table.rows), len(METHODS)):
        block = range(start, start + len(METHODS))
        deltas = [records(table)[i]["delta"].mean for i in block]
        best = {i for i, key in table.bold if key == "delta" and i in block}
        assert best == {start + int(np.argmax(deltas))}


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
        wanted = mean_interval(mine.assign(won=100.0 * (mine["delta"] > 0)), "won")
        assert isinstance(record["success_rate"], Interval)
        assert record["success_rate"].low == pytest.approx(wanted.low)
        assert record["success_rate"].high == pytest.approx(wanted.high)
        assert record["delta_interval"].low == pytest.approx(mean_interval(mine, "delta").low)


def test_by_a_column_of_the_same_name_as_one_of_the_table(sweep: Sweep) -> None:
    sweep.write("transfer", [
        sweep.transfer("resnet50", "convnext_tiny", gain=gain, order=order)
        for gain, order in ((1.0, None), (2.0, "asc"), (2.0, "asc"))
    ])  # fmt: skip
    (table,) = sweep_tables([sweep.folder], ["summary"], Query(by=("gain", "order")))
    found = [(r["by_gain"], r["order"], r["n"], r["gain"]) for r in records(table)]
    assert found == [(1.0, None, 1, 1.0), (2.0, "asc", 2, 2.0)]
