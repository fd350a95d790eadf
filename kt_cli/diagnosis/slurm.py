"""Slurm: whether it answers, what it allows, and on request a real job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.sweeps import cluster

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
LOCAL = "Without Slurm kt sweep uses the GPUs of this machine; on a cluster run kt on a login node."


def controller(asked: Asked) -> Iterator[Finding]:
    """Commands, partitions, GPUs, limits and accounting."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if "sbatch" in missing:
        if asked.slurm_test:
            yield red("no sbatch here, so there is nothing to test", LOCAL)
        else:
            yield green("no Slurm here: sweeps run on this machine")
        return
    if missing:
        yield red(f"sbatch is here, but not {', '.join(missing)}", "Install Slurm's client tools.")
        return
    config, error = cluster.configuration()
    if error:
        yield red(
            f"Slurm's controller does not answer: {error}",
            "Is this a login node? Try sinfo again later, or ask the administrators.",
        )
        return
    yield _partitions()
    yield _limits(config)
    if cluster.accounts():
        yield green(f"sacct answers ({config.get('AccountingStorageType') or 'accounting'})")
    else:
        yield green("no accounting: states of jobs come from squeue alone, which is enough")


def _partitions() -> Finding:
    found, error = cluster.partitions()
    if error:
        return yellow(f"sinfo fails: {error}", "kt asks it for GPUs and CPUs of nodes.")
    usable = [one for one in found if one.usable]
    shown = "; ".join(f"{one.name}: {one.nodes} {one.state}, {one.gres}" for one in found)
    if not usable:
        return red(f"no node takes jobs ({shown})", "Ask the administrators; jobs would only wait.")
    if not any("gpu" in one.gres for one in usable):
        said = f"no GPUs among the nodes ({shown})"
        return yellow(said, "Jobs run on CPUs, unless GPUs go by other names.")
    return green(shown)


def _limits(config: Mapping[str, str]) -> Finding:
    size = config.get("MaxArraySize", "")
    if not size.isdigit() or int(size) < 2:
        said = f"MaxArraySize is {size or 'not told'}: no job arrays"
        return red(said, "kt sweep submits job arrays.")
    said = f"Slurm {config.get('SLURM_VERSION', '')}, arrays of up to {int(size) - 1:,} jobs"
    if config.get("JobRequeue") == "0":
        return yellow(
            f"{said}; jobs are not requeued (JobRequeue=0)",
            "After a preemption the same kt sweep goes on where it stopped.",
        )
    return green(said)
