"""`kt report [RESULTS…]`: tables from the rows of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Drawing
from rich.text import Text

from kt_cli.cli import screen
from kt_cli.errors import DataError, KtError

if TYPE_CHECKING:
    from rich.console import Console

    from kt_cli.report.groups import Results
    from kt_cli.report.table import Table

WIDE = 160


class Format(str, Enum):
    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


class Name(str, Enum):
    summary = "summary"
    students = "students"
    complementarity = "complementarity"
    models = "models"
    failures = "failures"


SUFFIXES = {
    ".md": Format.markdown,
    ".tex": Format.latex,
    ".csv": Format.csv,
    ".json": Format.json,
}


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of sweeps, or folders that hold some; by default results.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="By default as the suffix of -o says, else table."),
    ] = None,
    table: Annotated[
        list[Name] | None,
        typer.Option("--table", help="Only this table; may repeat."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here instead of to stdout."),
    ] = None,
) -> None:
    """Turn results into tables: on the screen, or as Markdown, LaTeX, CSV or JSON.

    Each sweep, set of images and choice of settings gets tables of its own; nothing is averaged
    across them.
    """
    from kt_cli.report.groups import read_results
    from kt_cli.report.tables import build

    rows = read_results(results or [Path("results")], screen.skipped_part)
    names = [name.value for name in table or Name]
    if rows.only_failed:
        names = [Name.failures.value]
    tables = build(rows, names)
    if not tables:
        raise DataError(
            "there are no results to report yet", "Models are trained, but not used yet."
        )
    _emit(tables, format_ or _format_of(output), output)
    if rows.only_failed:
        raise _all_failed(rows)


def show_tables(tables: Sequence[Table]) -> None:
    """Draw tables on stdout; wider than the terminal rather than cut off."""
    draw(tables, screen.out)


def draw(tables: Sequence[Table], console: Console) -> None:
    for table in tables:
        drawing = _drawing(table)
        needed = console.measure(drawing, options=console.options.update(width=10**4)).minimum
        if needed > console.width:
            drawing.width = needed
        console.print(Text(table.title, style="bold"), Text(f"{table.caption}."), sep="\n")
        console.print(drawing, crop=False)
        console.print(*(Text(note, style="dim") for note in table.notes), sep="\n", end="\n\n")


def _drawing(table: Table) -> Drawing:
    drawing = Drawing(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for i, column in enumerate(table.shown):
        drawing.add_column(
            Text(column.header), justify=column.align, overflow="fold", no_wrap=i == 0
        )
    for i, texts in enumerate(table.texts()):
        styles = ["bold" if (i, c.key) in table.bold else "" for c in table.shown]
        cells = [t.replace("± ", "±") for t in texts]
        drawing.add_row(*(Text(t, style=s) for t, s in zip(cells, styles, strict=True)))
    return drawing


def _format_of(output: Path | None) -> Format:
    return SUFFIXES.get(output.suffix.lower(), Format.table) if output else Format.table


def _emit(tables: Sequence[Table], format_: Format, output: Path | None) -> None:
    if format_ is Format.table and output is None:
        show_tables(tables)
        return
    text = _text(tables, format_)
    if output is None:
        typer.echo(text, nl=False)
        return
    from kt_cli.files import write_text

    write_text(output, text)
    screen.note(f"Wrote {output}")


def _text(tables: Sequence[Table], format_: Format) -> str:
    from kt_cli.report.formats import FORMATS

    if format_ is not Format.table:
        return FORMATS[format_.value](tables)
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=WIDE, highlight=False, color_system=None)
    draw(tables, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def _all_failed(rows: Results) -> KtError:
    from kt_cli.report.tables import failure_tables

    errors = [str(row[2]) for table in failure_tables(rows) for row in table.rows]
    count = sum(len(rows.failed(table)) for table in rows.frames)
    said = "; ".join(dict.fromkeys(errors))
    return KtError(
        f"no results: {count} runs failed and none succeeded: {said}",
        "Remove the cause and run `kt sweep` again: it repeats what failed.",
    )
