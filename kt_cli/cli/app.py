"""The command `kt`: one module per command, each importing what it needs when it runs."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from kt_cli.cli import (
    cache,
    cancel,
    complementarity,
    doctor,
    models,
    pretrain,
    report,
    screen,
    status,
    sweep,
    transfer,
)
from kt_cli.errors import KtError, KtWarning, first_line
from kt_cli.version import __version__

DEBUG = "KT_DEBUG"
RESUMING = ("sweep", "pretrain", "transfer", "models prefetch")

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


class Interrupted(BaseException):
    """A signal asked us to stop. Not an Exception: a run that is cut off has not failed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """Shows what the library warns of as notes."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, KtWarning):
                screen.warn(str(message))
            else:
                usual(message, category, *where, **more)

        warnings.simplefilter("always", KtWarning)
        warnings.showwarning = show
        yield


def main() -> None:
    # A login that is lost; nohup ignores it.
    lost = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    signals = [signal.SIGINT, signal.SIGTERM, *lost]
    before = [signal.signal(number, _stop) for number in signals]
    try:
        with _shown_warnings():
            app()
    except KtError as error:
        screen.show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        screen.show_error(KtError(f"{error.strerror or error}{where}"))
        sys.exit(1)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        screen.show_error(
            KtError(
                f"unexpected {type(error).__name__}: {first_line(error)}",
                f"This is a fault of kt. {DEBUG}=1 shows where; please report it.",
            )
        )
        sys.exit(1)
    except Interrupted as interrupted:
        resumes = " ".join(sys.argv[1:3]).startswith(RESUMING)
        kept = " What is finished is kept; the same command goes on from there."
        screen.note("Interrupted." + kept * resumes)
        sys.exit(128 + interrupted.number)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
