"""Ending the jobs of a sweep, although they follow each other by themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kt_cli.errors import KtError
from kt_cli.sweeps import cluster, jobs
from kt_cli.sweeps.jobs import Submitted

SUBMISSION_SECONDS = 60


def cancel(folder: Path) -> list[str]:
    """End what is queued or running of the sweep in `folder`; gives the ids of these jobs.

    Raises:
        KtError: Slurm does not obey.
    """
    ended: list[str] = []
    # A job that goes on may be submitting what is not listed yet, so it is asked again.
    while waiting := jobs.waiting(folder):
        _end(folder, waiting)
        ended += [job for submitted in waiting for job in submitted.jobs]
        _wait_for_submission(folder)
    return ended


def _end(folder: Path, waiting: Sequence[Submitted]) -> None:
    """Written down first: whoever sees jobs end must know that they were cancelled."""
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
    for _ in range(SUBMISSION_SECONDS):
        with jobs.claim(folder) as mine:
            if mine:
                return
        time.sleep(1)
