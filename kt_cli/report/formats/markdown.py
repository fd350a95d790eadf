"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kt_cli.report.table import Column, Table


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
    return "\n".join(
        [f"### {_escape_markdown(table.title)}", "", caption, "", *lines, "", *notes, ""]
    )


def _pad(column: Column, text: str, width: int) -> str:
    return text.rjust(width) if column.align == "right" else text.ljust(width)


def _escape_markdown(text: str) -> str:
    """Escape what Markdown would read as markup.

    An underscore inside a word is none, nor are brackets that no target follows.
    """
    text = re.sub(r"[\\`*|<>~#]|\](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return " ".join(text.split())
