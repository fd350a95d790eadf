"""The runs of a stage as one array of Slurm jobs, through submitit; and the job that goes on.

A chunk is a callable with paths and indices: when its job is preempted or runs into its time
limit, submitit requeues it, and it goes on at its first run without a row (inside a training, at
its checkpoint). Results are rows on disk; what a job returns is never asked for.
"""

from __future__ import annotations

import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import CommandFunction, FailedJobError, FailedSubmissionError

from kt_cli.errors import KtError, UsageError
from kt_cli.runs.kinds import kind_of
from kt_cli.settings import SlurmSpec
from kt_cli.spec import Run
from kt_cli.sweeps import cluster
from kt_cli.sweeps.cluster import Facts
from kt_cli.sweeps.cost_model import edges
from kt_cli.sweeps.jobs import Submitted
from kt_cli.sweeps.manifest import write_manifest
from kt_cli.sweeps.slots import Slot, chunk_count, given_gpu

MAX_TIMEOUTS = 100  # of one job; what fails is counted in rows
CHUNKS_PER_GPU = 2
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
OFFLINE = "export HF_HUB_OFFLINE=1"
FOR_A_WHILE = re.compile(
    r"timed? ?out|unable to contact|connection refused|temporarily|try again|zero bytes", re.I
)
TOO_MANY = re.compile(r"(Max|Grp)Submit|invalid job array|too many", re.I)
# Slurm ends other refusals with the same words, but names their limit before.
PERHAPS_TOO_MANY = re.compile(r"\A(?!.*\b(QOS|Assoc)[A-Z]).*job submit limit", re.DOTALL)
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_")  # of a job's environment, when it submits


class ChunkJob(submitit.helpers.Checkpointable):
    """What a job does. Its arguments are all that it needs to be started again."""

    def __call__(self, manifest: str, start: int, stop: int, threads: int) -> None:
        from kt_cli.sweeps.chunk import run_chunk

        run_chunk(manifest, start, stop, Slot(given_gpu(), threads), alone=False)


class TooMany(KtError):
    """The cluster takes only fewer jobs."""


class Silent(KtError):
    """The cluster did not answer for a minute."""


def submit_stage(
    folder: Path,
    stage: str,
    runs: Sequence[Run],
    costs: Sequence[float],
    resources: SlurmSpec,
    facts: Facts,
    most: int | None = None,
) -> Submitted:
    """Submit the runs of a stage as an array of chunks of about equal cost, at most `most`.

    Raises:
        TooMany, Silent, KtError: the cluster does not take it.
        WriteError: the results cannot be written.
    """
    manifest = write_manifest(folder, runs)
    count = min(tasks(len(runs), resources, facts), most or len(runs))
    while True:
        borders = edges(costs, count)
        try:
            job = _submit_array(folder, stage, manifest, borders, resources, facts)
        except TooMany:
            if count == 1:
                raise
            count //= 2
            continue
        return Submitted(
            stage, kind_of(runs[0]).table, job, manifest.relative_to(folder).as_posix(),
            tuple(borders), time.time(),
        )  # fmt: skip


def tasks(runs: int, resources: SlurmSpec, facts: Facts) -> int:
    """Chunks for so many runs: some for each GPU, so that none waits for the last one long."""
    return min(facts.array_size, chunk_count(runs, CHUNKS_PER_GPU * resources.gpus))


def submit_continuation(
    folder: Path, job: str | None, command: Sequence[str], resources: SlurmSpec, facts: Facts
) -> str:
    """A job that runs `command` when all of `job` has ended; without a GPU where that is allowed.

    Raises:
        TooMany, Silent, KtError: the cluster does not take it.
    """
    try:
        return _submit_command(folder, job, command, resources, facts, {})
    except (TooMany, Silent):
        raise
    except KtError as refused:
        if not facts.gpus:
            raise
        try:
            return _submit_command(folder, job, command, resources, facts, {"gpus_per_node": 1})
        except KtError:
            raise refused from None


def _submit_command(
    folder: Path, job: str | None, command: Sequence[str], resources: SlurmSpec, facts: Facts,
    gpus: dict[str, int],
) -> str:  # fmt: skip
    executor = _executor(folder, "next", resources, resources.cpus_per_gpu or facts.cpus_per_gpu)
    after = {"dependency": f"afterany:{job}"} if job is not None else {}
    # submitit's note: with srun a job cannot submit others.
    executor.update_parameters(use_srun=False, **after, **gpus)
    return _submit(lambda: executor.submit(CommandFunction(list(command))), executor)


def _submit_array(
    folder: Path, stage: str, manifest: Path, borders: list[int],
    resources: SlurmSpec, facts: Facts,
) -> str:  # fmt: skip
    cpus = resources.cpus_per_gpu or facts.cpus_per_gpu
    executor = _executor(folder, stage, resources, cpus)
    if facts.gpus:
        executor.update_parameters(gpus_per_node=1)
    executor.update_parameters(
        array_parallelism=resources.gpus,
        # srun of Slurm 22.05 and later does not take it over from sbatch.
        srun_args=[f"--cpus-per-task={cpus}", *resources.srun_args],
    )
    count = len(borders) - 1
    columns = [[str(manifest)] * count, borders[:-1], borders[1:], [cpus] * count]
    return _submit(
        lambda: executor.map_array(ChunkJob(), *columns),  # type: ignore[no-untyped-call]
        executor,
    )


def _executor(folder: Path, what: str, resources: SlurmSpec, cpus: int) -> Any:
    if not str(folder).isprintable() or "%" in str(folder):
        raise UsageError(f"Slurm cannot write logs to {folder}", "Choose a path without %.")
    executor = submitit.SlurmExecutor(folder / "logs", max_num_timeout=MAX_TIMEOUTS)
    # The name is unique, so that what was taken by a cluster that did not answer can be found.
    sweep = re.sub(r"[^A-Za-z0-9_.-]", "-", folder.name)
    name = f"kt-{sweep}-{what}-{uuid.uuid4().hex[:6]}"
    given = {k: getattr(resources, k) for k in ("partition", "account", "qos", "constraint")}
    memory = {"mem": resources.mem} if resources.mem else {}
    executor.update_parameters(
        **{key: value for key, value in given.items() if value},
        job_name=name, time=resources.minutes, nodes=1, ntasks_per_node=1, cpus_per_task=cpus,
        setup=[OFFLINE, *resources.setup], wckey=resources.wckey or None,
        additional_parameters={"requeue": True, **memory},
    )  # fmt: skip
    return executor


def _submit(submit: Callable[[], Any], executor: Any) -> str:
    """The job's id; an array's, without the index of its tasks. Tries again for a minute.

    Raises:
        TooMany: the cluster takes only fewer tasks. Silent: it does not answer.
        KtError: it refuses.
    """
    said = ""
    for pause in PAUSES:
        try:
            job, said = _try(submit)
        except BaseException:
            # What was interrupted may be there already, and nobody would know of it.
            cluster.cancel_named(executor.parameters["job_name"])
            raise
        if job is not None:
            return job
        reason = said.splitlines()[0] if said else "no reason given"
        refused = (
            f"sbatch refuses: {reason}",
            "Look at --partition, --account, --qos, --time and --mem; then run again.",
        )
        if TOO_MANY.search(said) or PERHAPS_TOO_MANY.search(said):
            raise TooMany(*refused)
        if not FOR_A_WHILE.search(said):
            raise KtError(*refused)
        time.sleep(pause)
        # It may have taken the job and only its answer was lost.
        cluster.cancel_named(executor.parameters["job_name"])
    raise Silent(f"sbatch does not answer: {said.splitlines()[0]}", "Run again when Slurm answers.")


def _try(submit: Callable[[], Any]) -> tuple[str | None, str]:
    """The job's id, or what was said instead."""
    try:
        with warnings.catch_warnings(), not_of_this_job():
            warnings.simplefilter("ignore")
            jobs = submit()
    except (FailedJobError, FailedSubmissionError) as error:
        return None, str(error).strip()
    job = jobs[0] if isinstance(jobs, list) else jobs
    return str(job.job_id).partition("_")[0], ""


@contextmanager
def not_of_this_job() -> Iterator[None]:
    """Hides what a job inherits, but not which cluster it is, nor the user's own defaults."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    with submitit.helpers.clean_env():
        os.environ.update(kept)
        yield
