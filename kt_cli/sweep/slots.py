"""Places where chunks run: one GPU each, or on a machine without any a share of the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

CHUNK_RUNS = 50


@dataclass(frozen=True)
class Slot:
    """A place where one chunk runs at a time. gpu: its index, or None for the CPU.

    threads: CPU threads for torch; 0 leaves torch's choice.
    """

    gpu: int | None
    threads: int = 0


def slots(gpus: int | None, processes: int | None, available: int) -> list[Slot]:
    """The slots of this machine.

    Args:
        gpus: at most so many GPUs, or on a machine without any, processes; None for all.
        processes: at most so many processes on a machine without GPUs; None for one per core.
        available: GPUs that this machine has.
    """
    if available:
        return [Slot(index) for index in range(min(gpus or available, available))]
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    count = processes or min(gpus or cores, cores)
    return [Slot(None, max(1, cores // count))] * count


def chunk_count(runs: int, parallel: int) -> int:
    """Chunks for so many runs: one for each slot, and none longer than CHUNK_RUNS."""
    return min(runs, max(parallel, -(-runs // CHUNK_RUNS)))


def cuda_devices() -> int:
    """How many GPUs torch sees here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
