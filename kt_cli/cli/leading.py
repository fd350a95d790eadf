"""kt sweep on a cluster: which executor it is, and leading the sweep until it is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from kt_cli.cli import live, screen
from kt_cli.errors import KtError, UsageError

if TYPE_CHECKING:
    from kt_cli.cli.session import Session
    from kt_cli.spec import Run
    from kt_cli.sweep.cluster import Facts
    from kt_cli.sweep.lead import Lead
    from kt_cli.sweep.watch import View, Watch

FIRST_LOOK, LAST_LOOK, SLOWER = 2.0, 20.0, 1.1  # seconds between two looks
AGAIN = "again"
PATIENCE = 60.0  # seconds until a silent controller is asked again
DECODED_HERE = 20_000  # images, at most, that a login node may be asked to decode


class Executor(str, Enum):
    auto = "auto"
    slurm = "slurm"
    local = "local"
    inline = "inline"


@dataclass(frozen=True)
class Place:
    """Where a sweep is done. facts: of the cluster; None on this machine.

    detach: return when something is submitted. following: this is the job that goes on.
    """

    executor: Executor
    facts: Facts | None = None
    detach: bool = False
    following: bool = False


def choose(
    executor: Executor, partition: str, processes: int | None, detach: bool, following: bool
) -> Place:
    """The cluster where there is one and we are not in one of its jobs; else this machine.

    Raises:
        UsageError: what is asked for cannot be.
    """
    from kt_cli.sweep import cluster

    if executor is Executor.auto:
        there = cluster.is_there() and not cluster.inside_job() and processes is None
        executor = Executor.slurm if there else Executor.local
    facts = None
    if executor is Executor.slurm:
        if not cluster.is_there():
            raise UsageError("there is no Slurm here: no sbatch or no srun on the PATH")
        facts = cluster.look_at(partition)
        while facts is None and following:  # nobody else would go on; its time limit bounds it
            time.sleep(PATIENCE)
            facts = cluster.look_at(partition)
        if facts is None:
            raise KtError(
                "Slurm's controller does not answer",
                "`scontrol show config` says why; --executor local works on this machine.",
            )
    if detach and facts is None:
        raise UsageError("--detach needs a cluster", "Without one the work is done here.")
    return Place(executor, facts, detach, following)


def lead(session: Session) -> bool:
    """Submit what is to do, watch it, go on; returns when all is done, or with --detach at once.

    Returns:
        Whether all is done.

    Raises:
        KtError: the cluster refuses, or nothing comes of its jobs.
    """
    from kt_cli.sweep.lead import BUSY, FINISHED
    from kt_cli.sweep.watch import Watch

    place, folder = session.place, session.folder
    leading, watch = _lead(session), Watch(folder)
    must_progress = place.following
    try:
        while (step := _step(leading, must_progress)) != FINISHED:
            if step == AGAIN:
                continue
            if place.following and _nobody_else_goes_on(folder, leading):
                time.sleep(FIRST_LOOK)
                continue
            if place.detach:
                _say_who_goes_on(leading, folder)
                return False
            # What failed three times is tried once more, not for ever.
            session.planner().retry_failed &= step == BUSY
            must_progress = must_progress or step != BUSY
            if _wait(watch).cancelled:
                raise KtError("the jobs were cancelled", "The same command goes on.")
        return True
    except KtError:
        raise
    except BaseException as stopped:
        if not isinstance(stopped, Exception) and _has_jobs(folder):
            screen.note(f"The jobs go on. {how_to_come_back(folder)}")
        raise


def _step(leading: Lead, must_progress: bool) -> str:
    """One step; AGAIN where it could not be made. At the beginning the cluster must answer."""
    from kt_cli.sweep.lead import CLAIMED
    from kt_cli.sweep.slurm import Silent

    try:
        step = leading.advance(must_progress)
    except Silent as silent:
        if not must_progress:
            raise
        screen.warn(f"{silent.message}; asking again.")
        time.sleep(PATIENCE)
        return AGAIN
    if step != CLAIMED:
        return step
    time.sleep(FIRST_LOOK)
    return AGAIN


def _say_who_goes_on(leading: Lead, folder: Path) -> None:
    screen.note(f"The jobs are submitted. {how_to_come_back(folder)}")
    if leading.refusal:
        screen.warn(
            f"no job will go on when they have ended ({leading.refusal}): run the same command "
            "then, or leave out --detach."
        )


def _nobody_else_goes_on(folder: Path, leading: Lead) -> bool:
    """Whether this job, which was to submit and to end, has to stay."""
    return bool(leading.refusal) or _is_leading(folder)


def _has_jobs(folder: Path) -> bool:
    from kt_cli.sweep import jobs

    return any(submitted.state == jobs.OPEN for submitted in jobs.listed(folder))


def _wait(watch: Watch) -> View:
    """Show the jobs until all have ended."""
    pause = FIRST_LOOK
    with live.watching() as show:
        while True:
            view = watch.look()
            show(view)
            time.sleep(pause)
            if view.active is False:
                return view
            pause = min(LAST_LOOK, pause * SLOWER)


def close(session: Session) -> None:
    """Account for the jobs of a sweep that is done, where none is queued or running any more."""
    _lead(session).advance(must_progress=False)


def how_to_come_back(folder: Path) -> str:
    where = "" if folder.parent == Path.cwd() / "results" else f" -o {folder.parent}"
    name = folder.name
    return f"kt status {name}{where} shows them, kt cancel {name}{where} ends them."


def _is_leading(folder: Path) -> bool:
    """Whether this job is the one that goes on after the jobs submitted last."""
    from kt_cli.sweep import jobs

    listed = jobs.listed(folder)
    return bool(listed) and listed[-1].follower == os.environ.get("SLURM_JOB_ID")


def _lead(session: Session) -> Lead:
    from kt_cli.sweep.experiment import are_decoded, decode_training_images
    from kt_cli.sweep.lead import Lead

    assert session.place.facts is not None
    folder = session.folder

    def prepare(runs: Sequence[Run]) -> bool:
        much = session.training_images() > DECODED_HERE and not are_decoded(runs)
        if much and not session.place.following:
            return False
        # Here, once, and not in every job at the same time.
        with screen.progress() as progress:
            decode_training_images(runs, progress)
        return True

    follow = [
        # The file says which data; the environment of this shell shall not.
        "env", "-u", "KT_DATA", sys.executable, "-m", "kt_cli", "sweep", str(folder / "sweep.toml"),
        "-o", str(folder.parent), "--executor", "slurm", "--detach", "--follow",
    ]  # fmt: skip
    return Lead(
        folder, session.next_runs, session.costs().seconds, session.spec.slurm,
        session.place.facts, follow, prepare,
    )  # fmt: skip
