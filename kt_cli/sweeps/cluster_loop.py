"""A sweep on a cluster: submit what is to do, watch it, go on until it is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kt_cli.errors import KtError, command, some_of, warn
from kt_cli.runs.kinds import are_decoded, decode_training_images
from kt_cli.spec import Run
from kt_cli.sweeps import cluster, jobs
from kt_cli.sweeps.cluster import Silent
from kt_cli.sweeps.coordinator import BUSY, CLAIMED, FINISHED, Coordinator, close_ended
from kt_cli.sweeps.monitor import Watch
from kt_cli.sweeps.place import PATIENCE
from kt_cli.sweeps.session import Session
from kt_cli.sweeps.slurm import Submitter

FIRST_LOOK, LAST_LOOK, SLOWER = 2.0, 20.0, 1.1  # seconds between two looks
AGAIN = "again"
NAMED = 5  # jobs
DECODED_HERE = 20_000  # images, at most, that a login node may be asked to decode


def require_ended(folder: Path) -> None:
    """Refuse to do here what jobs of the sweep in `folder` may be doing (KtError)."""
    if cluster.is_there() and not close_ended(folder):
        raise KtError(
            f"jobs of this sweep may be queued or running on the cluster: {_listed(folder)}",
            "kt status shows how far they are, kt cancel ends them, --executor slurm goes on.",
        )


def coordinate(session: Session) -> bool:
    """Submit what is to do, watch it, go on; with --detach returns at once: whether all is done.

    Raises:
        KtError: the cluster refuses, or nothing comes of its jobs.
    """
    place, folder = session.place, session.folder
    coordinator, watch = _coordinator(session), Watch(folder)
    must_progress = told = place.following
    try:
        while (step := _step(coordinator, must_progress)) != FINISHED:
            if step == AGAIN:
                continue
            if place.following and (coordinator.refusal or _is_leading(folder)):
                # Nobody else goes on: this job, which was to submit and to end, stays.
                time.sleep(FIRST_LOOK)
                continue
            if step == BUSY and not told:
                session.tell.note(
                    f"Jobs of this sweep are queued or running ({_listed(folder)}): nothing is "
                    "submitted twice, and they keep the limits that they have."
                )
            told = True
            if place.detach:
                submitted = "" if step == BUSY else "The jobs are submitted. "
                session.tell.note(submitted + _how_to_come_back(folder))
                if coordinator.refusal:
                    warn(
                        f"no job will go on when they have ended ({coordinator.refusal}): run the "
                        "same command then, or leave out --detach."
                    )
                return False
            # What failed three times is tried once more, not for ever.
            session.planner.retry_failed &= step == BUSY
            must_progress = must_progress or step != BUSY
            if not _wait(session, watch):
                raise KtError("the jobs were cancelled", "The same command goes on.")
        return True
    except Exception:
        raise
    except BaseException:  # a signal
        if jobs.waiting(folder):
            session.tell.note(f"The jobs go on. {_how_to_come_back(folder)}")
        raise


def close(session: Session) -> None:
    """Account for the jobs of a sweep that is done, where none is queued or running any more."""
    _coordinator(session).advance(must_progress=False)


def _step(coordinator: Coordinator, must_progress: bool) -> str:
    """One step; AGAIN where it could not be made. At the beginning the cluster must answer."""
    try:
        step = coordinator.advance(must_progress)
        if step != CLAIMED:
            return step
        time.sleep(FIRST_LOOK)
    except Silent as silent:
        if not must_progress:
            raise
        warn(f"{silent.message}; asking again.")
        time.sleep(PATIENCE)
    return AGAIN


def _wait(session: Session, watch: Watch) -> bool:
    """Show the jobs until all have ended; False where they were cancelled."""
    pause = FIRST_LOOK
    try:
        while True:
            view = watch.look()
            session.tell.jobs(view)
            time.sleep(pause)
            if view.active is False:
                return not view.cancelled
            pause = min(LAST_LOOK, pause * SLOWER)
    finally:
        session.tell.jobs(None)


def _listed(folder: Path) -> str:
    ids = [job for submitted in jobs.waiting(folder) for job in submitted.jobs]
    return some_of(ids, NAMED)


def _how_to_come_back(folder: Path) -> str:
    where = () if folder.parent == Path.cwd() / "results" else ("-o", folder.parent)
    show, end = (command(word, Path(folder.name), *where) for word in ("status", "cancel"))
    return f"{show} shows them, {end} ends them."


def _is_leading(folder: Path) -> bool:
    """Whether this job is the one that goes on after the jobs submitted last."""
    listed = jobs.listed(folder)
    return bool(listed) and listed[-1].continuation == os.environ.get("SLURM_JOB_ID")


def _coordinator(session: Session) -> Coordinator:
    assert session.place.facts is not None
    folder = session.folder

    def prepare(runs: Sequence[Run]) -> bool:
        much = session.training_images > DECODED_HERE and not are_decoded(runs)
        if much and not session.place.following:
            return False
        # Here, once, and not in every job at the same time.
        decode_training_images(runs, session.tell.progress, session.spec.timeout_run)
        return True

    follow = [
        sys.executable, "-m", "kt_cli", "sweep", str(folder / "sweep.toml"),
        "-o", str(folder.parent), "--executor", "slurm", "--detach", "--follow",
    ]  # fmt: skip
    submitter = Submitter(folder, session.spec.slurm, session.place.facts, session.spec.timeout_run)
    return Coordinator(
        submitter, session.next_runs, lambda runs: session.costs().seconds(runs), follow, prepare
    )
