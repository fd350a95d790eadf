"""Tables of a report on the screen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from kt_cli.cli import screen

if TYPE_CHECKING:
    from kt_cli.report.table import Table

WIDE = 160


def draw(tables: Sequence[Table], console: Console | None = None) -> None:
    """Draw tables, by default on stdout, and what follows from them."""
    from kt_cli.report.conclusion import conclusions

    console = console or screen.out
    for table in tables:
        console.print(Text(table.title, style="bold"))
        if table.caption:
            console.print(Text(f"{table.caption}."))
        words = [column.header for column in table.shown if column.align == "left"]
        rows = [
            [Text(text.replace("± ", "±"), "bold" if (i, column.key) in table.bold else "")
             for column, text in zip(table.shown, texts, strict=True)]
            for i, texts in enumerate(table.texts())
        ]  # fmt: skip
        headers = [column.header for column in table.shown]
        console.print(screen.table(headers, rows, words, console=console, gap=1), crop=False)
        console.print(*(Text(note, style="dim") for note in table.notes), sep="\n", end="\n\n")
    for sentence in conclusions(tables):
        console.print(Text(sentence, style="bold"))


def as_text(tables: Sequence[Table]) -> str:
    """As on a wide screen, for a file."""
    text = io.StringIO()
    draw(tables, screen.console(file=text, width=WIDE, color_system=None))
    return text.getvalue()
