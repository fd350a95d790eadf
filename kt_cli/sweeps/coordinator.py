"""Leading a sweep over a cluster, where nobody has to stay: whoever looks next takes a step.

See what has ended, plan by the rows on disk, submit what comes next.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kt_cli.errors import KtError
from kt_cli.rows import store
from kt_cli.rows.schema import TABLES
from kt_cli.rows.store import Outcomes
from kt_cli.runs.kinds import failed_row, kind_of
from kt_cli.spec import Run
from kt_cli.sweeps import cluster, jobs
from kt_cli.sweeps.jobs import CANCELLED, OVER, Submitted, log_of
from kt_cli.sweeps.schedule import read_manifest
from kt_cli.sweeps.slurm import Submitter
from kt_cli.sweeps.worker_log import NOT_REQUEUED, UNWRITABLE, cause, last_line, told, written

BUSY, CLAIMED, SUBMITTED, FINISHED = "busy", "claimed", "submitted", "finished"


@dataclass
class Coordinator:
    """Takes one step at a time."""

    submitter: Submitter
    # By the rows on disk: the first stage that is not finished, and its runs; None at the end.
    next_runs: Callable[[], tuple[str, Sequence[Run]] | None]
    costs: Callable[[Sequence[Run]], list[float]]  # estimated seconds of each
    follow: Sequence[str]  # the command of the job that goes on after an array
    prepare: Callable[[Sequence[Run]], bool]  # before submission; whether a job need not do it
    refusal: str = ""  # why no job goes on after what was submitted last; empty where one does

    def advance(self, must_progress: bool) -> str:
        """BUSY while jobs are there, else SUBMITTED the next, or FINISHED; CLAIMED by another.

        Args:
            must_progress: refuse to submit the same runs again where nothing came of them.

        Raises:
            Silent: the cluster does not answer.
            KtError: nothing came of the runs, the cluster refuses, or this job was cancelled.
        """
        folder = self.submitter.folder
        with jobs.claim(folder) as mine:
            if not mine:
                return CLAIMED
            _require_not_cancelled(folder)
            if not close_ended(folder):
                return BUSY
            found = self.next_runs()
            if found is None:
                # Here, where nobody else does it at the same time.
                for table in TABLES:
                    store.settle(folder, table)
                return FINISHED
            stage, runs = found
            prepared = self.prepare(runs)
            if must_progress:
                _require_progress(folder, stage, runs, prepared)
            if prepared:
                self._submit(stage, runs)
            else:
                preparation = self.submitter.preparation(stage, runs, self.follow)
                with _known_or_cancelled(folder, [preparation.job]):
                    jobs.keep(folder, preparation)
            return SUBMITTED

    def _submit(self, stage: str, runs: Sequence[Run]) -> None:
        """The array, and the job that goes on after it; where both are too many, a smaller one."""
        folder, costs, most = self.submitter.folder, self.costs(runs), len(runs)
        self.refusal = ""
        while True:
            submitted = self.submitter.stage(stage, runs, costs, most)
            taken = [submitted.job]
            with _known_or_cancelled(folder, taken):
                # Kept at once: an array that nobody knows of would be submitted twice.
                jobs.keep(folder, submitted)
                try:
                    taken.append(self.submitter.continuation(submitted.job, self.follow))
                except KtError as refused:
                    if isinstance(refused, cluster.TooMany) and submitted.tasks > 1:
                        most = submitted.tasks // 2
                        cluster.cancel([submitted.job])
                        jobs.keep(folder, replace(submitted, state=CANCELLED))
                        continue
                    self.refusal = refused.message
                else:
                    jobs.keep(folder, replace(submitted, continuation=taken[-1]))
                return


def _require_progress(folder: Path, stage: str, runs: Sequence[Run], prepared: bool) -> None:
    """Refuse what was submitted before and came to nothing, without anybody's doing."""
    earlier = [s for s in jobs.listed(folder) if s.stage == stage and s.state != CANCELLED]
    if not earlier or (prepared and not earlier[-1].tasks):
        return
    before = read_manifest(folder / earlier[-1].manifest)
    same = {(r.id, r.attempt) for r in before} == {(r.id, r.attempt) for r in runs}
    if same and not _cut_off(folder, earlier[-1], 0):
        log = log_of(folder, earlier[-1], 0, "err")
        raise KtError(
            f"nothing came of the jobs of stage {stage} (job {earlier[-1].job}): "
            f"{last_line(log) or 'they left no log'}",
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
    waiting = jobs.waiting(folder)
    if not waiting:
        return True
    known = [job for submitted in waiting for job in submitted.jobs]
    states = cluster.active(known, {submitted.user for submitted in waiting})
    if states is None or states.keys() - {os.environ.get("SLURM_JOB_ID")}:
        return False
    for submitted in waiting:
        rows = lost_rows(folder, submitted)
        if rows:
            store.write(folder, submitted.table, rows)
        jobs.keep(folder, replace(submitted, state=OVER))
    return True


def lost_rows(folder: Path, submitted: Submitted) -> list[dict[str, object]]:
    """Failed rows for the runs that jobs were at when they died.

    A disk that was full is no failure, nor is what the cluster did by itself.
    """
    runs = read_manifest(folder / submitted.manifest)
    outcomes = Outcomes(folder, submitted.table)
    rows: list[dict[str, object]] = []
    for task, (start, stop) in enumerate(itertools.pairwise(submitted.edges)):
        lost = {i for i in range(start, stop) if not _accounted(runs[i], outcomes)}
        if not lost or _cut_off(folder, submitted, task):
            continue
        out, log = (log_of(folder, submitted, task, kind) for kind in ("out", "err"))
        said = told(out)
        if said.runs is None or said.end == UNWRITABLE:
            continue
        at, end = said.runs
        together = f"one of {end - at} that ran together: " if end - at > 1 else ""
        error = f"{together}{cause(said, log, 'job')}; see logs/{log.name}"
        seconds = said.seconds(written(out, log))
        rows += [failed_row(runs[i], error, seconds) for i in range(at, end) if i in lost]
    return rows


def _accounted(run: Run, outcomes: Outcomes) -> bool:
    kind = kind_of(run)
    return outcomes.attempts(run.id) >= run.attempt or (
        kind.many_rows and all(map(outcomes.done, kind.row_ids(run)))
    )


def _cut_off(folder: Path, submitted: Submitted, task: int) -> bool:
    """Whether the cluster ended a task: preempted, on a node that failed, or not requeued."""
    said = told(log_of(folder, submitted, task, "out"))
    last_words = last_line(log_of(folder, submitted, task, "err"))
    return said.end == NOT_REQUEUED or bool(cluster.cut_off(last_words))
