"""What a sweep asks of a cluster: the table [slurm] of a sweep file, under Slurm's own names."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from kt_cli.errors import UsageError
from kt_cli.settings.declared import POSITIVE, check
from kt_cli.settings.shared import of_cluster

# [days-]hours:minutes:seconds, minutes:seconds, days-hours and minutes, as sbatch takes them.
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
LEAST_MINUTES = 5
JOBS = 8
ONE_LINE = ("partition", "account", "qos", "constraint", "mem", "wckey")


@dataclass(frozen=True)
class SlurmSpec:
    """Resources of the jobs of a sweep; empty ones are left to the cluster."""

    gpus: int | None = of_cluster(
        None, "GPUs to use at once; on a cluster jobs with one GPU each.", within=POSITIVE,
        usual=f"all here, {JOBS} on a cluster",
    )  # fmt: skip
    max_gpu_hours: float | None = of_cluster(
        None, "GPU-hours of the whole sweep; transfers that do not fit are left out, best-spread "
        "pairs stay.", within=POSITIVE,
    )  # fmt: skip
    partition: str = of_cluster("", "Of the jobs.")
    account: str = of_cluster("", "That pays for them.")
    qos: str = of_cluster("", "Quality of service.")
    constraint: str = of_cluster("", "Features that their nodes must have.")
    time: int | str = of_cluster(
        240, "Limit of a job, minutes or D-HH:MM:SS; one that is cut off goes on."
    )
    mem: str = of_cluster("", "Memory of a job: 32G.")
    cpus_per_gpu: int | None = of_cluster(
        None, "CPUs of a job.", within=POSITIVE, usual="a GPU's share of a node"
    )
    setup: tuple[str, ...] = of_cluster((), "Shell command that a job runs first. May repeat.")
    srun_args: tuple[str, ...] = of_cluster(
        (), "Argument of srun. May repeat.", flags=("--srun-arg",)
    )
    wckey: str = of_cluster("", "Workload key.")

    @property
    def jobs(self) -> int:
        """Jobs of a cluster at once."""
        return self.gpus or JOBS

    @property
    def minutes(self) -> int:
        """The time limit in minutes, rounded up; UsageError where it is no time."""
        found = TIME.fullmatch(str(self.time).strip())
        if found is None:
            raise UsageError(
                f"time: {self.time!r} is no time limit", "Give minutes, HH:MM:SS or D-HH:MM:SS."
            )
        parts = [int(part) for part in found["parts"].split(":")]
        if not found["days"] and len(parts) < 3:
            parts = [0, *parts]
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return math.ceil(60 * (24 * int(found["days"] or 0) + hours) + minutes + seconds / 60)


def check_cluster(spec: SlurmSpec) -> None:
    """Refuse resources that cannot be; UsageError names the first of them."""
    check(spec)
    if spec.minutes < LEAST_MINUTES:
        raise UsageError(
            f"time: {spec.time!r} is too short a limit",
            f"Give at least {LEAST_MINUTES} minutes: a job stops 90 seconds before its end.",
        )
    for name in ONE_LINE:
        if any(not c.isprintable() for c in getattr(spec, name)):
            raise UsageError(f"[slurm]: {name} must be one line, not {getattr(spec, name)!r}")
