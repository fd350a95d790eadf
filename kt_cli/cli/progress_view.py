"""A sweep at work on the screen: progress, and the jobs of a cluster as `kt status` shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from kt_cli.cli import screen
from kt_cli.errors import counted
from kt_cli.progress import Listener, label

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from kt_cli.sweeps.monitor import View

QUIET_SECONDS, UNCHANGED_SECONDS = 30.0, 600.0


def render(view: View) -> RenderableType:
    """Stages as a table, and what else there is to say."""
    from rich.console import Group

    headers = ("stage", "runs", "done", "failed", "jobs queued", "running")
    columns = 4 if view.active is False else 6
    rows = [
        (label(s.name), s.total, s.done, s.failed, s.queued, s.running)[:columns]
        for s in view.stages
    ]
    said = [Text(pace(view))] if view.rate else []
    if view.active is None:
        said.append(Text("the cluster does not answer; rows are counted all the same"))
    said += [Text(f"{how}: {counted(n, 'task')} of the jobs") for how, n in view.cut_off.items()]
    if view.error:
        said.append(Text(f"last error: {view.error}", style="yellow"))
    return Group(screen.table(headers[:columns], rows), *said)


def pace(view: View) -> str:
    """Runs a second, and the time that is left of the stage."""
    left = "" if view.left is None else f", {duration(view.left)} left"
    return f"{view.rate:.2f} runs/s{left}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the small ones only where they matter."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def outcome(estimated: float | None, took: float) -> str:
    """How long the runs of a sweep were estimated to take, and took; empty where unknown."""
    if estimated is None or not took:
        return ""
    expected = duration(estimated) if estimated >= 1 else f"under {duration(1)}"
    return f"runs were estimated at {expected} in all, and took {duration(took)}"


@contextmanager
def listener(plan: Callable[[Any, Any], None]) -> Iterator[Listener]:
    """Shows all that a sweep tells; `plan` shows its plan."""
    with ExitStack() as shown, screen.progress() as progress:
        jobs = _Jobs(shown)

        def show_plan(session: Any, stages: Any) -> None:
            progress.stop()  # it may be on stdout, which the bars do not know of
            plan(session, stages)

        yield Listener(progress, screen.note, show_plan, jobs, screen.skipped_part)


class _Jobs:
    """Shows one view after the other: in place on a terminal, else a line when something is new."""

    def __init__(self, shown: ExitStack) -> None:
        self._shown, self._lines = shown, _Lines()
        self._live: Live | None = None

    def __call__(self, view: View | None) -> None:
        if view is None:
            self._shown.close()
            self._live = None
        elif not screen.err.is_terminal:
            self._lines(view)
        else:
            if self._live is None:
                from rich.live import Live

                live = Live(console=screen.err, transient=True, auto_refresh=False)
                self._live = self._shown.enter_context(live)
            self._live.update(render(view), refresh=True)


class _Lines:
    def __init__(self) -> None:
        self._last = float("-inf")
        self._error, self._said = "", ""
        self._stages = 0

    def __call__(self, view: View) -> None:
        if view.error not in ("", self._error):
            self._error = view.error
            screen.note(f"last error: {view.error}")
        now, new = time.monotonic(), len(view.stages) > self._stages
        if not view.stages or not (new or now - self._last >= QUIET_SECONDS):
            return
        stage = view.stages[-1]
        failed = f", {stage.failed:,} failed" * bool(stage.failed)
        said = (
            f"{label(stage.name)}: {stage.done:,}/{stage.total:,} done{failed}, "
            f"jobs: {stage.queued:,} queued, {stage.running:,} running"
        )
        if said == self._said and now - self._last < UNCHANGED_SECONDS:
            return
        self._last, self._stages, self._said = now, len(view.stages), said
        screen.note(said + f" ({pace(view)})" * bool(view.rate))
