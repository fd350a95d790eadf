"""Δ of each student with each teacher, a table for each method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from kt_cli.knowledge.significance import SIGNIFICANT, holm
from kt_cli.report import stats
from kt_cli.report.captions import transfer_caption
from kt_cli.report.groups import Group
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Table
from kt_cli.report.tables.shared import (
    by_one_teacher,
    methods_of,
    seen_note,
    transfer_groups,
    transfer_notes,
)

TITLE = "Transfer delta by student and teacher"
NEEDS = {"transfer": ("delta", "gain", "loss", "transfer_p", "teacher_acc", "student_acc")}
LEGEND = (
    "Δ in percentage points{seeds}; models from the most to the least accurate; mean ± standard "
    "deviation over a student’s teachers. Bold: significant gains (McNemar’s exact test{each}, "
    "p < 0.05 after Holm’s correction for all transfers of this table)."
)


def matrix_tables(results: Results, query: Query) -> list[Table]:
    return [
        _matrix(group, method, results, query)
        for group in transfer_groups(results, query)
        if by_one_teacher(group)
        for method in methods_of(group.rows)
    ]


def _matrix(group: Group, method: str, results: Results, query: Query) -> Table:
    about = {**group.about, "method": method}
    mine = replace(group, rows=group.rows[group.rows["method"] == method], about=about)
    students = by_accuracy(mine.rows, "student")
    teachers = by_accuracy(mine.rows, "teacher")
    cells = _cells(stats.pair_deltas(mine.rows), "delta", students, teachers)
    p_values = holm(_cells(_gain_p(mine.rows), "p", students, teachers))
    columns = (
        Column("student", "student", "text"),
        Column("mean", "mean", "signed"),
        *(Column(_key(name), name, "signed") for name in teachers),
    )
    rows = tuple(
        (name, _mean(values), *(None if np.isnan(v) else float(v) for v in values))
        for name, values in zip(students, cells, strict=True)
    )
    bold = {(int(i), _key(teachers[j])) for i, j in np.argwhere(p_values < SIGNIFICANT)}
    several = mine.rows["seed"].nunique() > 1
    legend = LEGEND.format(
        seeds=" (seeds averaged)" if several else "", each=" in each seed" if several else ""
    )
    notes = (legend, *seen_note(mine), *transfer_notes(mine, results, query))
    return Table(
        "matrix", f"{TITLE}: {method}", columns, rows, transfer_caption(mine), notes,
        about, frozenset(bold),
    )  # fmt: skip


def _key(teacher: str) -> str:
    """A teacher's column; its name, unless that is another column's."""
    return f"teacher {teacher}" if teacher in ("student", "mean") else teacher


def by_accuracy(rows: pd.DataFrame, role: str) -> list[str]:
    """Models in a role from the most to the least accurate, equal ones by name."""
    known = rows.groupby(role, observed=True)[f"{role}_acc"].first()
    return sorted(map(str, known.index), key=lambda name: (-_number(known[name]), name))


def _number(value: float) -> float:
    return -np.inf if np.isnan(value) else float(value)


def _cells(
    pairs: pd.DataFrame, column: str, students: list[str], teachers: list[str]
) -> stats.Floats:
    """A column of the pairs as (students, teachers), NaN where a pair was not run."""
    places = [
        pd.Index(names).get_indexer(pd.Index(pairs[role].astype(object)))
        for role, names in (("student", students), ("teacher", teachers))
    ]
    cells = np.full((len(students), len(teachers)), np.nan)
    cells[places[0], places[1]] = pairs[column]
    return cells


def _gain_p(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each pair the largest p of a gain over its seeds: 1 where a seed has none."""
    known = rows.dropna(subset=["delta", "transfer_p"])
    gains = known.assign(p=known["transfer_p"].where(known["delta"] > 0, 1.0))
    return gains.groupby(["student", "teacher"], observed=True)["p"].max().reset_index()


def _mean(values: stats.Floats) -> Cell:
    found = stats.mean_std(pd.Series(values))
    return found if found.n else None
