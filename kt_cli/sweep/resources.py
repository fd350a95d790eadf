"""What a sweep asks of a cluster: the table [slurm] of a sweep file. Standard library only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kt_cli.errors import UsageError

SLURM_KEYS: dict[str, Any] = {
    "gpus": int, "max_gpu_hours": (int, float), "partition": str, "account": str, "qos": str,
    "constraint": str, "time": (int, str), "mem": str, "cpus_per_gpu": int, "setup": list,
    "srun_args": list, "wckey": str,
}  # fmt: skip
# [days-]hours:minutes:seconds, minutes:seconds, days-hours and minutes, as sbatch takes them.
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
LEAST_MINUTES = 5


@dataclass(frozen=True)
class SlurmSpec:
    """Resources of the jobs of a sweep; empty ones are left to the cluster.

    Attributes:
        gpus: jobs at once, each with one GPU.
        max_gpu_hours: of the whole sweep, what is done included; None for no bound.
        time: limit of a job, minutes or as sbatch takes it.
        mem: memory of a job, as sbatch takes it.
        cpus_per_gpu: CPUs of a job; None for its share of a node.
        setup: shell commands that a job runs first.
        srun_args: arguments of srun.
    """

    gpus: int = 8
    max_gpu_hours: float | None = None
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: int | str = 240
    mem: str = ""
    cpus_per_gpu: int | None = None
    setup: tuple[str, ...] = ()
    srun_args: tuple[str, ...] = ()
    wckey: str = ""

    @property
    def minutes(self) -> int:
        """The time limit in minutes, rounded up.

        Raises:
            UsageError: it is no time.
        """
        found = TIME.fullmatch(str(self.time).strip())
        if found is None:
            raise UsageError(
                f"time: {self.time!r} is no time limit", "Give minutes, HH:MM:SS or D-HH:MM:SS."
            )
        parts = [int(part) for part in found["parts"].split(":")]
        if found["days"]:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
            hours += 24 * int(found["days"])
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        return math.ceil(hours * 60 + minutes + seconds / 60)

    def to_table(self) -> dict[str, Any]:
        """What differs from the defaults, for a sweep file."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v
                for k, v in said.items() if v != getattr(DEFAULT, k)}  # fmt: skip


DEFAULT = SlurmSpec()


def build_slurm(table: Mapping[str, Any]) -> SlurmSpec:
    """The resources of a table whose keys and types are right.

    Raises:
        UsageError: a value that cannot be.
    """
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    spec = SlurmSpec(**given)
    for name in ("setup", "srun_args"):
        if not all(isinstance(value, str) for value in getattr(spec, name)):
            raise UsageError(f"[slurm]: {name} must be a list of strings")
    for name in ("gpus", "cpus_per_gpu", "max_gpu_hours"):
        value = getattr(spec, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"[slurm]: {name} must be positive, not {value}")
    if spec.minutes < LEAST_MINUTES:
        raise UsageError(
            f"time: {spec.time!r} is too short a limit",
            f"Give at least {LEAST_MINUTES} minutes: a job stops 90 seconds before its end.",
        )
    for name in ("partition", "account", "qos", "constraint", "mem", "wckey"):
        if any(not c.isprintable() for c in getattr(spec, name)):
            raise UsageError(f"[slurm]: {name} must be one line, not {getattr(spec, name)!r}")
    return spec
