"""Δ of each student with each teacher, a table for each method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report import stats
from kt_cli.report.captions import caption
from kt_cli.report.codes import Floats
from kt_cli.report.groups import Group, by_one_teacher, models_of, native
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import methods_of, seen_note, transfer_groups, transfer_notes

FEW = 12  # models
TITLE = "Transfer delta by student and teacher"
NEEDS = {"transfer": ("delta", "gain", "loss", "transfer_p", "teacher_acc", "student_acc")}
LEGEND = (
    "Δ in percentage points{seeds}; models from the most to the least accurate; mean ± standard "
    "deviation over a student’s teachers. Bold: significant gains (McNemar’s exact test{each}, "
    "p < 0.05 after Holm’s correction for all transfers of this table)."
)


def is_small(results: Results) -> bool:
    """Whether so few models are in it that it is shown without being asked for."""
    return models_of(results.ok("transfer")) <= FEW


def tables(results: Results, query: Query) -> list[Table]:
    return [
        _table(group, method, results, query)
        for group in filter(by_one_teacher, transfer_groups(results, query))
        for method in methods_of(group.rows)
    ]


def _table(group: Group, method: str, results: Results, query: Query) -> Table:
    about = {**group.about, "method": method}
    mine = replace(group, rows=group.rows[group.rows["method"] == method], about=about)
    students = by_accuracy(mine.rows, "student")
    teachers = by_accuracy(mine.rows, "teacher")
    deltas = stats.pair_deltas(mine.rows).set_index(["student", "teacher"])["delta"]
    cells = _cells(deltas, students, teachers)
    p_values = holm(_cells(_gain_p(mine.rows), students, teachers))
    # A teacher's column bears its name, unless that is another column's.
    keys = [f"teacher {name}" if name in ("student", "mean") else name for name in teachers]
    columns = (
        Column("student", "student", "text"),
        Column("mean", "mean", "signed"),
        *(Column(key, name, "signed") for key, name in zip(keys, teachers, strict=True)),
    )
    rows = tuple(_row(name, values) for name, values in zip(students, cells, strict=True))
    bold = frozenset((int(i), keys[j]) for i, j in np.argwhere(p_values < SIGNIFICANT))
    several = mine.rows["seed"].nunique() > 1
    legend = LEGEND.format(
        seeds=" (seeds averaged)" if several else "", each=" in each seed" if several else ""
    )
    notes = (legend, *seen_note(mine), *transfer_notes(mine, results, query))
    title = f"{TITLE}: {method}"
    return Table("matrix", title, columns, rows, caption(mine), notes, about, bold)


def _row(student: str, deltas: Floats) -> Row:
    mean = stats.mean_std(pd.Series(deltas))
    return (student, mean if mean.n else None, *map(native, deltas))


def by_accuracy(rows: pd.DataFrame, role: str) -> list[str]:
    """Models in a role from the most to the least accurate, equal ones by name."""
    known = rows.groupby(role, observed=True)[f"{role}_acc"].first().fillna(-np.inf)
    return sorted(map(str, known.index), key=lambda name: (-known[name], name))


def _cells(by_pair: pd.Series[float], students: list[str], teachers: list[str]) -> Floats:
    """Values by student and teacher as (students, teachers), NaN where a pair was not run."""
    return by_pair.unstack("teacher").reindex(index=students, columns=teachers).to_numpy(float)


def _gain_p(rows: pd.DataFrame) -> pd.Series[float]:
    """Of each pair the largest p of a gain over its seeds: 1 where a seed has none."""
    known = rows.dropna(subset=["delta", "transfer_p"])
    p_values = known["transfer_p"].where(known["delta"] > 0, 1.0)
    return p_values.groupby([known["student"], known["teacher"]], observed=True).max()
