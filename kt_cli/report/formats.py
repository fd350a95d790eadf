"""Tables as text: `FORMATS[name](tables) -> str`. Raw values for machines, rounded for readers."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from kt_cli.report.latex import render_latex
from kt_cli.report.table import Cell, Column, MeanStd, Table


def render_markdown(tables: Sequence[Table]) -> str:
    """GitHub-flavoured tables, padded so that they also read well as plain text."""
    return "\n".join(map(_markdown, tables))


def _markdown(table: Table) -> str:
    columns = table.shown
    header = [_escape_markdown(column.header.replace("\n", " ")) for column in columns]
    body = [
        [
            f"**{_escape_markdown(text)}**"
            if (i, column.key) in table.bold
            else _escape_markdown(text)
            for column, text in zip(columns, texts, strict=True)
        ]
        for i, texts in enumerate(table.texts())
    ]
    widths = [max(3, *map(len, cells)) for cells in zip(header, *body, strict=True)]
    rule = [
        "-" * (width - 1) + ":" if column.align == "right" else "-" * width
        for column, width in zip(columns, widths, strict=True)
    ]
    lines = [
        "| "
        + " | ".join(_pad(c, t, w) for c, t, w in zip(columns, row, widths, strict=True))
        + " |"
        for row in (header, rule, *body)
    ]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    caption = _escape_markdown(table.caption) + "."
    return "\n".join([f"### {table.title}", "", caption, "", *lines, "", *notes, ""])


def _pad(column: Column, text: str, width: int) -> str:
    return text.rjust(width) if column.align == "right" else text.ljust(width)


def _escape_markdown(text: str) -> str:
    """Escape what Markdown would read as markup; an underscore inside a word is none."""
    text = re.sub(r"[\\`*|<>\[\]~#]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return " ".join(text.split())


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
    records = [
        {**table.group, **_flat(table.columns, row)} for table in tables for row in table.rows
    ]
    header = list(dict.fromkeys(key for record in records for key in record))
    if not records:
        header = [column.key for table in tables for column in table.columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _flat(columns: Sequence[Column], row: Sequence[Cell]) -> dict[str, Any]:
    """A row with a mean ± std as three fields: KEY, KEY_std and KEY_n."""
    record: dict[str, Any] = {}
    for column, cell in zip(columns, row, strict=True):
        if isinstance(cell, MeanStd):
            parts = {"": cell.mean, "_std": cell.std, "_n": cell.n}
            record |= {f"{column.key}{suffix}": _null(value) for suffix, value in parts.items()}
        else:
            record[column.key] = _null(cell)
    return record


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
    if isinstance(cell, MeanStd):
        return {"mean": _null(cell.mean), "std": _null(cell.std), "n": cell.n}
    return _null(cell)


def _null(value: Any) -> Any:
    """`value`, or None where it is no finite number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
    "json": render_json,
}
