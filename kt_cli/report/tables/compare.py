"""Each two methods on the pairs that both have."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kt_cli.knowledge.significance import holm
from kt_cli.report.captions import caption
from kt_cli.report.groups import JOINED, Group
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Row, Table
from kt_cli.report.tables.shared import INTERVALS, settings_of, transfer_groups, transfer_notes
from kt_cli.report.versus import Versus, by_run, versus

TITLE = "Methods compared on the same pairs"
NEEDS = {"transfer": ("delta",)}
COLUMNS = (
    Column("method", "method", "text", lead=True),
    Column("against", "against", "text", lead=True),
    Column("pairs", "pairs", "count"),
    Column("difference", "difference\nof Δ (pp)", "signed"),
    Column("better", "better", "count"),
    Column("equal", "equal", "count"),
    Column("worse", "worse", "count"),
    Column("p", "p", "p"),
    Column("p_holm", "p\n(Holm)", "p"),
)
LEGEND = (
    "Difference: Δ of the method less that of the other on the same pair and seed, seeds averaged, "
    "mean over pairs [95% interval]; better, equal, worse: pairs by its sign; p: Wilcoxon’s "
    "signed-rank test over pairs, two-sided, which takes pairs for independent; then after Holm’s "
    "correction for all comparisons of this table."
)


def tables(results: Results, query: Query) -> list[Table]:
    """A table for each group in which two methods share a pair."""
    groups = transfer_groups(results, query, settings_of(query))
    found = [_table(group, results, query) for group in groups]
    return [table for table in found if table.rows]


def _table(group: Group, results: Results, query: Query) -> Table:
    runs_of, known = _variants(group.rows, settings_of(query))
    runs = by_run(runs_of, what="variant")
    methods = [name for name in known if name in runs]
    compared = [
        (later, earlier, versus(runs[later], runs[earlier]))
        for place, later in enumerate(methods)
        for earlier in methods[:place]
    ]
    compared = [one for one in compared if len(one[2].differences)]
    p_values = holm(np.array([found.p for *_, found in compared]))
    rows = tuple(_row(*one, float(p)) for one, p in zip(compared, p_values, strict=True))
    notes = (LEGEND, INTERVALS, *transfer_notes(group, results, query))
    return Table("compare", TITLE, COLUMNS, rows, caption(group), notes, group.about)


def _variants(rows: pd.DataFrame, by: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Rows with `variant`: the method, and the settings that are told apart; and all of these."""
    names = rows["method"].astype(str)
    for column in by:
        said = rows[column].astype(object).where(rows[column].notna(), "–")
        names = names + JOINED + said.astype(str)
    rows = rows.assign(variant=names)
    ranked = rows.drop_duplicates("variant").sort_values(by) if by else rows
    found = sorted(dict.fromkeys(zip(ranked["method"].astype(str), ranked["variant"], strict=True)),
                   key=lambda one: method_rank(one[0]))  # fmt: skip
    return rows, [variant for _, variant in found]


def _row(method: str, other: str, found: Versus, corrected: float) -> Row:
    signs = np.sign(found.differences)
    counts = (int((signs == sign).sum()) for sign in (1, 0, -1))
    return (method, other, len(signs), found.interval, *counts, found.p, corrected)
