"""Tables as HTML that reads well without its script, which adds sorting, filters and details."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from kt_cli.report.page.blocks import Section
from kt_cli.report.page.fields import AT_FIRST
from kt_cli.report.table import MISSING, Cell, Column, Interval, MeanStd, Table, number

# More rows than this are no table that one reads; `--format csv` has them all.
MAX_ROWS = 2_000
# Those of a table that come before others, beside what its rows are about.
BEFORE = {"summary": ("n", "success_rate", "delta", "delta_interval", "gain", "loss"),
          "complementarity": ("label", "pairs", "min", "median", "mean", "max")}  # fmt: skip
AFTER = ("student_type", "student_params_m", "teachers")


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
    more = _more(table)
    rows, notes = _rows(table, more, budget), list(table.notes)
    if len(rows) < len(table.rows):
        notes.append(
            f"The first {len(rows):,} of {len(table.rows):,} rows; all are in "
            f"kt report --table {table.name} --format csv."
        )
    head = "".join(_header(column, column.key in more) for column in table.columns)
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


def _more(table: Table) -> set[str]:
    """The columns that are not shown at first; a matrix is looked at as a whole."""
    keys = [column.key for column in table.shown]
    if table.name == "matrix" or len(keys) <= AT_FIRST:
        return set()
    lead = [column.key for column in table.shown if column.lead] or keys[:1]
    before = [key for key in BEFORE.get(table.name, ()) if key in keys]
    ranked = dict.fromkeys([*lead, *before, *sorted(keys, key=AFTER.__contains__)])
    return set(list(ranked)[AT_FIRST:])


def _rows(table: Table, more: Collection[str], budget: int) -> list[str]:
    rows: list[str] = []
    for i, row in enumerate(table.rows[:MAX_ROWS]):
        cells = (
            _cell(column, cell, (i, column.key) in table.bold, column.key in more)
            for column, cell in zip(table.columns, row, strict=True)
        )
        text = f"<tr>{''.join(cells)}</tr>\n"
        budget -= len(text.encode())
        if budget < 0:
            break
        rows.append(text)
    return rows


def _header(column: Column, more: bool) -> str:
    text = column.header or column.key
    hidden = " hidden" if column.detail else ""
    look = _classes(n=column.align == "right", more=more)
    return f'<th scope="col"{look}{hidden}>{escape(text)}</th>'


def _classes(**there: bool) -> str:
    names = " ".join(name for name, yes in there.items() if yes)
    return f' class="{names}"' if names else ""


def _ends(**values: float) -> str:
    """Attributes of what stands beside the value of a cell."""
    return "".join(f' data-{key}="{_exact(v)}"' for key, v in values.items() if v == v)


def _exact(value: float) -> str:
    """Every digit of a number, which may be NumPy's."""
    return repr(float(value)).removesuffix(".0")


def _cell(column: Column, cell: Cell, best: bool, more: bool) -> str:
    text = column.show(cell)
    attributes = _classes(n=column.align == "right", none=text == MISSING, best=best, more=more)
    value = number(cell)
    if value is not None:
        attributes += f' data-v="{_exact(value)}"'
    if isinstance(cell, MeanStd):
        attributes += f' data-n="{cell.n}"{_ends(std=cell.std)}'
    if isinstance(cell, Interval):
        attributes += _ends(low=cell.low, high=cell.high)
    return f"<td{attributes}{' hidden' * column.detail}>{escape(text)}</td>"
