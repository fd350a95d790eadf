"""Which properties of the two models go with Δ."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kt_cli.report import stats
from kt_cli.report.captions import transfer_caption
from kt_cli.report.groups import Group
from kt_cli.report.influence import spearman
from kt_cli.report.intervals import Pairs
from kt_cli.report.query import Query, derived
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import (
    INTERVALS,
    by_one_teacher,
    floats,
    methods_of,
    transfer_groups,
    transfer_notes,
)

TITLE = "What goes with Δ"
NEEDS = {
    "transfer": ("delta", "student_acc", "teacher_acc", "acc_diff", "pos_flips"),
    "models": ("params_m",),
}
PROPERTIES = {
    "student_acc": "student’s accuracy",
    "teacher_acc": "teacher’s accuracy",
    "acc_diff": "accuracy difference, teacher − student",
    "pos_flips": "complementary knowledge ρ⁺",
    "student_params_m": "student’s parameters",
    "teacher_params_m": "teacher’s parameters",
    "same_family": "same family (1) or not (0)",
    "same_type": "same type (1) or not (0)",
}
DERIVED = [
    "student_params_m", "teacher_params_m", "student_family", "teacher_family", "student_type",
    "teacher_type",
]  # fmt: skip
LEGEND = (
    "Spearman’s rank correlation of each property with Δ over n pairs (seeds averaged) [95% "
    "interval]; 0: none, ±1: perfectly monotonic. It says "
    "what goes together, not what causes what."
)


def influence_tables(results: Results, query: Query) -> list[Table]:
    groups = filter(by_one_teacher, transfer_groups(results, query))
    return [_influence(group, results, query) for group in groups]


def _influence(group: Group, results: Results, query: Query) -> Table:
    methods = methods_of(group.rows)
    pairs = _properties(group.rows, results)
    columns = (
        Column("property", kind="text", detail=True),
        Column("label", "property", "text"),
        Column("pairs", "n", "count"),
        *(Column(method, method, "signed") for method in methods),
    )
    places = Pairs.of(pairs)
    deltas = _deltas(group.rows, pairs, methods)
    rows = tuple(
        _row(key, floats(pairs, key), deltas, places)
        for key in PROPERTIES
        if pairs[key].nunique() > 1
    )
    notes = (LEGEND, INTERVALS, *transfer_notes(group, results, query))
    return Table("influence", TITLE, columns, rows, transfer_caption(group), notes, group.about)


def _row(key: str, values: stats.Floats, deltas: list[stats.Floats], places: Pairs) -> Row:
    any_delta = ~np.isnan(np.stack(deltas)).all(axis=0)
    known = int((any_delta & ~np.isnan(values)).sum())
    return (key, PROPERTIES[key], known, *(spearman(values, d, places) for d in deltas))


def _properties(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    """One row for each pair with its properties."""
    pairs = rows.drop_duplicates(["student", "teacher"]).sort_values(["student", "teacher"])
    pairs = derived(pairs.reset_index(drop=True), DERIVED, results.ok("models"))
    same = {f"same_{what}": _same(pairs, what) for what in ("family", "type")}
    return pairs.assign(**same)


def _same(pairs: pd.DataFrame, what: str) -> stats.Floats:
    student, teacher = (pairs[f"{role}_{what}"].astype(object) for role in ("student", "teacher"))
    unknown = (student.isna() | teacher.isna()).to_numpy()
    return np.where(unknown, np.nan, (student == teacher).to_numpy(dtype=float))


def _deltas(rows: pd.DataFrame, pairs: pd.DataFrame, methods: list[str]) -> list[stats.Floats]:
    """Δ of each method in the order of the pairs, NaN where it was not run."""
    found = stats.pair_deltas(rows).astype({"student": object, "teacher": object})
    index = pd.MultiIndex.from_frame(pairs[["student", "teacher"]].astype(object))
    by_method = {str(m): part for m, part in found.groupby("method", observed=True)}
    return [
        by_method[m].set_index(["student", "teacher"])["delta"].reindex(index).to_numpy(float)
        if m in by_method
        else np.full(len(pairs), np.nan)
        for m in methods
    ]
