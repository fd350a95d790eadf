"""What tables have in common: their groups of rows, footnotes, and the best cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kt_cli.report.captions import counted, left_out, limit_note
from kt_cli.report.groups import SAME_TRANSFER, Group, split
from kt_cli.report.methods import method_rank
from kt_cli.report.query import Query, seed_average
from kt_cli.report.read import Results
from kt_cli.report.table import Cell, Column, Row, number

JOINED = ", "  # between the settings of a table that is about several
NOUNS = {"transfer": "transfer", "complementarity": "ordered pair", "models": "model"}


def transfer_groups(
    results: Results, query: Query, same: Sequence[str] = SAME_TRANSFER
) -> list[Group]:
    """Finished transfers, their seeds averaged if that is asked for, as groups that compare."""
    rows = results.ok("transfer")
    return split(seed_average(rows) if query.seed_average else rows, same)


def by_one_teacher(group: Group) -> bool:
    """Whether no transfer of the group has several teachers."""
    ways = group.rows["teachers"]
    return bool((ways.isna() | (ways == "single")).all())


def methods_of(rows: pd.DataFrame) -> list[str]:
    return sorted(map(str, rows["method"].unique()), key=method_rank)


def transfer_notes(
    group: Group, results: Results, query: Query, count: str | None = None
) -> list[str]:
    """How many transfers a table is about (or what `count` says), and which it leaves out."""
    unknown = int(group.rows["delta"].isna().sum())
    return [
        count or _count_note(group.rows, query),
        *([f"Left out: {counted(unknown, 'transfer')} without Δ."] if unknown else []),
        *left_out(failed_transfers(group, results), group, "transfer"),
        *general_notes(group, results, query, "transfer"),
    ]


def failed_transfers(group: Group, results: Results) -> pd.DataFrame:
    """Transfers without a result that have the group's settings and, where it has one, method."""
    failed = results.failed("transfer")
    failed = failed[failed["settings"].isin(str(group.about["settings"]).split(JOINED))]
    return failed[failed["method"] == group.about["method"]] if "method" in group.about else failed


def general_notes(group: Group, results: Results, query: Query, table: str) -> list[str]:
    """`--limit`, `--where` and what could not be read."""
    return [*limit_note(group), *_where_note(results, query, table), *unread_note(results)]


def _where_note(results: Results, query: Query, table: str) -> list[str]:
    if not query.where:
        return []
    lacking = query.lacks(table)
    if lacking:
        return [f"Not chosen by {query.where}: these rows have no {' and no '.join(lacking)}."]
    count = counted(results.filtered.get(table, 0), NOUNS[table])
    return [f"Only where {query.where}, which leaves out {count}."]


def unread_note(results: Results) -> list[str]:
    if not results.skipped:
        return []
    return [f"Left out: the rows of {counted(len(results.skipped), 'file')} that cannot be read."]


def _count_note(rows: pd.DataFrame, query: Query) -> str:
    pairs, seeds = len(rows.drop_duplicates(["teacher", "student"])), int(rows["seed"].nunique())
    methods = int(rows["method"].nunique())
    parts = [counted(pairs, "pair"), counted(methods, "method")]
    if query.seed_average:
        total, runs = f"{counted(len(rows), 'mean')} over seeds", 1
    else:
        total, runs = counted(len(rows), "transfer"), seeds
        parts.append(counted(seeds, "seed"))
    if len(rows) == pairs * methods * runs:
        return f"n = {total}: {' × '.join(parts)}."
    return (
        f"n = {total} of {', '.join(parts)}; methods do not all cover the same pairs and seeds, "
        "so compare them with care."
    )


def best_in_column(
    rows: Sequence[Row], columns: Sequence[Column], keys: Sequence[str]
) -> frozenset[tuple[int, str]]:
    """The highest cells of each column of `keys`."""
    places = {column.key: place for place, column in enumerate(columns)}
    by_key = {key: [row[places[key]] for row in rows] for key in keys}
    return frozenset((i, key) for key, cells in by_key.items() for i in highest(cells))


def highest(cells: Sequence[Cell]) -> list[int]:
    """Where the highest value is, ties included; nowhere if there is nothing to compare."""
    values = [number(cell) for cell in cells]
    known = [value for value in values if value is not None]
    best = max(known, default=None)
    return [i for i, v in enumerate(values) if v == best] if len(known) > 1 else []


def floats(rows: pd.DataFrame, column: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A column as numbers, NaN for null."""
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
