"""The runs of a stage as one array of Slurm jobs, through submitit; and the job that goes on.

When a job is preempted or runs into its time limit, submitit requeues it, and it goes on at its
first run without a row. Results are rows on disk; what a job returns is never asked for.
"""

from __future__ import annotations

import itertools
import os
import re
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import CommandFunction, FailedJobError, FailedSubmissionError

from kt_cli.errors import KtError
from kt_cli.runs.kinds import kind_of
from kt_cli.settings import SlurmSpec
from kt_cli.spec import Run
from kt_cli.sweeps import cluster
from kt_cli.sweeps.cluster import Facts, Silent, TooMany
from kt_cli.sweeps.jobs import Submitted
from kt_cli.sweeps.schedule import chunk_count, scheduled, write_manifest
from kt_cli.sweeps.slots import Slot, given_gpu

MAX_TIMEOUTS = 100  # of one job; what fails is counted in rows
CHUNKS_PER_GPU = 2
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
OFFLINE = "export HF_HUB_OFFLINE=1"
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_")  # of a job's environment, when it submits


class ChunkJob(submitit.helpers.Checkpointable):
    """What a job does. Its arguments are all that it needs to be started again."""

    def __call__(
        self, manifest: str, start: int, stop: int, threads: int, minutes: float | None
    ) -> None:
        from kt_cli.sweeps.chunk import run_chunk

        run_chunk(manifest, start, stop, Slot(given_gpu(), threads), alone=False, minutes=minutes)


def tasks(runs: int, resources: SlurmSpec, facts: Facts) -> int:
    """Chunks for so many runs: some for each GPU, so that none waits for the last one long."""
    return min(facts.array_size, chunk_count(runs, CHUNKS_PER_GPU * resources.jobs))


@dataclass(frozen=True)
class Submitter:
    """Submits the jobs of the sweep in `folder`; of their runs none may take more than `minutes`.

    All methods raise TooMany, Silent or KtError where the cluster does not take a job, and
    WriteError where the results cannot be written.
    """

    folder: Path
    resources: SlurmSpec
    facts: Facts
    minutes: float | None = None

    def stage(
        self, stage: str, runs: Sequence[Run], costs: Sequence[float], most: int | None = None
    ) -> Submitted:
        """The runs of a stage as an array of chunks, at most `most`."""
        count = min(tasks(len(runs), self.resources, self.facts), most or len(runs))
        while True:
            ordered, borders = scheduled(runs, costs, self.resources.jobs, count)
            manifest = write_manifest(self.folder, ordered)
            try:
                job = self._array(stage, manifest, borders)
                return self._submitted(stage, runs, manifest, job, borders)
            except TooMany:
                if count == 1:
                    raise
                count //= 2

    def preparation(self, stage: str, runs: Sequence[Run], command: Sequence[str]) -> Submitted:
        """One job that runs `command`, which prepares the runs and then submits them."""
        manifest = write_manifest(self.folder, runs)
        try:
            job = self.continuation(None, command)
        except Silent:
            raise
        except KtError as refused:
            raise KtError(f"no job can decode the images: {refused.message}", refused.tip) from None
        return self._submitted(stage, runs, manifest, job, [0], continuation=job)

    def continuation(self, job: str | None, command: Sequence[str]) -> str:
        """A job that runs `command` when all of `job` has ended; if possible without a GPU."""
        try:
            return self._command(job, command)
        except (TooMany, Silent):
            raise
        except KtError as refused:
            if not self.facts.gpus:
                raise
            try:
                return self._command(job, command, gpus_per_node=1)
            except KtError:
                raise refused from None

    def _command(self, job: str | None, command: Sequence[str], **gpus: int) -> str:
        after = {"dependency": f"afterany:{job}"} if job is not None else {}
        # submitit's note: with srun a job cannot submit others.
        executor = self._executor("next", use_srun=False, **after, **gpus)
        return _submit(lambda: executor.submit(CommandFunction(list(command))), executor)

    def _array(self, stage: str, manifest: Path, borders: list[int]) -> str:
        executor = self._executor(
            stage, array_parallelism=self.resources.jobs,
            # srun of Slurm 22.05 and later does not take it over from sbatch.
            srun_args=[f"--cpus-per-task={self._cpus}", *self.resources.srun_args],
            **({"gpus_per_node": 1} if self.facts.gpus else {}),
        )  # fmt: skip
        chunks = [(str(manifest), start, stop, self._cpus, self.minutes)
                  for start, stop in itertools.pairwise(borders)]  # fmt: skip
        chunk: Any = ChunkJob  # whose base has no types
        return _submit(lambda: executor.map_array(chunk(), *zip(*chunks, strict=True)), executor)

    def _executor(self, what: str, **more: Any) -> Any:
        resources = self.resources
        executor = submitit.SlurmExecutor(self.folder / "logs", max_num_timeout=MAX_TIMEOUTS)
        # The name is unique, so that what was taken by a cluster that did not answer can be found.
        sweep = re.sub(r"[^A-Za-z0-9_.-]", "-", self.folder.name)
        name = f"kt-{sweep}-{what}-{uuid.uuid4().hex[:6]}"
        given = {k: getattr(resources, k) for k in ("partition", "account", "qos", "constraint")}
        memory = {"mem": resources.mem} if resources.mem else {}
        executor.update_parameters(
            **{key: value for key, value in given.items() if value}, job_name=name,
            time=resources.minutes, nodes=1, ntasks_per_node=1, cpus_per_task=self._cpus,
            setup=[OFFLINE, *resources.setup], wckey=resources.wckey or None,
            additional_parameters={"requeue": True, **memory}, **more,
        )  # fmt: skip
        return executor

    @property
    def _cpus(self) -> int:
        return self.resources.cpus_per_gpu or self.facts.cpus_per_gpu

    def _submitted(
        self, stage: str, runs: Sequence[Run], manifest: Path, job: str, edges: Sequence[int],
        continuation: str = "",
    ) -> Submitted:  # fmt: skip
        path = manifest.relative_to(self.folder).as_posix()
        table = kind_of(runs[0]).table
        return Submitted(stage, table, job, path, tuple(edges), time.time(), continuation)


def _submit(submit: Callable[[], Any], executor: Any) -> str:
    """The job's id; an array's, without the index of its tasks. Tries again for a minute."""
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
        refusal, reason = cluster.refusal(said), said.splitlines()[0] if said else "no reason given"
        if refusal is not Silent:
            raise refusal(
                f"sbatch refuses: {reason}",
                "Look at --partition, --account, --qos, --time and --mem; then run again.",
            )
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
