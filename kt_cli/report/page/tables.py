"""Tables as HTML that reads well without its script, which adds sorting, filters and details."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kt_cli.report.page.blocks import Section
from kt_cli.report.table import MISSING, Cell, Column, MeanStd, Table, number

# More rows than this are no table that one reads; `--format csv` has them all.
MAX_ROWS = 2_000


def tables_section(tables: Sequence[Table], budget: int) -> Section:
    """The tables in at most about `budget` bytes: where that is little, their first rows."""
    blocks = []
    names = [table.name for table in tables]
    for i, table in enumerate(tables):
        anchor = f"{table.name}-{names[:i].count(table.name) + 1}"
        block = _table(table, anchor, max(budget, 0))
        budget -= len(block.encode())
        blocks.append(block)
    return Section("tables", "Tables", "\n".join(blocks))


def _table(table: Table, anchor: str, budget: int) -> str:
    rows, notes = _rows(table, budget), list(table.notes)
    if len(rows) < len(table.rows):
        notes.append(
            f"The first {len(rows):,} of {len(table.rows):,} rows; all are in "
            f"kt report --table {table.name} --format csv."
        )
    head = "".join(map(_header, table.columns))
    said = "".join(f"<li>{escape(note)}</li>" for note in notes)
    said = f'<ul class="notes">{said}</ul>' if notes else ""
    box = (
        f'<div class="box" role="region" aria-labelledby="{anchor}-title" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody></table></div>"
    )
    title = escape(table.title)
    caption = f'<p class="caption">{escape(table.caption)}.</p>' if table.caption else ""
    return (
        f'<article class="table" id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h3 id="{anchor}-title">{title}</h3>{caption}{box if rows else ""}{said}</article>'
    )


def _rows(table: Table, budget: int) -> list[str]:
    rows: list[str] = []
    for i, row in enumerate(table.rows[:MAX_ROWS]):
        cells = (
            _cell(column, cell, (i, column.key) in table.bold)
            for column, cell in zip(table.columns, row, strict=True)
        )
        text = f"<tr>{''.join(cells)}</tr>\n"
        budget -= len(text.encode())
        if budget < 0:
            break
        rows.append(text)
    return rows


def _header(column: Column) -> str:
    text = column.header or column.key
    hidden = " hidden" if column.detail else ""
    align = ' class="n"' if column.align == "right" else ""
    return f'<th scope="col"{align}{hidden}>{escape(text)}</th>'


def _cell(column: Column, cell: Cell, best: bool) -> str:
    text = column.show(cell)
    classes = ["n"] * (column.align == "right") + ["none"] * (text == MISSING) + ["best"] * best
    attributes = f' class="{" ".join(classes)}"' if classes else ""
    value = number(cell)
    if value is not None:
        attributes += f' data-v="{value:.10g}"'
    if isinstance(cell, MeanStd):
        attributes += f' data-n="{cell.n}"'
    return f"<td{attributes}{' hidden' * column.detail}>{escape(text)}</td>"
