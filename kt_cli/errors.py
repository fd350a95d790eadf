"""What can go wrong. Every error names the thing in its message and the way out in its tip.

Only `kt_cli.cli` catches them; the library never prints and never exits.
"""

from __future__ import annotations

import errno
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")
NO_SPACE = "Free some space or choose another folder; then run again."
FORBIDDEN = "Its permissions or the file system forbid it: choose a folder of your own."
NO_FOLDER = "A file stands where a folder should: choose another folder."
GONE = "It, or a folder above it, is missing or was removed meanwhile."
WAYS_OUT = {
    errno.ENOSPC: NO_SPACE, errno.EDQUOT: NO_SPACE,
    errno.EACCES: FORBIDDEN, errno.EPERM: FORBIDDEN, errno.EROFS: FORBIDDEN,
    errno.ENOENT: GONE, errno.ENOTDIR: NO_FOLDER, errno.EEXIST: NO_FOLDER,
    errno.EMFILE: "Allow more open files: ulimit -n.",
}  # fmt: skip


class KtError(Exception):
    """Anything that the user can act on: a cause (`message`), a way out (`tip`, may be empty)."""

    exit_code = 1

    def __init__(self, message: str, tip: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.tip = tip

    def __reduce__(self) -> tuple[type[KtError], tuple[str, str]]:
        return type(self), (self.message, self.tip)


class UsageError(KtError):
    """The command as typed cannot work."""

    exit_code = 2


class UnknownName(UsageError):
    """A model, method, data source or format that does not exist."""


class ClassMismatch(UsageError):
    """Models, or a model and the data, disagree in the number of classes."""


class DataError(UsageError):
    """A folder, image, file or table is missing, empty or unreadable."""


class StudentLost(KtError):
    """A student lost more than was allowed; `transferred` is what came of it, all the same."""

    exit_code = 3
    transferred: Any = None


class DeviceLost(KtError):
    """The GPU computes nothing more for this process, whoever's fault it was."""


class WeightsUnavailable(KtError):
    """Weights are neither in the cache nor to be had from the hub."""


class WriteError(KtError):
    """Something could not be written (disk full, no permission)."""


def readable(items: Iterable[Item], read: Callable[[Item], Found]) -> list[Found]:
    """What `read` makes of each; one that is damaged costs itself, where two others remain.

    Raises:
        DataError: too few remain; of the first that cannot be read.
    """
    found, errors = [], []
    for item in items:
        try:
            found.append(read(item))
        except DataError as error:  # noqa: PERF203
            errors.append(error)
    if errors and len(found) < 2:
        raise errors[0]
    return found


def unknown(what: str, name: str, valid: Iterable[str], tip: str = "") -> UnknownName:
    """The error for a name that is not in `valid`, with the nearest valid names as its tip."""
    valid, hint = list(valid), ""
    few = 0 < len(valid) <= 20
    if close := _close(name, valid, 5, 0.65 if few else 0.5):
        hint = f"Did you mean {', '.join(close)}?"
    elif few:
        hint = f"Valid: {', '.join(sorted(valid))}."
    return UnknownName(f"unknown {what} {name!r}", f"{hint} {tip}".strip())


def near(path: Path, tip: str = "") -> str:
    """The tip for a path that is not there, after what has nearly its name."""
    while not path.parent.exists():
        path = path.parent
    names: list[str] = []
    with suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
    close = _close(path.name, names, 3, 0.6)
    found = ", ".join(shlex.quote(str(path.parent / name)) for name in close)
    return f"Did you mean {found}? {tip}".strip() if close else tip


def _close(name: str, valid: list[str], most: int, cutoff: float) -> list[str]:
    import difflib  # slow to import, and rarely needed

    return difflib.get_close_matches(name, valid, most, cutoff)


def command(*words: str | Path) -> str:
    """A command of kt to type: words quoted for the shell, and no path taken for an option."""
    safe = (f"./{w}" if isinstance(w, Path) and str(w).startswith("-") else str(w) for w in words)
    return shlex.join(("kt", *safe))


class Frames(Exception):
    """Where an error came from, as text: stands in for the frames that it no longer holds."""


def without_frames(error: Exception) -> Exception:
    """The same error, to be kept: its frames would keep all that they, and their callers, hold."""
    import traceback

    error.__cause__ = Frames("".join(traceback.format_exception(error)))
    error.__context__ = None
    return error.with_traceback(None)


def way_out(said: str) -> str:
    """The tip for what the system says, in its words wherever these come from."""
    found = (tip for number, tip in WAYS_OUT.items() if os.strerror(number) in said)
    return next(found, "See to its disk, or choose another folder; then run again.")


def first_line(error: BaseException) -> str:
    """What a library's error says, on one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def some_of(names: Sequence[str], most: int) -> str:
    """The first `most` names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def signed(points: float) -> str:
    """Percentage points with their sign."""
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", "−")  # zero has no minus


def size_text(size: float) -> str:
    """Bytes in the largest unit that they fill."""
    units = iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


class KtWarning(UserWarning):
    """What a user should know of a call that goes on all the same."""


def warn(text: str) -> None:
    """Warn whoever called kt; the commands show it as a note."""
    warnings.warn(text, KtWarning, stacklevel=3)
