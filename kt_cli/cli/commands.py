"""The commands of `kt`: one module each, which imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from kt_cli.cli import (
    cache,
    cancel,
    complementarity,
    doctor,
    models,
    pretrain,
    report,
    status,
    sweep,
    transfer,
)  # fmt: skip
from kt_cli.version import __version__

app = typer.Typer(
    name="kt",
    help="Find the knowledge that pretrained models do not share, and move it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(complementarity.complementarity)
app.command()(transfer.transfer)
app.command()(sweep.sweep)
app.command()(status.status)
app.command()(cancel.cancel)
app.command()(report.report)
app.add_typer(models.app, name="models")
app.command()(pretrain.pretrain)
app.add_typer(cache.app, name="cache")
app.command()(doctor.doctor)


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
    pass
