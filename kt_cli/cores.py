"""Cores that this process may use, and how its threads wait for each other.

Without torch, whose OpenMP reads the environment once, when it is imported.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_chosen = ""  # threads that `settle` chose, and not the user


def cores() -> int:
    """Cores that affinity and control groups leave to this process; one at least."""
    return max(1, int(min(of_affinity(), of_groups())))


def of_affinity() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def of_groups() -> float:
    """The least that this process's control groups, and those they are in, allow; else infinite."""
    return min(_allowed(), default=float("inf"))


def _allowed() -> Iterator[float]:
    """By versions 1 and 2. In a container the path may be the host's, and is not there."""
    with suppress(OSError):
        for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            base = GROUPS / controllers
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            own = base / path.lstrip("/")
            for folder in itertools.takewhile(GROUPS.parent.__ne__, (own, *own.parents)):
                with suppress(OSError, ValueError):  # none there, or "max"
                    said = [(folder / name).read_text(encoding="ascii") for name in files]
                    quota, period = map(int, " ".join(said).split())
                    if quota > 0:
                        yield quota / period


def settle() -> None:
    """For a command, before torch is imported: no more threads than cores, which wait asleep.

    Threads that spin while they wait take the cores from those that they wait for, where others
    compute too (benchmarks/threads.py). What the user set stands.
    """
    global _chosen
    os.environ.setdefault(WAITING, "PASSIVE")
    # OpenMP knows of the affinity itself.
    if of_groups() < of_affinity() and THREADS not in os.environ:
        os.environ[THREADS] = _chosen = str(cores())


def threads_asked() -> int | None:
    """Threads of each process, where the user said how many."""
    said = os.environ.get(THREADS, "").partition(",")[0]
    return int(said) if said.isdigit() and int(said) and said != _chosen else None
