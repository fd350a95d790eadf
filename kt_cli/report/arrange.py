"""The arrangement of finished tables: --sort, --columns and --top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kt_cli.errors import UnknownName, UsageError, unknown
from kt_cli.report.query import Query
from kt_cli.report.table import Table, number


def arrange(tables: Sequence[Table], query: Query) -> list[Table]:
    """The tables as --sort, --columns and --top want them.

    A table that has not all of the columns to show, or none to sort by, stays as it is.

    Raises:
        UnknownName: no table has a column of that key.
        UsageError: there are such columns, but no table has all that are to be shown.
    """
    keys = list(dict.fromkeys(column.key for table in tables for column in table.columns))
    for named in (*map(_key, query.sort), *query.columns):
        if tables and named not in keys:
            error = unknown("column of the tables", named, keys)
            raise UnknownName(error.message, error.tip or f"They have: {', '.join(keys)}.")
    if tables and not any(_has(table, query.columns) for table in tables):
        raise UsageError(
            f"no table has all of the columns {', '.join(query.columns)}",
            "Name columns of one table, and the table with --table.",
        )
    return [_arranged(table, query) for table in tables]


def _has(table: Table, keys: Sequence[str]) -> bool:
    return set(keys) <= {column.key for column in table.columns}


def _key(sort: str) -> str:
    return sort.removeprefix("-")


def _arranged(table: Table, query: Query) -> Table:
    by_key = {column.key: column for column in table.columns}
    order = list(range(len(table.rows)))
    for named in reversed([name for name in query.sort if _key(name) in by_key]):
        place = table.columns.index(by_key[_key(named)])
        order = _ordered(order, table, place, named.startswith("-"))
    if query.top is not None and len(order) > query.top:
        note = f"The first {query.top:,} of {len(order):,} rows (--top)."
        table = replace(table, notes=(*table.notes, note))
    if not query.columns or not _has(table, query.columns):
        return table.part(order[: query.top])
    columns = [by_key[key] for key in dict.fromkeys(query.columns)]
    visible = [replace(c, detail=False, header=c.header or c.key) for c in columns]
    return replace(table.part(order[: query.top], columns), columns=tuple(visible))


def _ordered(order: Sequence[int], table: Table, place: int, down: bool) -> list[int]:
    """Rows by one column; equal ones stay in their order, those without a value come last."""
    cells = [row[place] for row in table.rows]
    values = [cell if isinstance(cell, str) else number(cell) for cell in cells]

    def rank(i: int) -> tuple[bool, Any]:
        return isinstance(values[i], str), values[i]

    known = [i for i in order if values[i] is not None]
    return sorted(known, key=rank, reverse=down) + [i for i in order if values[i] is None]
