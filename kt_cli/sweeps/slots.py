"""Places where chunks run: one GPU each, or on a machine without any a share of the CPU."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kt_cli import cores as cpu
from kt_cli.precision import asked_device

DEVICE = re.compile(r"\d+|(GPU|MIG)-\S+")
DRIVER = Path("/proc/driver/nvidia")


@dataclass(frozen=True)
class Slot:
    """Where one chunk runs at a time."""

    gpu: str | None  # None for the CPU
    threads: int = 0  # 0 leaves torch's choice


def slots(gpus: int | None, processes: int | None, available: Sequence[str]) -> list[Slot]:
    """The slots of this machine, which share the cores of this process.

    Args:
        gpus: at most so many GPUs, or on a machine without any, processes; None for all.
        processes: at most so many processes on a machine without GPUs; None for one per core, or
            where OMP_NUM_THREADS says how many threads each has, for as many as have room.
        available: CUDA devices (indices or UUIDs) that this process may use.
    """
    cores, threads = cpu.cores(), cpu.threads_asked()
    if available:
        used = available[: gpus or len(available)]
        return [Slot(device, threads or max(1, cores // len(used))) for device in used]
    most = max(1, cores // (threads or 1))
    count = processes or min(gpus or most, most)
    return [Slot(None, threads or max(1, cores // count))] * count


def cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, each as CUDA_VISIBLE_DEVICES names it alone."""
    import torch

    from kt_cli.device import pick_device

    named, (asked, only) = _named(), asked_device()
    if asked == "cpu":
        return []
    if named and named[0].startswith("MIG-") and torch.version.cuda:
        return named  # CUDA counts one of them, whatever their number: a process has only one
    count = torch.cuda.device_count()  # without a context, which would take memory on the first
    found = [str(index) for index in range(count)] if named is None else named[:count]
    found = found if only is None else found[only : only + 1]
    if not found and asked == "cuda":
        pick_device()  # says that there is none
    return found


def given_gpu() -> str | None:
    """The GPU that a cluster gave this job; None for none, or on a node that has no driver."""
    named = _named() if asked_device()[0] != "cpu" else None
    return named[0] if named and DRIVER.exists() else None


def _named() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names, as CUDA reads it; None where it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    # Nothing counts behind an entry that names none, nor where one is named twice.
    entries = (entry.strip() for entry in value.split(","))
    named = list(itertools.takewhile(DEVICE.fullmatch, entries))
    return named if len(set(named)) == len(named) else []
