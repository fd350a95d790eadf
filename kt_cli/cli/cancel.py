"""`kt cancel SWEEP`: end the jobs of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kt_cli.cli import options, screen
from kt_cli.cli.status import find
from kt_cli.errors import KtError


def cancel(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="Its name.")],
    output: options.Results = Path("results"),
) -> None:
    """End the jobs of a sweep on a cluster. What is finished is kept."""
    from kt_cli.sweeps import jobs

    folder = find(name, output)
    ended = jobs.cancel(folder)
    if not ended and (led := jobs.leader(folder)):
        raise KtError(f"{folder.name} has no jobs: {led}, does it", "Ctrl-C ends it there.")
    screen.note(f"Cancelled: {', '.join(ended)}." if ended else f"{folder.name} has no jobs.")
