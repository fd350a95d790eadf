"""GPUs, and what this process may use of processors, memory and shared memory."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

from kt_cli.cores import of_affinity, of_groups
from kt_cli.device import free_memory, has_bfloat16, share_of
from kt_cli.diagnosis.finding import Asked, Finding, green, red, yellow
from kt_cli.errors import counted, first_line

GB = 10**9
SHARED = Path("/dev/shm")  # noqa: S108
SECONDS = 20
SMALL_SHARED, SMALL_MEMORY, SMALL_GPU = 1 * GB, 4 * GB, 4 * GB
FEW_FILES = 1024
BUSY = 1.25  # load for each core
NO_DEVICES = "No devices were found"  # nvidia-smi's words, on a machine that lost none
NO_CUDA_BUILD = (
    "This torch is built without CUDA. Install the build for your driver: the selector of "
    "pytorch.org tells the command."
)
NO_DEVICE = (
    "The driver may be older than torch needs, or CUDA_VISIBLE_DEVICES hides the GPUs "
    "(it is {visible}); in a container, start it with its GPUs."
)


def gpus(asked: Asked) -> Iterator[Finding]:
    """What torch sees, against what the driver sees."""
    driver, complaint = _driver()
    if complaint:
        level = red if torch.cuda.is_available() else yellow
        yield level(
            f"nvidia-smi fails: {complaint}",
            "Where there are GPUs, one or its driver is broken: reset it, or restart the machine.",
        )
    if not torch.cuda.is_available():
        if driver:
            visible = repr(os.environ.get("CUDA_VISIBLE_DEVICES", "not set"))
            built = torch.version.cuda is not None
            yield red(
                f"the driver has {counted(len(driver), 'GPU')} ({driver[0]}), but torch sees none",
                NO_DEVICE.format(visible=visible) if built else NO_CUDA_BUILD,
            )
        elif not complaint:
            yield yellow(
                "no GPU here: everything runs on the CPU",
                "Fine for small data; else use a machine with GPUs, or sweep through Slurm.",
            )
        return
    count, mig = torch.cuda.device_count(), _mig_devices()
    if len(mig) > 1 and "MIG-" not in os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        yield yellow(
            f"of {len(mig)} MIG devices a sweep uses one, as CUDA counts no more",
            f"Name those to use: CUDA_VISIBLE_DEVICES={','.join(mig)}.",
        )
    elif not mig and count < len(driver) and "CUDA_VISIBLE_DEVICES" not in os.environ:
        said = f"torch sees {count} of the driver's {len(driver)} GPUs"
        yield red(said, "The others may be broken.")
    for index in range(count):
        yield _gpu(index, driver[0].rpartition(", ")[2] if driver else "unknown")


def _gpu(index: int, driver: str) -> Finding:
    name = f"GPU {index}"
    try:
        name = f"{index}: {torch.cuda.get_device_name(index)}"
        torch.ones(8, device=f"cuda:{index}").sum().item()
        free, total = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        return red(
            f"{name} does not compute: {first_line(error)}",
            "It may be in use exclusively, broken, or unknown to this build of torch.",
        )
    half = "bfloat16" if has_bfloat16(index) else "float16 only"
    said = f"{name}, {free / GB:.1f} of {total / GB:.1f} GB free, {half}, driver {driver}"
    if free < min(SMALL_GPU, total / 2):
        return yellow(said, "Others use this GPU: choose another with CUDA_VISIBLE_DEVICES.")
    return green(said)


def _driver() -> tuple[list[str], str]:
    """The driver's GPUs, `name, version` each, and what it complains of."""
    code, said = _nvidia_smi("--query-gpu=name,driver_version", "--format=csv,noheader")
    if code and NO_DEVICES not in said:
        return [], said.partition("\n")[0]
    return ([] if code else said.splitlines()), ""


def _mig_devices() -> list[str]:
    """UUIDs of the parts of GPUs that are divided."""
    code, said = _nvidia_smi("-L")
    return [] if code else re.findall(r"UUID: (MIG-[^)\s]+)", said)


def _nvidia_smi(*arguments: str) -> tuple[int, str]:
    """Its exit status and what it prints; nothing at all where there is none, or no answer."""
    try:
        done = subprocess.run(  # noqa: S603
            ("nvidia-smi", *arguments),  # noqa: S607
            capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return 0, ""
    return done.returncode, (done.stdout.strip() or done.stderr.strip())


def processors(asked: Asked) -> Finding:
    """Cores of this process, and the share that its control group leaves of them."""
    cores, share, threads = of_affinity(), of_groups(), torch.get_num_threads()
    said = f"{cores} of {counted(os.cpu_count() or 1, 'core')}, {counted(threads, 'thread')}"
    busy = os.getloadavg()[0]
    if share < min(cores, threads):
        return yellow(
            f"{said}, but the control group allows {share:g} cores",
            f"Threads would wait for each other: set OMP_NUM_THREADS={max(1, int(share))}.",
        )
    if threads > cores:
        advice = f"Unset OMP_NUM_THREADS, or set it to {cores}."
        return yellow(f"{said}: more threads than cores", advice)
    if busy > BUSY * (os.cpu_count() or 1):
        return yellow(
            f"{said}, but the machine is busy: a load of {busy:.1f} in the last minute",
            "Others compute here, so all takes longer: wait, or try kt sweep --processes 1.",
        )
    return green(said)


def memory(asked: Asked) -> Finding:
    share = share_of(os.cpu_count() or 1)
    free = free_memory(torch.device("cpu"))
    said = f"{free / GB:.1f} GB are free for this process"
    if share < 1:
        said += f" ({share:.0%} of the machine, as of its threads)"
    if free < SMALL_MEMORY:
        return yellow(said, "Little for large models: ask for more (Slurm: --mem).")
    return green(said)


def shared_memory(asked: Asked) -> Finding:
    """Decoding processes hand over batches there."""
    try:
        stat = os.statvfs(SHARED)
    except OSError:
        return yellow(f"no {SHARED}", "Decode in the process itself: -j 0.")
    free = stat.f_bavail * stat.f_frsize
    said = f"{SHARED}: {free / GB:.2f} GB free"
    if free < SMALL_SHARED:
        return yellow(
            f"{said}: decoding processes may die of a bus error",
            "In a container start it with --shm-size=8g (or --ipc=host); else -j 0.",
        )
    return green(said)


def open_files(asked: Asked) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unbounded = resource.RLIM_INFINITY
    if soft != unbounded and soft < FEW_FILES:
        advice = f"ulimit -n {'unlimited' if hard == unbounded else hard}"
        return yellow(
            f"only {soft} open files are allowed", f"Decoding processes need more: {advice}."
        )
    return green("unlimited" if soft == unbounded else f"{soft:,} open files are allowed")
