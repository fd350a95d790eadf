"""Slurm: whether it answers, what it allows, and on request a real job."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.sweeps.cluster import ask

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
# States of nodes that take jobs, now or when others have ended; a sign may follow.
USABLE = re.compile(r"(idle|mix|mixed|alloc|allocated|comp|completing|plnd|planned)[*~#%$@+^!-]?")
LOCAL = "Without Slurm kt sweep uses the GPUs of this machine; on a cluster run kt on a login node."


def cluster(asked: Asked) -> Iterator[Finding]:
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
    config, error = ask("scontrol", "show", "config")
    if error:
        yield red(
            f"Slurm's controller does not answer: {error}",
            "Is this a login node? Try sinfo again later, or ask the administrators.",
        )
        return
    yield _partitions()
    yield _limits(config)
    if shutil.which("sacct") is None or ask("sacct", "-n", "-X")[1]:
        yield green("no accounting: states of jobs come from squeue alone, which is enough")
    else:
        kind = _value(config, "AccountingStorageType") or "accounting"
        yield green(f"sacct answers ({kind})")


def _partitions() -> Finding:
    listed, error = ask("sinfo", "-h", "-o", "%R|%a|%D|%t|%G")
    if error:
        return yellow(f"sinfo fails: {error}", "kt asks it for GPUs and CPUs of nodes.")
    rows = [line.split("|") for line in listed.splitlines() if line.count("|") == 4]
    usable = [row for row in rows if row[1] == "up" and USABLE.fullmatch(row[3])]
    shown = "; ".join(f"{name}: {n} {state}, {gres}" for name, _, n, state, gres in rows)
    if not usable:
        return red(f"no node takes jobs ({shown})", "Ask the administrators; jobs would only wait.")
    if not any("gpu" in row[4] for row in usable):
        said = f"no GPUs among the nodes ({shown})"
        return yellow(said, "Jobs run on CPUs, unless GPUs go by other names.")
    return green(shown)


def _limits(config: str) -> Finding:
    size = _value(config, "MaxArraySize")
    if not size.isdigit() or int(size) < 2:
        said = f"MaxArraySize is {size or 'not told'}: no job arrays"
        return red(said, "kt sweep submits job arrays.")
    said = f"Slurm {_value(config, 'SLURM_VERSION')}, arrays of up to {int(size) - 1:,} jobs"
    if _value(config, "JobRequeue") == "0":
        return yellow(
            f"{said}; jobs are not requeued (JobRequeue=0)",
            "After a preemption the same kt sweep goes on where it stopped.",
        )
    return green(said)


def _value(config: str, key: str) -> str:
    found = re.search(rf"^{key}\s*=\s*(\S*)", config, re.MULTILINE)
    return found[1] if found else ""
