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
    if shutil.which("sbatch") is None:
        if asked.slurm_test:
            yield red("no sbatch here, so there is nothing to test", LOCAL)
        else:
            yield green("no Slurm here: sweeps run on this machine")
        return
    missing = [name for name in COMMANDS if shutil.which(name) is None]
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
    yield from _partitions()
    yield _limits(config)
    yield _accounting(config)


def _partitions() -> Iterator[Finding]:
    listed, error = ask("sinfo", "-h", "-o", "%R|%a|%D|%t|%G")
    if error:
        yield yellow(f"sinfo fails: {error}", "kt asks it for GPUs and CPUs of nodes.")
        return
    rows = [line.split("|") for line in listed.splitlines() if line.count("|") == 4]
    usable = [row for row in rows if row[1] == "up" and USABLE.fullmatch(row[3])]
    shown = "; ".join(f"{name}: {n} {state}, {gres}" for name, _, n, state, gres in rows)
    if not usable:
        yield red(f"no node takes jobs ({shown})", "Ask the administrators; jobs would only wait.")
    elif not any("gpu" in row[4] for row in usable):
        yield yellow(
            f"no GPUs among the nodes ({shown})", "Jobs run on CPUs, unless GPUs go by other names."
        )
    else:
        yield green(shown)


def _limits(config: str) -> Finding:
    size = _value(config, "MaxArraySize")
    if not size.isdigit() or int(size) < 2:
        return red(
            f"MaxArraySize is {size or 'not told'}: no job arrays", "kt sweep submits job arrays."
        )
    requeue = _value(config, "JobRequeue")
    said = f"Slurm {_value(config, 'SLURM_VERSION')}, arrays of up to {int(size) - 1:,} jobs"
    if requeue == "0":
        return yellow(
            f"{said}; jobs are not requeued (JobRequeue=0)",
            "After a preemption the same kt sweep goes on where it stopped.",
        )
    return green(said)


def _accounting(config: str) -> Finding:
    if shutil.which("sacct") is None or ask("sacct", "-n", "-X")[1]:
        return green("no accounting: states of jobs come from squeue alone, which is enough")
    kind = _value(config, "AccountingStorageType") or "accounting"
    return green(f"sacct answers ({kind})")


def _value(config: str, key: str) -> str:
    found = re.search(rf"^{key}\s*=\s*(\S*)", config, re.MULTILINE)
    return found[1] if found else ""
