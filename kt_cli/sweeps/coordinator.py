"""Leading a sweep over a cluster: one stage after the other, whoever looks next goes on.

Nobody has to stay. The command that was typed, a later one, and the job that follows each array
all do the same step: see what has ended, plan by the rows on disk, submit what comes next.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kt_cli.errors import KtError
from kt_cli.rows import store
from kt_cli.rows.schema import TABLES
from kt_cli.rows.store import Outcomes
from kt_cli.runs.kinds import failed_row, kind_of
from kt_cli.settings import SlurmSpec
from kt_cli.spec import Run
from kt_cli.sweeps import cluster, jobs
from kt_cli.sweeps.chunk import LOST, STARTED, tried
from kt_cli.sweeps.cluster import Facts
from kt_cli.sweeps.jobs import CANCELLED, OPEN, OVER, Submitted
from kt_cli.sweeps.logs import last_line, last_numbers, last_said
from kt_cli.sweeps.manifest import read_manifest, write_manifest
from kt_cli.sweeps.slurm import Silent, TooMany, submit_continuation, submit_stage

BUSY, CLAIMED, SUBMITTED, FINISHED = "busy", "claimed", "submitted", "finished"
# Preempted where the cluster requeues nothing, on a node that failed, or not requeued.
NOT_ITS_FAULT = re.compile(r"DUE TO (PREEMPTION|NODE FAILURE)|scontrol.*requeue")


class Runs(Protocol):
    """Where the next runs come from."""

    def __call__(self) -> tuple[str, Sequence[Run]] | None:
        """The name of the first stage that is not finished, and its runs; None at the end."""


class Coordinator:
    """Args:
    next_runs: plans by the rows on disk.
    seconds: estimates what a run takes.
    follow: the command of the job that goes on after an array.
    prepare: called with the runs before they are submitted; whether a job need not do it.

    Attributes:
        refusal: why no job goes on after what was submitted last; empty where one does.
    """

    refusal = ""

    def __init__(
        self,
        folder: Path,
        next_runs: Runs,
        seconds: Callable[[Run], float],
        resources: SlurmSpec,
        facts: Facts,
        follow: Sequence[str],
        prepare: Callable[[Sequence[Run]], bool],
    ) -> None:
        self._folder, self._next, self._seconds = folder, next_runs, seconds
        self._resources, self._facts, self._follow = resources, facts, follow
        self._prepare = prepare

    def advance(self, must_progress: bool) -> str:
        """One step: BUSY while jobs are there, else SUBMITTED what comes next, or FINISHED.

        CLAIMED where another process is at it.

        Args:
            must_progress: refuse to submit the same runs again where nothing came of them.

        Raises:
            Silent: the cluster does not answer.
            KtError: nothing came of the runs, the cluster refuses, or this job was cancelled.
        """
        with jobs.claim(self._folder) as mine:
            if not mine:
                return CLAIMED
            _require_not_cancelled(self._folder)
            if not close_ended(self._folder):
                return BUSY
            found = self._next()
            if found is None:
                # Here, where nobody else does it at the same time.
                for table in TABLES:
                    store.settle(self._folder, table)
                return FINISHED
            stage, runs = found
            prepared = self._prepare(runs)
            if must_progress:
                self._require_progress(stage, runs, prepared)
            if prepared:
                self._submit(stage, runs)
            else:
                self._submit_preparation(stage, runs)
            return SUBMITTED

    def _submit_preparation(self, stage: str, runs: Sequence[Run]) -> None:
        """A job that prepares the runs and then submits them."""
        try:
            job = submit_continuation(
                self._folder, None, self._follow, self._resources, self._facts
            )
        except Silent:
            raise
        except KtError as refused:
            raise KtError(f"no job can decode the images: {refused.message}", refused.tip) from None
        manifest = write_manifest(self._folder, runs).relative_to(self._folder).as_posix()
        nothing = Submitted(stage, kind_of(runs[0]).table, job, manifest, (0,), time.time(), job)
        with _known_or_cancelled(self._folder, [job]):
            jobs.keep(self._folder, nothing)

    def _submit(self, stage: str, runs: Sequence[Run]) -> None:
        """The array, and the job that goes on after it; where both are too many, a smaller one."""
        costs, most = [self._seconds(run) for run in runs], len(runs)
        self.refusal = ""
        while True:
            submitted = submit_stage(
                self._folder, stage, runs, costs, self._resources, self._facts, most
            )
            taken = [submitted.job]
            with _known_or_cancelled(self._folder, taken):
                # Kept at once: an array that nobody knows of would be submitted twice.
                jobs.keep(self._folder, submitted)
                try:
                    continuation = submit_continuation(
                        self._folder, submitted.job, self._follow, self._resources, self._facts
                    )
                except TooMany as refused:
                    if submitted.tasks > 1:
                        most = submitted.tasks // 2
                        cluster.cancel([submitted.job])
                        jobs.keep(self._folder, replace(submitted, state=CANCELLED))
                        continue
                    self.refusal = refused.message
                    return
                except KtError as refused:
                    self.refusal = refused.message
                    return
                taken.append(continuation)
                jobs.keep(self._folder, replace(submitted, continuation=continuation))
                return

    def _require_progress(self, stage: str, runs: Sequence[Run], prepared: bool) -> None:
        """Refuse what was submitted before and came to nothing, without anybody's doing."""
        earlier = [s for s in jobs.listed(self._folder)
                   if s.stage == stage and s.state != CANCELLED]  # fmt: skip
        if not earlier or (prepared and not earlier[-1].tasks):
            return
        before = read_manifest(self._folder / earlier[-1].manifest)
        if {(r.id, r.attempt) for r in before} != {(r.id, r.attempt) for r in runs}:
            return
        log = log_of(self._folder, earlier[-1], 0, "err")
        reason = last_line(log)
        if not NOT_ITS_FAULT.search(reason):
            raise KtError(
                f"nothing came of the jobs of stage {stage} (job {earlier[-1].job}): "
                f"{reason or 'they left no log'}",
                f"Logs: {log.parent}. The same command tries again.",
            )


@contextmanager
def _known_or_cancelled(folder: Path, taken: list[str]) -> Iterator[None]:
    """Ends jobs of a submission that was cut off: nobody would find them all."""
    try:
        yield
    except BaseException:
        cluster.cancel(taken)
        for submitted in jobs.listed(folder):
            if submitted.job in taken:
                with suppress(KtError):
                    jobs.keep(folder, replace(submitted, state=CANCELLED))
        raise


def _require_not_cancelled(folder: Path) -> None:
    """Whoever cancelled the sweep did not see that this job had just begun."""
    own = os.environ.get("SLURM_JOB_ID")
    if any(s.continuation == own and s.state == CANCELLED for s in jobs.listed(folder)):
        raise KtError("the jobs were cancelled", "The same command goes on.")


def close_ended(folder: Path) -> bool:
    """Account for the jobs that have ended; False while some are queued or running, or unknown."""
    waiting = [submitted for submitted in jobs.listed(folder) if submitted.state == OPEN]
    if not waiting:
        return True
    own = os.environ.get("SLURM_JOB_ID")
    known = [job for submitted in waiting for job in submitted.jobs]
    states = cluster.active(known, {submitted.user for submitted in waiting})
    if states is None or states.keys() - {own}:
        return False
    for submitted in waiting:
        rows = lost_rows(folder, submitted)
        if rows:
            store.write(folder, submitted.table, rows)
        jobs.keep(folder, replace(submitted, state=OVER))
    return True


def lost_rows(folder: Path, submitted: Submitted) -> list[dict[str, object]]:
    """Failed rows for the runs that jobs were at when they died.

    What a job had not yet begun is no failure, nor is a disk that was full, nor what the cluster
    did by itself.
    """
    runs = read_manifest(folder / submitted.manifest)
    outcomes = Outcomes(folder, submitted.table)
    rows: list[dict[str, object]] = []
    for task, (start, stop) in enumerate(itertools.pairwise(submitted.edges)):
        lost = {i for i in range(start, stop) if not _accounted(runs[i], outcomes)}
        if not lost:
            continue
        log = log_of(folder, submitted, task, "err")
        said = log_of(folder, submitted, task, "out")
        at, end = last_numbers(said, STARTED) or (0, 0)
        reason = last_line(log)
        if reason.startswith("kt_cli.errors.WriteError") or NOT_ITS_FAULT.search(reason):
            continue
        error = last_said(said, LOST) or f"the job died ({reason or 'killed'})"
        together = f"one of {end - at} that ran together: " if end - at > 1 else ""
        error = f"{together}{error}; see logs/{log.name}"
        rows += [failed_row(runs[i], error) for i in sorted(lost & set(range(at, end)))]
    return rows


def _accounted(run: Run, outcomes: Outcomes) -> bool:
    kind = kind_of(run)
    if kind.many_rows:
        ids = kind.row_ids(run)
        return outcomes.attempts(run.id) >= run.attempt or all(map(outcomes.done, ids))
    return tried(run, outcomes)


def log_of(folder: Path, submitted: Submitted, task: int, kind: str) -> Path:
    """The log of one task, kind "out" or "err"."""
    index = f"_{task}" if submitted.tasks > 1 else ""
    return folder / "logs" / f"{submitted.job}{index}_0_log.{kind}"
