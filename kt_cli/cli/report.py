"""`kt report [RESULTS…]`: tables, plots and a page from the rows of finished runs."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import screen, table_view
from kt_cli.cli.setting_options import Fields, Given, with_settings
from kt_cli.files import write_text
from kt_cli.progress import Listener
from kt_cli.settings.report import QuerySpec, ReportSpec

if TYPE_CHECKING:
    from kt_cli.api.report import Report


@with_settings
def report(
    what: Annotated[
        Given, Fields(ReportSpec, ("table", "format", "output", "serve", "plots", "plot"))
    ],
    which: Annotated[Given, Fields(QuerySpec, ("where", "by", "sort", "top", "seed_average"))],
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of sweeps, or folders that hold some; by default results.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn results into tables, plots, or one page to explore.

    Each sweep, set of images and choice of settings gets tables of its own; nothing is averaged
    across them. Exit code 1: there is nothing to report, or only failed runs; 2: wrong usage.
    """
    from kt_cli.api.report import OnlyFailures
    from kt_cli.api.report import report as reported

    try:
        with screen.progress():
            found = reported(
                *(results or ()), tell=Listener(skipped=screen.skipped_part), **what, **which
            )
    except OnlyFailures as failed:
        if failed.report.request.form.serve:
            table_view.draw(failed.report.tables)
        else:
            _emit(failed.report)
        raise
    if not found.request.form.serve:
        _emit(found)
    if (folder := found.request.folder) is not None:
        for path in found.draw(folder):
            screen.note(f"Wrote {path}")
    if found.request.form.serve:
        _serve(found)


def _serve(found: Report) -> None:
    with found.server() as server, suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the end, and no failure
        typer.echo(server.address)
        screen.note("Open it in a browser of this machine; Ctrl-C ends it.")
        server.serve_forever()


def _emit(found: Report) -> None:
    output, screened = found.request.output, found.request.written_as == "table"
    if output is not None:
        for path, part in found.each(output).items():
            shown = table_view.as_text(part.tables) if screened else part.text()
            write_text(path, shown)
            screen.note(f"Wrote {path}")
    elif screened:
        table_view.draw(found.tables)
    else:
        typer.echo(found.text(), nl=False)
