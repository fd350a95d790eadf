"""Tables of a report on the screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from kt_cli.cli import screen

if TYPE_CHECKING:
    from rich.table import Table as Drawing

    from kt_cli.report.table import Table

WIDE = 160


def draw(tables: Sequence[Table], console: Console | None = None) -> None:
    """Draw tables, by default on stdout; wider than the terminal rather than cut off."""
    console = console or screen.out
    for table in tables:
        drawing = _drawing(table)
        needed = console.measure(drawing, options=console.options.update(width=10**4)).minimum
        if needed > console.width:
            drawing.width = needed
        console.print(Text(table.title, style="bold"))
        if table.caption:
            console.print(Text(f"{table.caption}."))
        console.print(drawing, crop=False)
        console.print(*(Text(note, style="dim") for note in table.notes), sep="\n", end="\n\n")


def _drawing(table: Table) -> Drawing:
    from rich.table import Table as Drawing

    drawing = Drawing(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for i, column in enumerate(table.shown):
        header = Text(column.header)
        drawing.add_column(header, justify=column.align, overflow="fold", no_wrap=i == 0)
    for i, texts in enumerate(table.texts()):
        styles = ["bold" if (i, c.key) in table.bold else "" for c in table.shown]
        cells = [text.replace("± ", "±") for text in texts]
        drawing.add_row(*map(Text, cells, styles))
    return drawing


def as_text(tables: Sequence[Table]) -> str:
    """As on a wide screen, for a file."""
    text = io.StringIO()
    draw(tables, Console(file=text, width=WIDE, highlight=False, color_system=None))
    return text.getvalue()
