"""`kt cancel SWEEP`: end the jobs of a sweep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.status import find
from kt_cli.errors import KtError

if TYPE_CHECKING:
    from kt_cli.sweeps.jobs import Submitted

SUBMISSION_SECONDS = 60


def cancel(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="Its name.")],
    output: options.Results = Path("results"),
) -> None:
    """End the jobs of a sweep on a cluster. What is finished is kept."""
    from kt_cli.sweeps import jobs

    folder = find(name, output)
    ended: list[str] = []
    # A job that goes on may be submitting what is not listed yet, so it is asked again.
    while waiting := [s for s in jobs.listed(folder) if s.state == jobs.OPEN]:
        _end(folder, waiting)
        ended += [job for submitted in waiting for job in submitted.jobs]
        _wait_for_submission(folder)
    screen.note(f"Cancelled: {', '.join(ended)}." if ended else f"{folder.name} has no jobs.")


def _end(folder: Path, waiting: Sequence[Submitted]) -> None:
    """Written down first: whoever sees jobs end must know that they were cancelled."""
    from kt_cli.sweeps import cluster, jobs

    for submitted in waiting:
        jobs.keep(folder, replace(submitted, state=jobs.CANCELLED))
    # First those that would go on after the others.
    continuations = [submitted.continuation for submitted in waiting if submitted.continuation]
    if not cluster.cancel(continuations) or not cluster.cancel([s.job for s in waiting]):
        for submitted in waiting:
            jobs.keep(folder, submitted)
        raise KtError("scancel failed: the jobs may go on", "Try again when Slurm answers.")


def _wait_for_submission(folder: Path) -> None:
    """Until nobody is submitting; whoever died at it is not waited for for long."""
    from kt_cli.sweeps import jobs

    for _ in range(SUBMISSION_SECONDS):
        with jobs.claim(folder) as mine:
            if mine:
                return
        time.sleep(1)
