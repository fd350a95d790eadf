"""What can go wrong, as one tree.

KtError                    anything that the user can act on; exit code 1
├── UsageError             the command as typed cannot work; exit code 2
│   ├── UnknownName        a model, method, data source or format that does not exist
│   ├── ClassMismatch      models, or a model and the data, disagree in the number of classes
│   └── DataError          a folder, image, file or table that is missing, empty or unreadable
├── DeviceLost             the GPU computes nothing more for this process, whoever's fault it was
├── WeightsUnavailable     weights are neither in the cache nor to be had from the hub
└── WriteError             something could not be written (disk full, no permission)

Every error names the thing in its message and the way out in its tip. Only `kt_cli.cli`
catches them; the library never prints and never exits.
"""

from __future__ import annotations

import difflib
import traceback
import warnings
from collections.abc import Iterable


class KtError(Exception):
    """An error with a cause (`message`) and a way out (`tip`, may be empty)."""

    exit_code = 1

    def __init__(self, message: str, tip: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.tip = tip

    def __reduce__(self) -> tuple[type[KtError], tuple[str, str]]:
        return type(self), (self.message, self.tip)


class UsageError(KtError):
    exit_code = 2


class UnknownName(UsageError):
    pass


class ClassMismatch(UsageError):
    pass


class DataError(UsageError):
    pass


class DeviceLost(KtError):
    pass


class WeightsUnavailable(KtError):
    pass


class WriteError(KtError):
    pass


def unknown(what: str, name: str, valid: Iterable[str], tip: str = "") -> UnknownName:
    """The error for a name that is not in `valid`, with the nearest valid names as its tip."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=5, cutoff=0.5)
    if close:
        hint = f"Did you mean {', '.join(close)}?"
    elif 0 < len(valid) <= 20:
        hint = f"Valid: {', '.join(sorted(valid))}."
    else:
        hint = ""
    return UnknownName(f"unknown {what} {name!r}", " ".join(part for part in (hint, tip) if part))


class Frames(Exception):
    """Where an error came from, as text: stands in for the frames that it no longer holds."""


def without_frames(error: Exception) -> Exception:
    """The same error, to be kept: its frames would keep all that they, and their callers, hold."""
    error.__cause__ = Frames("".join(traceback.format_exception(error)))
    error.__context__ = None
    return error.with_traceback(None)


def first_line(error: BaseException) -> str:
    """What a library's error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class KtWarning(UserWarning):
    """What a user should know of a call that goes on all the same."""


def warn(text: str) -> None:
    """Warn whoever called kt; the commands show it as a note."""
    warnings.warn(text, KtWarning, stacklevel=3)
