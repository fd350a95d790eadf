"""Where a sweep is done: on this machine, or on the cluster that it finds."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from kt_cli.errors import KtError, UsageError, unknown, warn
from kt_cli.files import writing
from kt_cli.sweeps import cluster

AUTO, SLURM, LOCAL, INLINE = "auto", "slurm", "local", "inline"
EXECUTORS = (AUTO, SLURM, LOCAL, INLINE)
DRY_SECONDS = 3.0  # that a plan waits for the controller
PATIENCE = 60.0  # seconds until a silent controller is asked again


@dataclass(frozen=True)
class Place:
    """Where a sweep is done."""

    executor: str = LOCAL  # or SLURM, or INLINE
    facts: cluster.Facts | None = None  # of the cluster, if any
    detach: bool = False  # return when something is submitted
    following: bool = False  # this is the job that goes on

    def require_logs(self, folder: Path) -> None:
        """Refuse a folder of results that cannot be, or whose path is a pattern to who writes logs.

        Raises:
            UsageError: it is below a file, or its logs would lie elsewhere.
        """
        with writing(folder):  # not with a name that is too long, nor without permission
            there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        if not there.is_dir():
            raise UsageError(f"{there} is not a folder", "-o names where sweeps keep results.")
        path = str(folder.absolute())
        found = re.search(r"[%\\]", path)
        if self.executor == SLURM and (found or not path.isprintable()):
            what = f"{found[0]} in it stands for numbers of jobs" if found else "it is not text"
            raise UsageError(
                f"the logs of jobs cannot be in {folder}: {what}",
                "Choose another folder (-o) or --name: of letters, digits, - and _.",
            )


def chosen(executor: str, processes: int | None) -> str:
    """The executor, of AUTO what there is: the cluster, unless we are in one of its jobs."""
    if executor != AUTO:
        return executor
    inside_job = "SLURM_JOB_ID" in os.environ
    return SLURM if cluster.is_there() and not inside_job and processes is None else LOCAL


def choose(
    executor: str, partition: str, processes: int | None, detach: bool, following: bool,
    dry_run: bool = False,
) -> Place:  # fmt: skip
    """Where `chosen` says, if it can be.

    Raises:
        UsageError: what is asked for cannot be. KtError: Slurm does not answer.
    """
    if executor not in EXECUTORS:
        raise unknown("executor", executor, EXECUTORS)
    executor, facts = chosen(executor, processes), None
    if executor == SLURM:
        if not cluster.is_there():
            raise UsageError("there is no Slurm here: no sbatch or no srun on the PATH")
        facts = cluster.look_at(partition, DRY_SECONDS if dry_run else cluster.SECONDS)
        if facts is None and dry_run:
            warn("Slurm's controller does not answer: this is the plan for this machine alone.")
            return Place()
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
