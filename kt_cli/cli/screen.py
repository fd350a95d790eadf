"""What every command shares at the edge: consoles, the progress bar, and errors as two lines."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kt_cli import cores as cpu
from kt_cli.errors import KtError, counted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from rich.table import Table

QUIET_SECONDS = 10.0
WIDE, PROSE = 1000, 50


def console(**more: Any) -> Console:
    """A console that shows text as it is: names of classes and files are no markup."""
    return Console(highlight=False, markup=False, emoji=False, **more)


err, out = console(stderr=True), console()
if not out.is_terminal:
    # Nobody looks at a terminal's width: cut nothing off what goes to a file or a pipe.
    out = console(width=WIDE)


def show_error(error: KtError) -> None:
    line(("Error: ", "bold red"), error.message, console=err)
    if error.tip:
        line(("Tip: ", "bold cyan"), error.tip, console=err)


def line(
    *parts: str | tuple[str, str], console: Console | None = None, whole: bool = False
) -> None:
    """One line of a result, which only a terminal breaks, between words where these fit.

    A part may be (text, style). Never broken are notes, errors and what is `whole`: they may have
    commands to copy.
    """
    console, text = console or out, Text.assemble(*parts)
    fit = all(cell_len(word) <= console.width for word in text.plain.split())
    console.print(text, soft_wrap=whole or console is err or not (console.is_terminal and fit))


def note(text: str) -> None:
    """One line on stderr, for what is no result."""
    line(text, console=err)


def warn(text: str) -> None:
    line(("Note: ", "bold yellow"), text, console=err)


def few_cores() -> None:
    """Say where this process may use fewer cores than there are, as long as that decides."""
    cores, there = cpu.cores(), os.cpu_count() or 1
    if cores < there and cpu.threads_asked() is None:
        note(f"{cores} of {counted(there, 'core')} may be used here: as many threads")


_skipped: set[Path] = set()


def skipped_part(path: Path, reason: str) -> None:
    """Say once that a part of the results cannot be read."""
    if path not in _skipped:
        _skipped.add(path)
        line(("Skipped ", "yellow"), f"{path}: {reason}", console=err)


def show_json(data: Any) -> None:
    """A result as JSON, in ASCII where the stream lacks signs."""
    out.print_json(data=data, ensure_ascii=not out.encoding.startswith("utf"))


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], words: Collection[str] = (),
    title: str | None = None, console: Console | None = None, gap: int = 2,
) -> Table:  # fmt: skip
    """The look of all tables: the first column and those of `words` left, numbers right.

    On a terminal it has the columns that fit, from the left, and names the others below.
    """
    from rich.table import Table

    console = console or out
    cells = [[_cell(value) for value in row] for row in rows]
    room = console.width if console.is_terminal else 10**6
    widths = _widths(headers, cells, room, gap)
    drawn = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, gap, 0, 0),
        pad_edge=False, width=sum(widths) + gap * (len(widths) - 1), header_style="bold",
        caption_justify="left", caption_style="dim",
    )  # fmt: skip
    for header, width in zip(headers, widths, strict=False):
        left = header == headers[0] or header in words
        drawn.add_column(
            Text(header), justify="left" if left else "right", width=width, overflow="fold"
        )
    for row in cells:
        drawn.add_row(*row[: len(widths)])
    if more := [" ".join(header.split()) for header in headers[len(widths) :]]:
        drawn.caption = Text(f"In a wider terminal, or piped: {', '.join(more)}")
    return drawn


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else f"{value:,}" if isinstance(value, int) else str(value))


def _widths(
    headers: Sequence[str], rows: Sequence[Sequence[Text]], room: int, gap: int
) -> list[int]:
    """Of the columns that fit; only headers and prose are broken, between words."""
    longest = [max((row[i].cell_len for row in rows), default=0) for i in range(len(headers))]
    for breaks in ("\n", None):  # as they are, or at each space
        widths = [
            max(long, *(cell_len(part) for part in header.split(breaks) or [""]))
            for header, long in zip(headers, longest, strict=True)
        ]
        if sum(widths) + gap * (len(widths) - 1) <= room:
            return widths
    prose = [long > PROSE and any(" " in row[i].plain for row in rows)
             for i, long in enumerate(longest)]  # fmt: skip
    while (excess := sum(widths) + gap * (len(widths) - 1) - room) > 0 and len(widths) > 1:
        i = max(range(1, len(widths)), key=lambda i: prose[i] * widths[i])
        if prose[i] and widths[i] - excess >= PROSE // 2:
            widths[i] -= excess
        else:
            widths.pop()
    return [min(widths[0], room), *widths[1:]]


@contextmanager
def progress() -> Iterator[_Bars | _Lines]:
    """Progress bars with estimates on a terminal; elsewhere a plain line now and then."""
    shown = _Bars() if err.is_terminal else _Lines()
    try:
        yield shown
    finally:
        shown.stop()


class _Bars:
    """Bars on a terminal while something is unfinished: what else is live may have it then.

    Before the first there is a sign of life, since libraries take seconds to load.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}
        from rich.live import Live
        from rich.spinner import Spinner

        self._begin: Live | None = Live(Spinner("dots", "Starting"), console=err, transient=True)
        self._begin.start(refresh=True)

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._bar is None:
            if done >= total:
                return  # there was nothing left to see
            self.stop()
            self._bar = _bar()
            self._bar.start()
        subject = what.partition(":")[0]
        if subject not in self._tasks:
            self._tasks[subject] = self._bar.add_task(what, total=total)
        task = self._tasks[subject]
        self._bar.update(task, completed=done, total=total, description=what)
        if self._bar.finished:
            self.stop()

    def stop(self) -> None:
        for shown in (self._begin, self._bar):
            if shown is not None:
                shown.stop()
        self._begin, self._bar, self._tasks = None, None, {}


def _bar() -> Bar:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False), progress.BarColumn(12),
        progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TextColumn("left"),
        progress.TimeRemainingColumn(), console=err, transient=True,
    )  # fmt: skip


class _Lines:
    """Progress for logs: at most a line in ten seconds, and one when something is finished."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._finished: set[str] = set()

    def stop(self) -> None:
        """Lines that were said stay."""

    def __call__(self, done: int, total: int, what: str) -> None:
        now, (subject, _, detail) = time.monotonic(), what.partition(":")
        complete = done >= total and subject not in self._finished
        if complete:
            self._finished.add(subject)
        if complete or (done < total and now - self._last >= QUIET_SECONDS):
            self._last = now
            details = "; ".join(line.strip() for line in detail.strip().splitlines())
            note(f"{subject}: {done}/{total}" + f" ({details})" * bool(details))
