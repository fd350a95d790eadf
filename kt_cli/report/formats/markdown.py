"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kt_cli.report.conclusion import conclusions
from kt_cli.report.table import Table


def render_markdown(tables: Sequence[Table]) -> str:
    """What they come to, and GitHub-flavoured tables that also read well as plain text."""
    said = [f"**{_escape(sentence)}**\n" for sentence in conclusions(tables)]
    return "\n".join([*said, *map(_markdown, tables)])


def _markdown(table: Table) -> str:
    header = [_escape(column.header) for column in table.shown]
    body = []
    for i, texts in enumerate(table.texts()):
        best = [(i, column.key) in table.bold for column in table.shown]
        cells = zip(map(_escape, texts), best, strict=True)
        body.append([f"**{cell}**" if bold else cell for cell, bold in cells])
    widths = [max(3, *map(len, cells)) for cells in zip(header, *body, strict=True)]
    right = [column.align == "right" for column in table.shown]
    rule = ["-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True)]
    lines = []
    for row in (header, rule, *body):
        padded = (
            text.rjust(width) if r else text.ljust(width)
            for text, width, r in zip(row, widths, right, strict=True)
        )  # fmt: skip
        lines.append(f"| {' | '.join(padded)} |")
    notes = [f"- {_escape(note)}" for note in table.notes]
    head = [f"### {_escape(table.title)}", "", _escape(table.caption) + "."]
    return "\n".join([*head, "", *lines, "", *notes, ""])


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup.

    An underscore inside a word is none, nor are brackets that no target follows.
    """
    text = re.sub(r"[\\`*|<>~#]|\](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return " ".join(text.split())
