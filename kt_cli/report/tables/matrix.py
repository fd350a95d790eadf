"""Δ of each student with each teacher, a table for each method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from kt_cli.report import stats
from kt_cli.report.captions import transfer_caption
from kt_cli.report.groups import Group
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Table
from kt_cli.report.tables.shared import (
    by_one_teacher,
    highest,
    methods_of,
    transfer_groups,
    transfer_notes,
)

TITLE = "Transfer delta by student and teacher"
NEEDS = {"transfer": ("delta", "teacher_acc", "student_acc")}
LEGEND = (
    "Δ in percentage points; models from the most to the least accurate; mean ± standard "
    "deviation over a student’s teachers"
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
    cells = _cells(mine.rows, students, teachers)
    columns = (
        Column("student", "student", "text"),
        Column("mean", "mean", "signed"),
        *(Column(_key(name), name, "signed") for name in teachers),
    )
    rows = tuple(
        (name, _mean(values), *(None if np.isnan(v) else float(v) for v in values))
        for name, values in zip(students, cells, strict=True)
    )
    bold = {(i, _key(teachers[place])) for i, row in enumerate(rows) for place in highest(row[2:])}
    seeds = " (seeds averaged)" if mine.rows["seed"].nunique() > 1 else ""
    best = "; the best teacher of each student in bold." if len(teachers) > 1 else "."
    notes = (LEGEND + seeds + best, *transfer_notes(mine, results, query))
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


def _cells(rows: pd.DataFrame, students: list[str], teachers: list[str]) -> stats.Floats:
    """Δ over seeds (students, teachers), NaN where a pair was not run."""
    pairs = stats.pair_deltas(rows)
    places = [
        pd.Index(names).get_indexer(pd.Index(pairs[role].astype(object)))
        for role, names in (("student", students), ("teacher", teachers))
    ]
    cells = np.full((len(students), len(teachers)), np.nan)
    cells[places[0], places[1]] = pairs["delta"]
    return cells


def _mean(values: stats.Floats) -> Cell:
    found = stats.mean_std(pd.Series(values))
    return found if found.n else None
