"""`kt report [RESULTS…]`: tables, plots and a page from the rows of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import screen, table_view
from kt_cli.files import write_text
from kt_cli.progress import Listener

if TYPE_CHECKING:
    from kt_cli.api.report import Report


class Format(str, Enum):
    table = "table"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"
    html = "html"


class Name(str, Enum):
    summary = "summary"
    students = "students"
    matrix = "matrix"
    teams = "teams"
    complementarity = "complementarity"
    influence = "influence"
    compare = "compare"
    models = "models"
    failures = "failures"


class PlotName(str, Enum):
    knowledge = "knowledge"
    entropy = "entropy"
    class_flips = "class-flips"
    class_similarity = "class-similarity"
    success = "success"
    delta = "delta"
    gain_loss = "gain-loss"
    rate_classes = "rate-classes"
    rate_size = "rate-size"
    matrix = "matrix"
    curves = "curves"


class PlotFormat(str, Enum):
    pdf = "pdf"
    svg = "svg"
    png = "png"


class Published(str, Enum):
    paper = "paper"


ROWS, ARRANGEMENT, PLOTTING = "Which rows", "How tables look", "Plots"


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of sweeps, or folders that hold some; by default results.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        list[Name] | None,
        typer.Option("--table", help="Only this table; may repeat. By default those with rows."),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="By default as the suffix of -o says, else table."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write here instead of to stdout: .md, .tex, .csv, .json, .html or .txt.",
        ),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="CONDITION",
            rich_help_panel=ROWS,
            show_default=False,
            help="Only these rows: \"method == 'kl-dp' and teacher_acc < student_acc\", for one.",
        ),
    ] = "",
    seed_average: Annotated[
        bool,
        typer.Option(
            "--seed-average",
            rich_help_panel=ROWS,
            help="Average the seeds of each pair first; n then counts pairs.",
        ),
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMNS",
            rich_help_panel=ROWS,
            help="Group the summary by columns too: student_family,teacher_type, for one.",
        ),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEYS",
            rich_help_panel=ARRANGEMENT,
            help="Sort by columns of the tables (as --format json names them); -delta: high first.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEYS", rich_help_panel=ARRANGEMENT, help="Only these columns, in this order."
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=ARRANGEMENT,
            help="Only the first rows of each table.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Published | None,
        typer.Option(rich_help_panel=ARRANGEMENT, help="Published numbers beside these."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=PLOTTING, help="Draw plots as files in this folder."
        ),
    ] = None,
    plot: Annotated[
        list[PlotName] | None,
        typer.Option("--plot", rich_help_panel=PLOTTING, help="Only this plot; may repeat."),
    ] = None,
    plot_format: Annotated[
        list[PlotFormat] | None,
        typer.Option(
            "--plot-format",
            rich_help_panel=PLOTTING,
            help="By default pdf; may repeat.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn results into tables, plots, or one page to explore.

    Each sweep, set of images and choice of settings gets tables of its own; nothing is averaged
    across them. Exit code 1: there is nothing to report, or only failed runs; 2: wrong usage.
    """
    from kt_cli.api.report import OnlyFailures, Request
    from kt_cli.api.report import report as reported
    from kt_cli.report.query import Query

    query = Query(
        where, _listed(by), _listed(sort), _listed(columns), top, seed_average,
        against.value if against else "",
    )  # fmt: skip
    request = Request(
        paths=tuple(results or [Path("results")]),
        query=query,
        tables=tuple(name.value for name in table or ()),
        format=format_.value if format_ else "",
        output=output,
        folder=plots,
        plots=tuple(name.value for name in plot or ()),
        suffixes=tuple(suffix.value for suffix in plot_format or ()),
    )
    try:
        found = reported(request, Listener(skipped=screen.skipped_part))
    except OnlyFailures as failed:
        _emit(failed.report, output)
        raise
    _emit(found, output)
    if plots is not None:
        for path in found.draw(plots):
            screen.note(f"Wrote {path}")


def _listed(values: Sequence[str] | None) -> tuple[str, ...]:
    """Names separated by commas, in options that may repeat."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(filter(None, parts))


def _emit(found: Report, output: Path | None) -> None:
    if found.request.written_as != "table":
        text = found.text()
    elif output is None:
        table_view.show_tables(found.tables)
        return
    else:
        text = table_view.as_text(found.tables)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_text(output, text)
        screen.note(f"Wrote {output}")
