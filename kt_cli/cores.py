"""Cores and memory that this process may use, and how its threads wait for each other.

Without torch, whose OpenMP reads the environment once, when it is imported.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
V1_CPU = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
V1_MEMORY = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_chosen = ""  # threads that `settle` chose, and not the user


def cores() -> int:
    """Cores that affinity and control groups leave to this process; one at least."""
    return max(1, int(min(of_affinity(), of_groups())))


def of_affinity() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def of_groups() -> float:
    """The least that this process's control groups, and those they are in, allow; else infinite."""
    said = of_own_groups("cpu", V1_CPU, ("cpu.max",))
    return min((quota / period for quota, period in said if quota > 0), default=float("inf"))


def memory_left() -> int:
    """Bytes that this process's control groups, and those they are in, leave; else very many."""
    said = of_own_groups("memory", V1_MEMORY, ("memory.max", "memory.current"))
    return max(0, min((limit - used for limit, used in said), default=sys.maxsize))


def of_own_groups(
    controller: str, version_1: Sequence[str], version_2: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Two numbers that files of this process's control groups, and those above them, say.

    Groups that say none ("max") are left out. In a container the path may be the host's, and is
    not there.
    """
    with suppress(OSError):
        for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            files = version_1 if controllers else version_2
            own = GROUPS / controllers / path.lstrip("/")
            for folder in itertools.takewhile(GROUPS.parent.__ne__, (own, *own.parents)):
                with suppress(OSError, ValueError):  # none there, or "max"
                    said = [(folder / name).read_text(encoding="ascii") for name in files]
                    first, second = map(int, " ".join(said).split())
                    yield first, second


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
