"""The arrangement of finished tables: --sort, --columns and --top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kt_cli.errors import UnknownName, UsageError, unknown
from kt_cli.report.query import Query
from kt_cli.report.table import Cell, Column, Table, number


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
    return [_top(_picked(_sorted(table, query), query), query) for table in tables]


def _has(table: Table, keys: Sequence[str]) -> bool:
    return set(keys) <= {column.key for column in table.columns}


def _key(sort: str) -> str:
    return sort.removeprefix("-")


def _sorted(table: Table, query: Query) -> Table:
    places = {column.key: place for place, column in enumerate(table.columns)}
    order = list(range(len(table.rows)))
    for named in reversed([name for name in query.sort if _key(name) in places]):
        order = _ordered(order, table, places[_key(named)], named.startswith("-"))
    return _taken(table, order)


def _ordered(order: Sequence[int], table: Table, place: int, down: bool) -> list[int]:
    """Rows by one column; equal ones stay in their order, those without a value come last."""
    values = [_value(row[place]) for row in table.rows]
    known = [i for i in order if values[i] is not None]

    def rank(i: int) -> tuple[bool, Any]:
        return isinstance(values[i], str), values[i]

    return sorted(known, key=rank, reverse=down) + [i for i in order if values[i] is None]


def _value(cell: Cell) -> str | float | None:
    """What a cell is sorted by; None, which comes last, where there is nothing."""
    return cell if isinstance(cell, str) else number(cell)


def _taken(table: Table, order: Sequence[int]) -> Table:
    """Some rows of a table in another order."""
    new = {old: place for place, old in enumerate(order)}
    bold = frozenset((new[i], key) for i, key in table.bold if i in new)
    return replace(table, rows=tuple(table.rows[i] for i in order), bold=bold)


def _picked(table: Table, query: Query) -> Table:
    if not query.columns or not _has(table, query.columns):
        return table
    places = {column.key: place for place, column in enumerate(table.columns)}
    wanted = [places[key] for key in dict.fromkeys(query.columns)]
    return replace(
        table,
        columns=tuple(_visible(table.columns[place]) for place in wanted),
        rows=tuple(tuple(row[place] for place in wanted) for row in table.rows),
        bold=frozenset((i, key) for i, key in table.bold if key in query.columns),
    )


def _visible(column: Column) -> Column:
    return replace(column, detail=False, header=column.header or column.key)


def _top(table: Table, query: Query) -> Table:
    count = len(table.rows)
    if query.top is None or count <= query.top:
        return table
    note = f"The first {query.top:,} of {count:,} rows (--top)."
    cut = _taken(table, range(query.top))
    return replace(cut, notes=(*table.notes, note))
