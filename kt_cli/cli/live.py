"""A sweep on a cluster, on the screen: once for `kt status`, again and again while one waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.text import Text

from kt_cli.cli import screen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kt_cli.sweep.watch import View

WHAT = {
    "pretrain": "train the zoo",
    "predict": "predict",
    "pairs": "pairs",
    "transfer": "transfer",
}
QUIET_SECONDS = 30.0


def render(view: View) -> RenderableType:
    """Stages as a table, and what else there is to say."""
    table = screen.simple_table()
    for header in ("stage", "runs", "done", "failed", "jobs queued", "running"):
        table.add_column(header, justify="left" if header == "stage" else "right")
    for stage in view.stages:
        counts = (stage.total, stage.done, stage.failed, stage.queued, stage.running)
        table.add_row(WHAT.get(stage.name, stage.name), *(f"{count:,}" for count in counts))
    said = [Text(pace(view))] if view.rate else []
    if view.active is None:
        said.append(Text("the cluster does not answer; rows are counted all the same"))
    if view.error:
        said.append(Text(f"last error: {view.error}", style="yellow"))
    return Group(table, *said)


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


@contextmanager
def watching() -> Iterator[Callable[[View], None]]:
    """Shows one view after the other: in place on a terminal, else a line when something is new."""
    if screen.err.is_terminal:
        with Live(console=screen.err, transient=True, auto_refresh=False) as live:
            yield lambda view: live.update(render(view), refresh=True)
        return
    yield _Lines()


class _Lines:
    def __init__(self) -> None:
        self._last = float("-inf")
        self._error, self._stages = "", 0

    def __call__(self, view: View) -> None:
        if view.error not in ("", self._error):
            self._error = view.error
            screen.note(f"last error: {view.error}")
        now, new = time.monotonic(), len(view.stages) > self._stages
        if not view.stages or not (new or now - self._last >= QUIET_SECONDS):
            return
        self._last, self._stages = now, len(view.stages)
        stage = view.stages[-1]
        failed = f", {stage.failed:,} failed" * bool(stage.failed)
        screen.note(
            f"{WHAT.get(stage.name, stage.name)}: {stage.done:,}/{stage.total:,} done{failed}, "
            f"jobs: {stage.queued:,} queued, {stage.running:,} running"
            + f" ({pace(view)})"
            * bool(view.rate)
        )
