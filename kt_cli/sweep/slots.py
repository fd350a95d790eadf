"""Places where chunks run: one GPU each, or on a machine without any a share of the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

CHUNK_RUNS = 50


@dataclass(frozen=True)
class Slot:
    """A place where one chunk runs at a time. gpu: its CUDA device, or None for the CPU.

    threads: CPU threads for torch; 0 leaves torch's choice.
    """

    gpu: str | None
    threads: int = 0


def slots(gpus: int | None, processes: int | None, available: Sequence[str]) -> list[Slot]:
    """The slots of this machine.

    Args:
        gpus: at most so many GPUs, or on a machine without any, processes; None for all.
        processes: at most so many processes on a machine without GPUs; None for one per core.
        available: CUDA devices (indices or UUIDs) that this process may use.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if available:
        used = available[: gpus or len(available)]
        return [Slot(device, max(1, cores // len(used))) for device in used]
    count = processes or min(gpus or cores, cores)
    return [Slot(None, max(1, cores // count))] * count


def chunk_count(runs: int, parallel: int) -> int:
    """Chunks for so many runs: one for each slot, and none longer than CHUNK_RUNS."""
    return min(runs, max(parallel, -(-runs // CHUNK_RUNS)))


def cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = [d.strip() for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    return named[:count] if named else [str(index) for index in range(count)]
