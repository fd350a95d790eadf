"""Tables as text: `FORMATS[name](tables) -> str`. Raw values for machines, rounded for readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kt_cli.report.formats.csv_json import render_csv, render_json
from kt_cli.report.formats.latex import render_latex
from kt_cli.report.formats.markdown import render_markdown
from kt_cli.report.table import Table

FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
    "json": render_json,
}
