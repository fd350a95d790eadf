"""The models of a sweep and their accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kt_cli.errors import counted
from kt_cli.report.captions import caption, general_notes
from kt_cli.report.groups import SAME_DATA, Group, native, split
from kt_cli.report.query import Query
from kt_cli.report.read import Results
from kt_cli.report.table import Column, Table

NEEDS = {
    "models": (
        "accuracy", "accuracy_low", "accuracy_high", "top5", "params_m", "input_size", "warning",
    ),
}  # fmt: skip
MOST_WARNINGS = 10  # that are told one by one
COLUMNS = (
    Column("model", "model", "text"),
    Column("accuracy", "top-1\n(%)"),
    Column("accuracy_low", "from\n(%)"),
    Column("accuracy_high", "to\n(%)"),
    Column("top5", "top-5\n(%)"),
    Column("params_m", "params\n(M)"),
    Column("input_size", "input\n(px)", "count"),
)


def tables(results: Results, query: Query) -> list[Table]:
    return [_table(group, results, query) for group in split(results.ok("models"), SAME_DATA)]


def _table(group: Group, results: Results, query: Query) -> Table:
    ranked = group.rows.sort_values(["accuracy", "model"], ascending=[False, True])
    keys = [column.key for column in COLUMNS]
    rows = tuple(tuple(map(native, row)) for row in ranked[keys].itertuples(index=False))
    notes = (
        f"n = {counted(len(rows), 'model')}. From, to: 95% interval of top-1 (Wilson).",
        *_warnings(ranked),
        *general_notes(group, results, query, "models"),
    )
    return Table("models", "Models", COLUMNS, rows, caption(group), notes, group.about)


def _warnings(models: pd.DataFrame) -> Iterator[str]:
    warned = models[models["warning"].notna()]
    yield from (f"{r.model}: {r.warning}" for r in warned[:MOST_WARNINGS].itertuples())
    if (more := len(warned) - MOST_WARNINGS) > 0:
        verb = "has" if more == 1 else "have"
        yield f"{counted(more, 'more model')} {verb} a warning."
