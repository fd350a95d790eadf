"""The commands of `kt`: one module each, which imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from kt_cli.cli import (
    cache,
    cancel,
    complementarity,
    doctor,
    explain,
    models,
    pretrain,
    report,
    status,
    sweep,
    teachers,
    transfer,
)  # fmt: skip
from kt_cli.cli.help_view import Command, Group
from kt_cli.version import __version__

app = typer.Typer(
    name="kt",
    cls=Group,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=Command)(complementarity.complementarity)
app.command(cls=Command)(teachers.teachers)
app.command(cls=Command)(transfer.transfer)
app.command(cls=Command)(explain.explain)
app.command(cls=Command)(sweep.sweep)
app.command(cls=Command)(status.status)
app.command(cls=Command)(cancel.cancel)
app.command(cls=Command)(report.report)
app.add_typer(models.app, name="models")
app.command(cls=Command)(pretrain.pretrain)
app.add_typer(cache.app, name="cache")
app.command(cls=Command)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kt {__version__}")
        raise typer.Exit


@app.callback()
def _kt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find the knowledge that pretrained models do not share, and move it."""
