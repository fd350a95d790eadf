"""Which properties of the two models go with Δ."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kt_cli.report import stats
from kt_cli.report.captions import caption
from kt_cli.report.codes import Floats
from kt_cli.report.groups import Group, by_one_teacher
from kt_cli.report.influence import spearman
from kt_cli.report.intervals import Pairs, numbers
from kt_cli.report.query import Query, derived
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import INTERVALS, methods_of, transfer_groups, transfer_notes

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
DERIVED = [f"{role}_{what}" for role in ("student", "teacher")
           for what in ("params_m", "family", "type")]  # fmt: skip
LEGEND = (
    "Spearman’s rank correlation of each property with Δ over n pairs (seeds averaged) [95% "
    "interval]; 0: none, ±1: perfectly monotonic. It says "
    "what goes together, not what causes what."
)


def tables(results: Results, query: Query) -> list[Table]:
    groups = filter(by_one_teacher, transfer_groups(results, query))
    return [_table(group, results, query) for group in groups]


def _table(group: Group, results: Results, query: Query) -> Table:
    methods = methods_of(group.rows)
    pairs = _properties(group.rows, results)
    columns = (
        Column("property", kind="text", detail=True),
        Column("label", "property", "text"),
        Column("pairs", "n", "count"),
        *(Column(method, method, "signed") for method in methods),
    )
    places, deltas = Pairs.of(pairs), _deltas(group.rows, pairs, methods)
    varying = [key for key in PROPERTIES if pairs[key].nunique() > 1]
    rows = tuple(_row(key, numbers(pairs, key), deltas, places) for key in varying)
    notes = (LEGEND, INTERVALS, *transfer_notes(group, results, query))
    return Table("influence", TITLE, columns, rows, caption(group), notes, group.about)


def _row(key: str, values: Floats, deltas: list[Floats], places: Pairs) -> Row:
    any_delta = ~np.isnan(np.stack(deltas)).all(axis=0)
    known = int((any_delta & ~np.isnan(values)).sum())
    return (key, PROPERTIES[key], known, *(spearman(values, d, places) for d in deltas))


def _properties(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    pairs = rows.drop_duplicates(["student", "teacher"]).sort_values(["student", "teacher"])
    pairs = derived(pairs.reset_index(drop=True), DERIVED, results.ok("models"))
    for what in ("family", "type"):
        one, other = (pairs[f"{role}_{what}"].astype(object) for role in ("student", "teacher"))
        pairs[f"same_{what}"] = (one == other).astype(float).where(one.notna() & other.notna())
    return pairs


def _deltas(rows: pd.DataFrame, pairs: pd.DataFrame, methods: list[str]) -> list[Floats]:
    """Δ of each method in the order of the pairs, NaN where it was not run."""
    roles = ["student", "teacher"]
    deltas = stats.pair_deltas(rows).astype(dict.fromkeys((*roles, "method"), object))
    table = deltas.set_index([*roles, "method"])["delta"].unstack("method")
    index = pd.MultiIndex.from_frame(pairs[roles].astype(object))
    return list(table.reindex(index=index, columns=methods).to_numpy(float).T)
