"""The start and the end of every command: streams, signals, warnings, errors and exit codes."""

from __future__ import annotations

import codecs
import os
import signal
import sys
import unicodedata
import warnings
from threading import Timer
from types import FrameType
from typing import Any

from kt_cli import cores
from kt_cli.errors import KtError, KtWarning, UnknownName, UsageError, first_line, unknown, way_out
from kt_cli.files import escaped

DEBUG = "KT_DEBUG"
# What other commands call what is meant.
ELSEWHERE = {"--results": "--output", "--output": "--results"}
RESUMING = ("sweep", "pretrain", "transfer", "models prefetch")
PLAINER = "kt.plainer"
PLAIN = {
    "Δ": "D", "ρ": "rho", "κ": "kappa", "τ": "tau", "λ": "lambda", "→": "->", "–": "-", "—": "-",
    "−": "-", "×": "x", "·": "|", "±": "+-", "≥": ">=", "≤": "<=", "≠": "!=", "“": '"', "”": '"',
    "’": "'", "‘": "'",
}  # fmt: skip


class Interrupted(BaseException):
    """A signal asked us to stop. Not an Exception: a run that is cut off has not failed."""


def main() -> None:
    """Run the command of `sys.argv`, and exit."""
    tolerate()
    cores.settle()  # here and not where kt is a library: the process is ours
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signals.append(signal.SIGHUP)
    stopped: list[int] = []
    process, usual = os.getpid(), sys.unraisablehook

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker that was forked from it
            sys.exit(128 + number)
        stopped.append(number)
        raise Interrupted

    def ask_again(lost: Any) -> None:
        """What is raised in a finaliser, as those of loaders of images, is lost."""
        if lost.exc_type is Interrupted:
            Timer(0.1, os.kill, (process, stopped[0])).start()
        else:
            usual(lost)

    before = [signal.signal(number, stop) for number in signals]
    sys.unraisablehook = ask_again
    try:
        sys.exit(_run())
    except (Interrupted, Exception) as error:
        # A library that was interrupted may have made another error of it.
        sys.exit(_interrupted(stopped[0]) if stopped else _failed(error))
    finally:
        sys.unraisablehook = usual
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def tolerate() -> None:
    """Replace what standard output and error cannot encode, as under latin-1, rather than fail."""
    codecs.register_error(PLAINER, _plainer)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=PLAINER)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Close signs of ASCII for those that could not be encoded, else ?; and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(sign: str) -> str:
    if "\udc80" <= sign <= "\udcff":  # of a file's name that is not UTF-8
        return escaped(sign)
    letter = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return PLAIN.get(sign) or letter or "?"


def _run() -> int | None:
    """Run the command, and show what the library warns of as notes; its exit code."""
    from kt_cli.cli import screen
    from kt_cli.cli.commands import app

    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, KtWarning):
                screen.warn(str(message))
            else:
                usual(message, category, *where, **more)

        warnings.simplefilter("always", KtWarning)
        warnings.showwarning = show
        return app(prog_name="kt", standalone_mode=False)  # type: ignore[no-any-return]


def _interrupted(number: int) -> int:
    from kt_cli.cli import screen

    resumes = " ".join(sys.argv[1:3]).startswith(RESUMING)
    kept = " What is finished is kept; the same command goes on from there."
    screen.note("Interrupted." + kept * resumes)
    return 128 + number


def _mistyped(error: Any) -> KtError:
    """What typer says of the words of a command, as all errors here look."""
    said, command = error.format_message(), error.ctx.command_path if error.ctx else "kt"
    tip = f"{command} --help shows what there is."
    if hasattr(error, "possibilities"):  # there is no such option
        known = [flag for p in error.ctx.command.params for flag in (*p.opts, *p.secondary_opts)]
        if (meant := ELSEWHERE.get(error.option_name)) in known:
            said = f"unknown option {error.option_name!r}"
            return UnknownName(said, f"Did you mean {meant}? {tip}")
        return unknown("option", error.option_name, [f for f in known if f[0] == "-"], tip)
    return UsageError(f"{said[:1].lower()}{said[1:].rstrip('.')}", tip)


def _failed(error: BaseException) -> int:
    from kt_cli.cli import screen

    if isinstance(error, OSError):
        where, said = f"{error.filename}: " if error.filename else "", str(error.strerror or error)
        error = KtError(f"{where}{said}", way_out(said))
    elif hasattr(error, "format_message"):
        error = _mistyped(error)
    elif not isinstance(error, KtError):
        if os.environ.get(DEBUG):
            raise error
        error = KtError(
            f"unexpected {type(error).__name__}: {first_line(error)}",
            f"This is a fault of kt. {DEBUG}=1 shows where; please report it.",
        )
    screen.show_error(error)
    return error.exit_code
