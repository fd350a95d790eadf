"""A Slurm cluster by its own commands. Each of them may be missing, or fail for a while."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kt_cli.errors import first_line

SECONDS = 60
MAX_ARRAY_SIZE = 1001  # Slurm's own default
MOST_CPUS = 16
ACTIVE = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "RESIZING",
    "STOPPED", "SIGNALING", "STAGE_OUT", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT",
}  # fmt: skip
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING"}
# Tasks of the jobs that are queued or running: job -> task -> state; task 0 of what is no array.
States = dict[str, dict[int, str]]


@dataclass(frozen=True)
class Facts:
    """What a cluster allows.

    Attributes:
        array_size: tasks of a job array, at most.
        gpus: whether nodes have GPUs that a job may ask for.
        cpus_per_gpu: a GPU's share of the CPUs of its node.
    """

    array_size: int = MAX_ARRAY_SIZE - 1
    gpus: bool = True
    cpus_per_gpu: int = 1


def inside_job() -> bool:
    return "SLURM_JOB_ID" in os.environ


def is_there() -> bool:
    """Whether jobs can be submitted here."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def look_at(partition: str = "") -> Facts | None:
    """What the cluster allows; None where its controller does not answer."""
    config = _ask("scontrol", "show", "config")
    if config is None:
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    size = int(found[1]) if found else MAX_ARRAY_SIZE
    where = ("-p", partition) if partition else ()
    gpus, cpus = _shares((_ask("sinfo", "-h", "-e", "-o", "%c|%G", *where) or "").splitlines())
    return Facts(max(1, size - 1), gpus, cpus)


def _shares(nodes: Iterable[str]) -> tuple[bool, int]:
    """Whether there are GPUs, and the smallest share of CPUs; from lines `CPUS|GRES`."""
    shares, some = [], False
    for line in nodes:
        some = True
        cpus, _, gres = line.partition("|")
        gpus = sum(int(n) for n in re.findall(r"gpu(?::[^:,()]+)*?:(\d+)", gres))
        if gpus:
            shares.append(int(re.sub(r"\D", "", cpus) or 1) // gpus)
    return bool(shares) or not some, max(1, min([MOST_CPUS, *shares])) if shares else 1


def active(jobs: Collection[str], users: Collection[int] = ()) -> States | None:
    """Which tasks of these jobs are queued or running, in one call; None where nobody can say.

    Args:
        users: ids of those who submitted them; by default this one.
    """
    whose = ",".join(map(str, sorted(users) or [os.getuid()]))
    listed = _ask("squeue", "-h", "-r", "-u", whose, "-o", "%F|%K|%T")
    if listed is not None:
        lines = [line.strip().split("|") for line in listed.splitlines()]
        said = [(job, task, state) for job, task, state in (x for x in lines if len(x) == 3)]
    else:
        listed = _ask("sacct", "-n", "-a", "-X", "-P", "-o", "JobID,State", "-j", ",".join(jobs))
        if listed is None:
            return None
        rows = [line.strip().partition("|") for line in listed.splitlines()]
        said = [(*_job_and_tasks(job), state) for job, _, state in rows]
        if set(jobs) - {job for job, _, _ in said}:
            return None  # accounting lags: it does not know all of them yet
    found: States = {}
    for job, tasks, state in said:
        state = (state.split() or [""])[0]
        if job in jobs and state in ACTIVE:
            found.setdefault(job, {}).update(dict.fromkeys(_numbers(tasks), state))
    return found


def cancel(jobs: Collection[str]) -> bool:
    """End these jobs; whether the cluster took it."""
    return not jobs or _ask("scancel", *jobs) is not None


def cancel_named(name: str) -> None:
    """End what was submitted under this name, where an answer was lost."""
    _ask("scancel", f"--name={name}", "-u", str(os.getuid()))


def _job_and_tasks(job: str) -> tuple[str, str]:
    number, _, tasks = job.partition("_")
    return number, tasks


def _numbers(tasks: str) -> list[int]:
    """Indices of tasks such as `7`, `[3-5,9%8]`; of what is no array, 0."""
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", tasks.partition("%")[0]):
        found += range(int(first), int(last or first) + 1)
    return found or [0]


def _ask(*command: str) -> str | None:
    """What a command prints; None where it is missing, fails or does not answer."""
    said, error = ask(*command)
    return None if error else said


def ask(*command: str) -> tuple[str, str]:
    """What a command prints, and why it failed; empty where it did not."""
    # Filters of the user's own would hide jobs.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(  # noqa: S603
            command, env=env, capture_output=True, text=True, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer for {SECONDS} seconds"
    except OSError as error:
        return "", f"{command[0]}: {first_line(error)}"
    if done.returncode:
        return "", (done.stderr.strip() or f"{command[0]} gave {done.returncode}").splitlines()[0]
    return done.stdout, ""
