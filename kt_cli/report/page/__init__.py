"""One HTML file: the tables and plots of a report, all rows to explore, where they come from."""

from __future__ import annotations

from collections.abc import Mapping

from kt_cli.report.page import fields
from kt_cli.report.page.render import render_page
from kt_cli.report.page.rows import MAX_ROWS

__all__ = ["MAX_ROWS", "needs", "render_page"]


def needs(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Columns to read by row table, beside those always read.

    Args:
        counts: rows by table, where known; a table of more than `MAX_ROWS` is not in the page
            row by row.
    """
    return fields.needs(counts, MAX_ROWS)
