"""Tables as CSV and JSON: raw values."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kt_cli.report.table import Cell, Interval, MeanStd, Table


def render_csv(tables: Sequence[Table]) -> str:
    """Raw values. Tables of one name become one block that starts with their groups' columns.

    More than one block: each after a comment line `# title`, separated by an empty line.
    """
    blocks = by_name(tables)
    if len(blocks) == 1:
        return _csv_block(tables)
    return "\n".join(f"# {same[0].title}\n{_csv_block(same)}" for same in blocks.values())


def by_name(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """The tables of each name, which one CSV file can hold."""
    found: dict[str, list[Table]] = {}
    for table in tables:
        found.setdefault(table.name, []).append(table)
    return found


def _csv_block(tables: Sequence[Table]) -> str:
    found = [record for table in tables for record in records(table)]
    keys = list(dict.fromkeys(key for record in found for key in record))
    header = keys or [column.key for table in tables for column in table.columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def records(table: Table) -> list[dict[str, Any]]:
    """The rows of a table, each with what the table's group has in common.

    A mean ± std is KEY, KEY_std and KEY_n, an interval KEY, KEY_low and KEY_high.
    """
    found = []
    for row in table.rows:
        record: dict[str, Any] = dict(table.group)
        for column, cell in zip(table.columns, row, strict=True):
            value = _plain(cell)
            if not isinstance(value, dict):
                record[column.key] = value
                continue
            (_, record[column.key]), *more = value.items()
            record |= {f"{column.key}_{name}": part for name, part in more}
        found.append(record)
    return found


def render_json(tables: Sequence[Table]) -> str:
    """A list of tables, rows as objects of raw values; what is not a number is null."""
    return json.dumps(list(map(_json_table, tables)), indent=2, ensure_ascii=False) + "\n"


def _json_table(table: Table) -> dict[str, Any]:
    keys = [column.key for column in table.columns]
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "conclusion": table.conclusion or None,
        "group": {key: _plain(value) for key, value in table.group.items()},
        "columns": keys,
        "rows": [dict(zip(keys, map(_plain, row), strict=True)) for row in table.rows],
        "notes": list(table.notes),
    }


def _plain(cell: Cell) -> Any:
    """The raw value, or the values by name; None for what is no finite number."""
    if isinstance(cell, (MeanStd, Interval)):
        return {name: _plain(value) for name, value in asdict(cell).items()}
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
