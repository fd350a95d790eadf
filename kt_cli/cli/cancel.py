"""`kt cancel SWEEP`: end the jobs of a sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kt_cli.cli import screen
from kt_cli.cli.status import Output, find
from kt_cli.errors import KtError


def cancel(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="Its name.")],
    output: Output = Path("results"),
) -> None:
    """End the jobs of a sweep on a cluster. What is finished is kept."""
    from kt_cli.sweep import cluster, jobs

    folder = find(name, output)
    waiting = [submitted for submitted in jobs.listed(folder) if submitted.state == jobs.OPEN]
    if not waiting:
        screen.note(f"{folder.name} has no jobs.")
        return
    # First those that would go on after the others.
    followers = [submitted.follower for submitted in waiting if submitted.follower]
    if not cluster.cancel(followers) or not cluster.cancel([s.job for s in waiting]):
        raise KtError("scancel failed: the jobs may go on", "Try again when Slurm answers.")
    for submitted in waiting:
        jobs.keep(folder, replace(submitted, state=jobs.CANCELLED))
    screen.note(f"Cancelled: {', '.join(job for s in waiting for job in s.jobs)}.")
