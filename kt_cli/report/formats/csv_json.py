"""Tables as CSV and JSON: raw values."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from kt_cli.report.table import Cell, Column, Interval, MeanStd, Table


def render_csv(tables: Sequence[Table]) -> str:
    """Raw values. Tables of one name become one block that starts with their groups' columns.

    More than one block: each after a comment line `# title`, separated by an empty line.
    """
    ordered = sorted(tables, key=lambda table: table.name)
    blocks = {name: list(same) for name, same in groupby(ordered, lambda table: table.name)}
    names = list(dict.fromkeys(table.name for table in tables))
    if len(names) == 1:
        return _csv_block(blocks[names[0]])
    return "\n".join(f"# {blocks[n][0].title}\n{_csv_block(blocks[n])}" for n in names)


def _csv_block(tables: Sequence[Table]) -> str:
    found = [record for table in tables for record in records(table)]
    header = list(dict.fromkeys(key for record in found for key in record))
    if not found:
        header = [column.key for table in tables for column in table.columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def records(table: Table) -> list[dict[str, Any]]:
    """The rows of a table, each with what the table's group has in common."""
    return [{**table.group, **_flat(table.columns, row)} for row in table.rows]


def _flat(columns: Sequence[Column], row: Sequence[Cell]) -> dict[str, Any]:
    """A row: a mean ± std as KEY, KEY_std and KEY_n, an interval as KEY, KEY_low and KEY_high."""
    record: dict[str, Any] = {}
    for column, cell in zip(columns, row, strict=True):
        record |= {f"{column.key}{end}": _null(value) for end, value in _parts(cell).items()}
    return record


def _parts(cell: Cell) -> dict[str, Any]:
    if isinstance(cell, MeanStd):
        return {"": cell.mean, "_std": cell.std, "_n": cell.n}
    if isinstance(cell, Interval):
        return {"": cell.value, "_low": cell.low, "_high": cell.high}
    return {"": cell}


def render_json(tables: Sequence[Table]) -> str:
    """A list of tables, rows as objects of raw values; what is not a number is null."""
    return json.dumps(list(map(_json_table, tables)), indent=2, ensure_ascii=False) + "\n"


def _json_table(table: Table) -> dict[str, Any]:
    keys = [column.key for column in table.columns]
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "group": {key: _null(value) for key, value in table.group.items()},
        "columns": keys,
        "rows": [dict(zip(keys, map(_json_cell, row), strict=True)) for row in table.rows],
        "notes": list(table.notes),
    }


def _json_cell(cell: Cell) -> Any:
    if isinstance(cell, (MeanStd, Interval)):
        return {name: _null(value) for name, value in asdict(cell).items()}
    return _null(cell)


def _null(value: Any) -> Any:
    """`value`, or None where it is no finite number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
