"""A Slurm cluster by its own commands; nowhere else is read what they print.

Each of them may be missing, or fail for a while.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kt_cli.errors import KtError, first_line

SECONDS = 60
MAX_ARRAY_SIZE = 1001  # Slurm's own default
MOST_CPUS = 16
ACTIVE = {
    "PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "RESIZING",
    "STOPPED", "SIGNALING", "STAGE_OUT", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT",
}  # fmt: skip
RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING"}
FOR_A_WHILE = re.compile(
    r"timed? ?out|unable to contact|connection refused|temporarily|try again|zero bytes", re.I
)
TOO_MANY = re.compile(r"(Max|Grp)Submit|invalid job array|too many", re.I)
# Slurm ends other refusals with the same words, but names their limit before.
PERHAPS_TOO_MANY = re.compile(r"\A(?!.*\b(QOS|Assoc)[A-Z]).*job submit limit", re.DOTALL)
# States of nodes that take jobs, now or when others have ended; a sign may follow.
USABLE = re.compile(r"(idle|mix|mixed|alloc|allocated|comp|completing|plnd|planned)[*~#%$@+^!-]?")
CUT_OFF = {
    "preempted": re.compile(r"DUE TO PREEMPTION"),
    "lost with its node": re.compile(r"DUE TO NODE FAILURE"),
    "cancelled": re.compile(r"CANCELLED AT \S+ \*\*\*"),
}  # fmt: skip
# Tasks of the jobs that are queued or running: job -> task -> state; task 0 of what is no array.
States = dict[str, dict[int, str]]


class TooMany(KtError):
    """The cluster takes only fewer jobs."""


class Silent(KtError):
    """The cluster did not answer for a minute."""


@dataclass(frozen=True)
class Facts:
    """What a cluster allows."""

    array_size: int = MAX_ARRAY_SIZE - 1  # tasks of a job array, at most
    gpus: bool = True  # whether nodes have some that a job may ask for
    cpus_per_gpu: int = 1  # a GPU's share of the CPUs of its node


class Partition(NamedTuple):
    """Nodes of a partition that are in one state, and whether they take jobs now or later."""

    name: str
    nodes: str
    state: str
    gres: str
    usable: bool


def is_there() -> bool:
    """Whether jobs can be submitted here."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def look_at(partition: str = "", seconds: float | None = None) -> Facts | None:
    """What the cluster allows; None where its controller does not answer."""
    config, error = configuration(seconds)
    if error:
        return None
    size = config.get("MaxArraySize", "")
    where = ("-p", partition) if partition else ()
    gpus, cpus = _shares(ask("sinfo", "-a", "-h", "-e", "-o", "%c|%G", *where)[0].splitlines())
    return Facts(max(1, (int(size) if size.isdigit() else MAX_ARRAY_SIZE) - 1), gpus, cpus)


def configuration(seconds: float | None = None) -> tuple[dict[str, str], str]:
    """What the controller is set to, or why it does not say."""
    shown, error = ask("scontrol", "show", "config", seconds=seconds)
    return dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(\S*)", shown, re.MULTILINE)), error


def partitions() -> tuple[list[Partition], str]:
    """All partitions, one entry for nodes in one state, or why nobody says."""
    listed, error = ask("sinfo", "-a", "-h", "-o", "%R|%a|%D|%t|%G")
    lines = [line.split("|") for line in listed.splitlines() if line.count("|") == 4]
    return [
        Partition(name, nodes, state, gres, up == "up" and USABLE.fullmatch(state) is not None)
        for name, up, nodes, state, gres in lines
    ], error


def accounts() -> bool:
    """Whether accounting answers."""
    return shutil.which("sacct") is not None and not ask("sacct", "-n", "-X")[1]


def _shares(nodes: Sequence[str]) -> tuple[bool, int]:
    """Whether there are GPUs, and the smallest share of CPUs; from lines `CPUS|GRES`."""
    shares = []
    for line in nodes:
        cpus, _, gres = line.partition("|")
        gpus = sum(int(n) for n in re.findall(r"gpu(?::[^:,()]+)*?:(\d+)(?![^(,])", gres))
        if gpus:
            shares.append(int(re.sub(r"\D", "", cpus) or 1) // gpus)
    return bool(shares) or not nodes, max(1, min([MOST_CPUS, *shares])) if shares else 1


def active(jobs: Collection[str], users: Collection[int] = ()) -> States | None:
    """Which tasks of these jobs are queued or running, in one call; None where nobody can say.

    Args:
        users: ids of those who submitted them; by default this one.
    """
    whose = ",".join(map(str, sorted(users) or [os.getuid()]))
    # -a: also in partitions that are hidden, where one's own jobs are not listed otherwise.
    listed, error = ask("squeue", "-a", "-h", "-r", "-u", whose, "-o", "%F|%K|%T")
    if error:
        columns = ("-n", "-a", "-X", "-P", "-o", "JobID,State")
        listed, error = ask("sacct", *columns, "-j", ",".join(jobs))
        # JOB_TASKS|STATE; of what is no array, JOB|STATE
        listed = re.sub(r"^(\d+)_?(.*)\|", r"\1|\2|", listed, flags=re.MULTILINE)
        if error or set(jobs) - set(re.findall(r"^\d+", listed, re.MULTILINE)):
            return None  # accounting lags: it does not know all of them yet
    found: States = {}
    for job, tasks, state in re.findall(r"^\s*(\d+)\|(.*)\|(\w+)", listed, re.MULTILINE):
        if job in jobs and state in ACTIVE:
            found.setdefault(job, {}).update(dict.fromkeys(_numbers(tasks), state))
    return found


def _numbers(tasks: str) -> list[int]:
    """Indices of tasks such as `7`, `[3-5,9%8]`; of what is no array, 0."""
    found: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", tasks.partition("%")[0]):
        found += range(int(first), int(last or first) + 1)
    return found or [0]


def refusal(said: str) -> type[KtError]:
    """What sbatch means by an error: TooMany, Silent, or that it refuses for good."""
    if TOO_MANY.search(said) or PERHAPS_TOO_MANY.search(said):
        return TooMany
    return Silent if FOR_A_WHILE.search(said) else KtError


def cut_off(last_words: str) -> str:
    """How slurmstepd ended a job for the cluster's reasons, or somebody's; empty where not."""
    return next((how for how, words in CUT_OFF.items() if words.search(last_words)), "")


def cancel(jobs: Collection[str]) -> bool:
    """End these jobs; whether the cluster took it."""
    return not jobs or not ask("scancel", *jobs)[1]


def cancel_named(name: str) -> None:
    """End what was submitted under this name, where an answer was lost."""
    ask("scancel", f"--name={name}", "-u", str(os.getuid()))


def ask(*command: str, seconds: float | None = None) -> tuple[str, str]:
    """What a command prints, and why it failed; one of them is empty."""
    seconds = seconds or SECONDS
    # Filters of the user's own would hide jobs.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(  # noqa: S603
            command, env=env, capture_output=True, text=True, timeout=seconds,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", f"{command[0]} did not answer for {seconds:g} seconds"
    except OSError as error:
        return "", f"{command[0]}: {first_line(error)}"
    if done.returncode:
        return "", (done.stderr.strip() or f"{command[0]} gave {done.returncode}").splitlines()[0]
    return done.stdout, ""
